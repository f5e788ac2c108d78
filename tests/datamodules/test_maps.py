import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from datamodules import DataError, DataWarning, ImagePair, Maps
from datamodules.base import to_unit_interval
from datamodules.loading.augment import horizontal_flip
from datamodules.loading.pairs import UnpairedBatches, shift_target
from datamodules.loading.samplers import ShuffledBatches
from tests.support.data_modules import real_root, set_up, with_trainer
from tests.support.pairs import everything, only_a_subset, place_of_window, resized, write_maps

pytestmark = [only_a_subset, pytest.mark.usefixtures("seeds")]


def prepared(root: Path, **arguments) -> Maps:
    return set_up(Maps(root=str(root), **{"batch_size": 4, "image_size": 32, **arguments}))


# --- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [60, 30, 25])
def test_halves_are_cut_at_the_middle_and_resized(tmp_path: Path, height: int) -> None:
    """Training images at 286/256 of the size, in the order of their numbers (2 before 10); no half bleeds into the
    other; evaluation images at the size itself, from the original."""
    write_maps(tmp_path / "maps", height=height)
    data = prepared(tmp_path)
    assert (data.image_shape, data.load_size, data.num_classes) == ((3, 32, 32), 36, 0)
    train = everything(data.train_set)
    assert isinstance(train, ImagePair)
    assert train.source.shape == train.target.shape == (12, 3, 36, 36)
    for row in range(12):
        assert torch.equal(train.source[row], resized(2 * (row + 1), 36, height))
        assert torch.equal(train.target[row], resized(2 * (row + 1) + 1, 36, height))
    for split in (data.val_set, data.test_set):
        for number, source, target in zip(split.rows + 101, *everything(split), strict=True):
            assert torch.equal(source, resized(2 * int(number), 32, height))
            assert torch.equal(target, resized(2 * int(number) + 1, 32, height))


@pytest.mark.parametrize(("image_size", "load_size"), [(256, 286), (128, 143), (64, 72)])
def test_load_size_is_that_of_the_paper(image_size: int, load_size: int) -> None:
    assert Maps(image_size=image_size).load_size == load_size


def test_the_official_val_is_halved_by_its_seed(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps", train=4, val=11)
    splits = []
    for seed in (0, 0, 1):
        data = prepared(tmp_path, split_seed=seed)
        val, test = data.val_set.rows.tolist(), data.test_set.rows.tolist()
        assert [len(val), len(test)] == [5, 6]
        assert sorted(val + test) == list(range(11))
        splits.append((val, test))
    assert splits[0] == splits[1] != splits[2]


def test_direction(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    there, back = prepared(tmp_path), prepared(tmp_path, direction="map_to_satellite")
    for split in ("train_set", "val_set", "test_set"):
        forth, reverse = everything(getattr(there, split)), everything(getattr(back, split))
        assert torch.equal(forth.source, reverse.target)
        assert torch.equal(forth.target, reverse.source)


@pytest.mark.parametrize("place", ["maps/maps.tar.gz", "maps.tar.gz"])
def test_a_placed_archive(tmp_path: Path, place: str) -> None:
    write_maps(tmp_path / "made" / "maps")
    expected = everything(prepared(tmp_path / "made").train_set)
    (tmp_path / "root" / "maps").mkdir(parents=True)
    with tarfile.open(tmp_path / "root" / place, "w:gz") as archive:
        for split in ("train", "val"):
            archive.add(tmp_path / "made" / "maps" / split, f"maps/{split}")
    data = prepared(tmp_path / "root")
    assert torch.equal(everything(data.train_set).source, expected.source)
    assert not list((tmp_path / "root").rglob("*.jpg"))


def test_an_archive_unpacked_in_its_folder(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps" / "maps")
    for _ in range(2):
        assert len(prepared(tmp_path).train_set) == 12


def test_a_subset_is_noted(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    with pytest.warns(DataWarning) as notes:
        prepared(tmp_path)
    texts = [str(warning.message) for warning in notes]
    assert any(text.endswith("maps holds 12 pairs in train/; the data set has 1,096.") for text in texts)
    assert any(text.endswith("maps holds 5 pairs in val/; the data set has 1,098.") for text in texts)


# --- training batches -------------------------------------------------------------------------------------------------


def seen_in_training(data: Maps, epochs: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The pairs that a model would get, as bytes again."""
    loader = with_trainer(data).train_dataloader()
    pairs = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            batch = data.on_after_batch_transfer(batch, 0)
            assert isinstance(batch, ImagePair)
            for image in batch:
                assert image.shape == (4, 3, 32, 32)
                assert image.dtype == torch.float32
                assert 0 <= image.min() <= image.max() <= 1
            pairs += zip(*(image.mul(255).round().byte() for image in batch), strict=True)
    return pairs


def owners_and_places(data: Maps, epochs: int) -> list[tuple[int, int, tuple, tuple]]:
    """For each training pair: the rows of its source and target, and the windows of both."""
    stored = everything(data.train_set)
    result = []
    for pair in seen_in_training(data, epochs):
        rows = []
        for image, candidates in zip(pair, stored, strict=True):
            middle = candidates[:, :, 18, 18].int() - image[:, 16, 16].int()
            order = middle.abs().sum(1).argsort().tolist()
            for row in order:
                try:
                    rows.append((row, place_of_window(candidates[row], image)))
                    break
                except AssertionError:
                    continue
        (source, source_place), (target, target_place) = rows
        result.append((source, target, source_place, target_place))
    return result


def test_paired_batches_share_window_and_mirroring(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    seen = owners_and_places(prepared(tmp_path), epochs=10)
    assert len(seen) == 120
    assert all(source == target and source_place == target_place for source, target, source_place, target_place in seen)
    for epoch in range(10):
        assert sorted(source for source, *_ in seen[12 * epoch : 12 * epoch + 12]) == list(range(12))
    tops, lefts, mirrored = zip(*(place for _, _, place, _ in seen), strict=True)
    assert set(tops) == set(lefts) == set(range(5))
    assert 35 < sum(mirrored) < 85
    assert len({place for _, _, place, _ in seen[:4]}) > 1  # drawn for each pair, not for the batch


def test_loose_batches_share_the_rows_and_mirroring_only(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    seen = owners_and_places(prepared(tmp_path, pairing="loose", max_shift=2), epochs=10)
    assert all(source == target for source, target, *_ in seen)
    assert all(source_place[2] == target_place[2] for *_, source_place, target_place in seen)
    for axis in range(2):
        shifts = [target_place[axis] - source_place[axis] for *_, source_place, target_place in seen]
        assert set(shifts) == {-2, -1, 0, 1, 2}


def test_loose_without_a_shift_is_paired(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    seen = owners_and_places(prepared(tmp_path, pairing="loose", max_shift=0), epochs=2)
    assert all(source_place == target_place for *_, source_place, target_place in seen)


def test_unpaired_batches_have_two_orders(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    data = prepared(tmp_path, pairing="unpaired")
    seen = owners_and_places(data, epochs=4)
    orders = [
        tuple(pair[half] for pair in seen[12 * epoch : 12 * epoch + 12]) for epoch in range(4) for half in range(2)
    ]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len(set(orders)) == 8
    assert sum(source_place[2] == target_place[2] for *_, source_place, target_place in seen) < 40
    batch = next(iter(data.val_dataloader()))  # evaluation is paired
    for number, source, target in zip(data.val_set.rows[:4] + 101, *batch, strict=True):
        assert torch.equal(source, resized(2 * int(number), 32, 60))
        assert torch.equal(target, resized(2 * int(number) + 1, 32, 60))


@pytest.mark.parametrize("pairing", ["paired", "loose", "unpaired"])
def test_same_seed_same_batches(tmp_path: Path, pairing: str) -> None:
    write_maps(tmp_path / "maps")
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(seen_in_training(prepared(tmp_path, pairing=pairing, max_shift=2), epochs=2))
    same = [
        all(torch.equal(a, b) for p, q in zip(runs[0], run, strict=True) for a, b in zip(p, q, strict=True))
        for run in runs[1:]
    ]
    assert same == [True, False]


def test_two_ranks_share_out_the_unpaired_batches_of_one() -> None:
    def batches(batch_size: int, *rank: int) -> list[torch.Tensor]:
        return list(UnpairedBatches(*(ShuffledBatches(12, batch_size, seed, *rank) for seed in (0, 1))).epoch(5))

    one = batches(4)
    assert [batch.shape for batch in one] == [(4, 2)] * 3
    for whole, first, second in zip(one, batches(2, 0, 2), batches(2, 1, 2), strict=True):
        assert sorted(whole.tolist()) == sorted(first.tolist() + second.tolist())


def test_an_unpaired_sample_by_its_number_is_a_pair(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    sample = prepared(tmp_path, pairing="unpaired").train_set[3]
    assert torch.equal(sample.source, resized(8, 36, 60))
    assert torch.equal(sample.target, resized(9, 36, 60))


def test_an_unpaired_data_set_on_another_device_stays_unpaired(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    data = prepared(tmp_path, pairing="unpaired").train_set.to(torch.device("cpu"))
    batch = data.__getitems__(torch.tensor([[0, 1]]))
    assert torch.equal(batch.source[0], resized(2, 36, 60))
    assert torch.equal(batch.target[0], resized(5, 36, 60))


def test_evaluation_is_not_augmented(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    data = with_trainer(prepared(tmp_path), training=False)
    batch = everything(data.val_set)
    assert all(
        torch.equal(a, b) for a, b in zip(data.on_after_batch_transfer(batch, 0), to_unit_interval(batch), strict=True)
    )


def test_shifts_are_uniform_and_to_both_sides() -> None:
    """On images whose pixels say where they are."""
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    grid = torch.stack((rows, columns)).byte().expand(4000, 2, 20, 20)
    source, target = shift_target(ImagePair(grid, grid), 3)
    assert source.shape == target.shape == (4000, 2, 17, 17)
    difference = (target.int() - source.int()).flatten(2)
    assert torch.equal(difference.amin(2), difference.amax(2))
    pairs = (difference[:, :, 0].long() + 3) @ torch.tensor([7, 1])
    counts = pairs.bincount(minlength=49)
    assert len(counts) == 49
    # 49 equally likely shifts: chi-square with 48 degrees of freedom is above 94 once in 10,000 times.
    assert ((counts - 4000 / 49) ** 2 / (4000 / 49)).sum() < 94


def test_bytes_and_floats_are_mirrored_alike() -> None:
    image = torch.randint(256, (6, 3, 5, 4), dtype=torch.uint8)
    chosen = torch.tensor([True, False, True, True, False, False])
    expected = torch.stack([x.flip(-1) if c else x for x, c in zip(image, chosen, strict=True)])
    assert torch.equal(horizontal_flip(image, chosen), expected)
    assert torch.equal(horizontal_flip(image / 255, chosen), expected / 255)


# --- bad input --------------------------------------------------------------------------------------------------------


def without_val(root: Path) -> None:
    write_maps(root / "maps", val=0)


def all_truncated(root: Path) -> None:
    write_maps(root / "maps")
    for path in (root / "maps" / "train").iterdir():
        path.write_bytes(path.read_bytes()[:60])


def cut_archive(root: Path) -> None:
    write_maps(root / "made" / "maps")
    (root / "maps").mkdir()
    with tarfile.open(root / "maps" / "maps.tar.gz", "w:gz") as archive:
        archive.add(root / "made" / "maps", "maps")
    content = (root / "maps" / "maps.tar.gz").read_bytes()
    (root / "maps" / "maps.tar.gz").write_bytes(content[: len(content) // 2])


BAD_ROOTS = {
    "no val": (without_val, r"maps holds no images in val/"),
    "all truncated": (all_truncated, r"None of the 12 images in .*maps can be read: train/1\.jpg \(.*, …"),
    "cut archive": (cut_archive, r"maps\.tar\.gz is damaged \(.*\): delete it, and get it again"),
}


@pytest.mark.parametrize(("make", "sentence"), BAD_ROOTS.values(), ids=BAD_ROOTS)
def test_bad_roots(tmp_path: Path, make, sentence: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        prepared(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.npy"))


def test_a_truncated_pair_is_left_out(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps")
    for name in ("train/3.jpg", "val/1.jpg"):
        path = tmp_path / "maps" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(DataWarning) as notes:
        data = prepared(tmp_path)
    texts = " ".join(str(warning.message) for warning in notes)
    assert f"1 of the 12 images in {tmp_path}/maps can't be read and are left out: train/3.jpg (" in texts
    assert f"1 of the 5 images in {tmp_path}/maps can't be read and are left out: val/1.jpg (" in texts
    assert data.train_set.rows.tolist() == [0, 1, *range(3, 12)]
    assert torch.equal(everything(data.train_set).source[2], resized(8, 36, 60))
    assert sorted(data.val_set.rows.tolist() + data.test_set.rows.tolist()) == [1, 2, 3, 4]


# --- real data --------------------------------------------------------------------------------------------------------


def test_real_maps(tmp_path: Path) -> None:
    """The published files, of which there may be a part; the arrays go to the user's cache if the root is read-only."""
    root, small = real_root("maps/train"), tmp_path / "root" / "maps"
    for split, count in (("train", 8), ("val", 4)):
        (small / split).mkdir(parents=True)
        for number in range(1, count + 1):
            (small / split / f"{number}.jpg").symlink_to(root / "maps" / split / f"{number}.jpg")
    data = prepared(tmp_path / "root", image_size=128)
    train = everything(data.train_set)
    with Image.open(root / "maps" / "train" / "5.jpg") as image:
        assert image.size == (1200, 600)
        halves = functional.pil_to_tensor(image).unfold(2, 600, 600).unbind(2)
    for stored, half in zip((train.source[4], train.target[4]), halves, strict=True):
        expected = functional.resize(
            half.contiguous(), [143, 143], transforms.InterpolationMode.BICUBIC, antialias=True
        )
        assert (stored.int() - expected.int()).abs().max() <= 2
    brightness = [image.float().mean() for image in train]
    assert brightness[1] > brightness[0] + 50  # maps are light, photographs dark
