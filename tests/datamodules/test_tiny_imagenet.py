import io
import shutil
import warnings
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from datamodules import DataError, DataWarning, tiny_imagenet
from datamodules.tiny_imagenet import TinyImageNet, Tree, decode, train_files, val_files
from tests.support.data_modules import real_root
from tests.support.fixtures import Patch

# The order of the real wnids.txt isn't that of the labels either.
WNIDS = [f"n{number:08d}" for number in np.random.default_rng(0).permutation(200) + 1_440_000]
LABELS = {wnid: label for label, wnid in enumerate(sorted(WNIDS))}
TRAIN_NUMBERS = [0, 1, 2, 10]
VAL = 300
SUBSET = r"TinyImageNet is a subset: 800 of 100,000 training and 300 of 10,000 validation images\."


def jpeg(seed: int, size: int = 64, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).convert(mode).save(out, "JPEG")
    return out.getvalue()


def official_files() -> dict[str, bytes]:
    """The data set's files by name, in the official layout; every tenth training image is gray."""
    files = {"wnids.txt": "\n".join(WNIDS).encode() + b"\n"}
    words = [f"{wnid}\tthing {label}, object {label}\n" for wnid, label in LABELS.items()]
    files["words.txt"] = ("n00001740\tentity\n" + "".join(words)).encode()
    for number, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t62\t62\n"
        for i in TRAIN_NUMBERS:
            seed = number * 100 + i
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(seed, mode="L" if number % 10 == 0 else "RGB")
    classes = np.random.default_rng(1).integers(0, 200, VAL)
    files["val/val_annotations.txt"] = "".join(
        f"val_{i}.JPEG\t{WNIDS[wnid]}\t0\t32\t44\t62\n" for i, wnid in enumerate(classes)
    ).encode()
    for i in range(VAL):
        files[f"val/images/val_{i}.JPEG"] = jpeg(100_000 + i)
    files["test/images/test_0.JPEG"] = jpeg(0)
    return files


@pytest.fixture(scope="module")
def official() -> dict[str, bytes]:
    return official_files()


def write_zip(root: Path, files: dict[str, bytes], top: str = "tiny-imagenet-200/") -> Path:
    path = root / "tiny-imagenet-200" / "tiny-imagenet-200.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir(top)
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*checksum:datamodules.DataWarning"),
    pytest.mark.filterwarnings("ignore:TinyImageNet is limited:datamodules.DataWarning"),
]


def prepared(root: Path, **arguments) -> TinyImageNet:
    data = TinyImageNet(str(root), **arguments)
    data.prepare_data()
    with pytest.warns(DataWarning, match="TinyImageNet is a subset"):
        data.setup("fit")
    return data


@pytest.fixture(scope="module")
def root(official: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the zip; most tests share what is prepared there."""
    root = tmp_path_factory.mktemp("root")
    write_zip(root, official)
    return root


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_every_training_image_has_its_pixels_and_label(root: Path, official: dict[str, bytes]) -> None:
    columns = prepared(root).train_set.columns
    assert columns.image.shape == (800, 3, 64, 64)
    assert columns.image.dtype == torch.uint8
    row = 0
    for wnid in sorted(WNIDS):
        for i in TRAIN_NUMBERS:  # 10 comes after 2
            content = official[f"train/{wnid}/images/{wnid}_{i}.JPEG"]
            assert np.array_equal(columns.image[row], pixels(content))
            assert columns.label[row] == LABELS[wnid]
            row += 1


def test_every_validation_image_has_its_pixels_and_label(root: Path, official: dict[str, bytes]) -> None:
    data = prepared(root)
    columns = data.val_set.columns
    for row, line in enumerate(official["val/val_annotations.txt"].decode().splitlines()):
        name, wnid = line.split("\t")[:2]
        assert np.array_equal(columns.image[row], pixels(official[f"val/images/{name}"]))
        assert columns.label[row] == LABELS[wnid]
    assert data.test_set.columns.image is columns.image


def test_labels_are_those_of_torchvisions_image_folder(tmp_path: Path, official: dict[str, bytes]) -> None:
    write_folder(tmp_path / "tiny-imagenet-200", official)
    data = prepared(tmp_path)
    theirs = ImageFolder(tmp_path / "tiny-imagenet-200" / "train")
    assert data.train_set.columns.label.tolist() == theirs.targets
    assert theirs.class_to_idx == LABELS


def test_classes_have_their_first_name(root: Path) -> None:
    data = prepared(root)
    assert data.class_names == tuple(f"thing {label}" for label in range(200))
    assert data.num_classes == 200
    assert prepared(root, max_classes=3).class_names == ("thing 0", "thing 1", "thing 2")


def test_gray_images_get_three_equal_channels() -> None:
    gray = decode(jpeg(1, mode="L"))
    assert gray.shape == (3, 64, 64)
    assert np.array_equal(gray[0], gray[1])
    assert np.array_equal(gray[0], gray[2])
    assert np.array_equal(gray, pixels(jpeg(1, mode="L")))


@pytest.mark.parametrize("place", ["tiny-imagenet-200", "tiny-imagenet-200/tiny-imagenet-200", "zip in root", "no top"])
def test_other_places(root: Path, tmp_path: Path, official: dict[str, bytes], place: str) -> None:
    if place == "zip in root":
        write_zip(tmp_path, official).rename(tmp_path / "tiny-imagenet-200.zip")
    elif place == "no top":
        write_zip(tmp_path, official, top="")
    else:
        write_folder(tmp_path / place, official)
    ours, reference = prepared(tmp_path), prepared(root)
    for split in ("train_set", "val_set", "test_set"):
        assert torch.equal(getattr(ours, split).columns.image, getattr(reference, split).columns.image)
        assert torch.equal(getattr(ours, split).columns.label, getattr(reference, split).columns.label)


def test_images_that_come_later_are_noticed(tmp_path: Path, official: dict[str, bytes]) -> None:
    folder = write_folder(tmp_path / "tiny-imagenet-200", official)
    prepared(tmp_path)
    wnid = sorted(WNIDS)[7]
    (folder / "train" / wnid / "images" / f"{wnid}_3.JPEG").write_bytes(jpeg(5))
    data = TinyImageNet(str(tmp_path))
    with pytest.warns(DataWarning, match="the source files have changed"):
        data.prepare_data()
    with pytest.warns(DataWarning, match="801 of 100,000 training"):
        data.setup("fit")
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "val")
    (folder / "wnids.txt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.prepare_data()


def test_the_real_zip(monkeypatch: Patch, tmp_path: Path) -> None:
    name = "tiny-imagenet-200/tiny-imagenet-200.zip"
    real = real_root(name) / name
    with Tree(real) as tree:  # without decoding everything: it takes seconds
        wnids = sorted(tree.lines("wnids.txt"))
        train, val = train_files(tree, wnids), val_files(tree, wnids)
        words = dict(line.split("\t") for line in tree.lines("words.txt"))
        assert words[wnids[0]] == "goldfish, Carassius auratus"
        assert set(Counter(label for _, label in train).values()) == {len(train) // 200}
        assert all(name.split("/")[1] == wnids[label] for name, label in train)
        assert len({name for name, _ in train}) == len(train)
        annotations = tree.read("val/val_annotations.txt").decode().splitlines()
        assert [(name.split("/")[-1], wnids[label]) for name, label in val] == [
            tuple(line.split("\t")[:2]) for line in annotations
        ]
        modes = Counter()
        for name, _ in train[::40] + val[::40]:
            content = tree.read(name)
            modes[Image.open(io.BytesIO(content)).mode] += 1
            assert np.array_equal(decode(content), pixels(content))
        assert modes["L"] > 0
        assert modes["RGB"] > 10 * modes["L"]


# --- splits, limits, batches ------------------------------------------------------------------------------------------


def test_official_validation_images_are_split_in_halves(root: Path) -> None:
    data, again, other = prepared(root), prepared(root), prepared(root, split_seed=1)
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (800, 150, 150)
    assert sorted([*data.val_set.rows.tolist(), *data.test_set.rows.tolist()]) == list(range(VAL))
    assert torch.equal(data.val_set.rows, again.val_set.rows)
    assert not torch.equal(data.val_set.rows, other.val_set.rows)
    assert data.predict_set is data.test_set


def test_a_subset_and_limits_are_noted(root: Path) -> None:
    data = TinyImageNet(str(root), max_classes=20, images_per_class=3)
    data.prepare_data()
    with pytest.warns(DataWarning) as notes:
        data.setup("fit")
    sizes = f"60 training, {len(data.val_set)} validation and {len(data.test_set)} test images"
    assert [str(found.message) for found in notes] == [
        "TinyImageNet is a subset: 800 of 100,000 training and 300 of 10,000 validation images.",
        f"TinyImageNet is limited to 20 classes by arguments: {sizes}.",
    ]


def test_limits_take_the_first_classes_and_images(root: Path) -> None:
    whole, data = prepared(root), prepared(root, max_classes=20, images_per_class=3)
    batch = data.train_set.__getitems__(range(len(data.train_set)))
    assert batch.label.tolist() == [label for label in range(20) for _ in range(3)]
    assert data.train_set.rows.tolist() == [4 * label + i for label in range(20) for i in range(3)]
    assert data.num_classes == 20
    for split in ("val_set", "test_set"):  # an image stays in its split
        rows = getattr(whole, split).rows
        assert torch.equal(getattr(data, split).rows, rows[whole.val_set.columns.label[rows] < 20])
        assert len(getattr(data, split)) > 0


def test_class_balanced_batches(root: Path) -> None:
    data = prepared(root, max_classes=50, images_per_class=3, classes_per_batch=6, samples_per_class=3)
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 50 * 3 // 18
    for batch in batches:
        assert sorted(Counter(batch.label.tolist()).values()) == [3] * 6
        assert len(batch.image.flatten(1).unique(dim=0)) == 18
        assert batch.label.max() < 50


# --- what training images become --------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["none", "standard", "strong"])
def test_augmentation(root: Path, augmentation: str) -> None:
    torch.manual_seed(0)
    data = prepared(root, augmentation=augmentation)
    before = data.on_after_batch_transfer(data.train_set.__getitems__(range(60)), 0)
    after = data.augment(before)
    assert torch.equal(after.label, before.label)
    if augmentation == "none":
        assert torch.equal(after.image, before.image)
        return
    padded = torch.nn.functional.pad(before.image, (8,) * 4)
    places = set()
    for image, original in zip(after.image, padded, strict=True):
        windows = original.unfold(1, 64, 1).unfold(2, 64, 1).permute(1, 2, 0, 3, 4)  # (17, 17, 3, 64, 64)
        equal = (windows == image).flatten(2).all(2) | (windows == image.flip(-1)).flatten(2).all(2)
        places |= {tuple(place) for place in equal.nonzero().tolist()}
    if augmentation == "standard":
        assert len(places) > 30  # of 289, in 60 images
        assert {y for y, _ in places} | {x for _, x in places} == set(range(17))
    else:
        assert not places  # no image kept its colors
        assert after.image.min() >= 0
        assert after.image.max() <= 1
        assert (after.image - before.image).abs().mean() > 0.05


# --- what is damaged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_damaged_images_are_left_out_with_one_note(tmp_path: Path, official: dict[str, bytes], kind: str) -> None:
    train_name = f"train/{sorted(WNIDS)[3]}/images/{sorted(WNIDS)[3]}_1.JPEG"
    files = dict(official)
    files[train_name] = files[train_name][: len(files[train_name]) // 2]
    files["val/images/val_7.JPEG"] = b"hello"
    files["val/images/val_8.JPEG"] = b""
    write_zip(tmp_path, files) if kind == "zip" else write_folder(tmp_path / "tiny-imagenet-200", files)
    data = TinyImageNet(str(tmp_path))
    with pytest.warns(DataWarning) as notes:
        data.prepare_data()
    messages = [str(found.message) for found in notes if "checksum" not in str(found.message)]
    assert len(messages) == 1
    assert messages[0].startswith(
        f"Left out, as they aren't whole JPEG files: {train_name}, val/images/val_7.JPEG, val/images/val_8.JPEG, of "
    )
    with pytest.warns(DataWarning, match="799 of 100,000 training and 298 of 10,000"):
        data.setup("fit")
    assert data.train_set.rows.tolist() == [row for row in range(800) if row != 13]
    held_out = [*data.val_set.rows.tolist(), *data.test_set.rows.tolist()]
    assert sorted(held_out) == [row for row in range(VAL) if row not in (7, 8)]


def test_an_image_whose_bytes_changed_in_the_zip_is_left_out(tmp_path: Path, official: dict[str, bytes]) -> None:
    path = write_zip(tmp_path, official)
    content = bytearray(path.read_bytes())
    content[content.find(official["val/images/val_5.JPEG"]) + 700] ^= 255
    path.write_bytes(content)
    with pytest.warns(DataWarning, match=r"Left out.*: val/images/val_5.JPEG, of "):
        TinyImageNet(str(tmp_path)).prepare_data()


def without(*names: str):
    return lambda files: {name: content for name, content in files.items() if name not in names}


def replaced(name: str, content: bytes):
    return lambda files: files | {name: content}


BAD_FILES = {
    "no words": (without("words.txt"), "has no words.txt"),
    "no annotations": (without("val/val_annotations.txt"), "has no val/val_annotations.txt"),
    "199 classes": (replaced("wnids.txt", "\n".join(WNIDS[1:]).encode()), "lists 199 classes, not 200"),
    "annotations of another set": (replaced("val/val_annotations.txt", b"val_0.JPEG\tn123\n"), "names no class"),
    "text as annotations": (replaced("val/val_annotations.txt", b"hello"), "'hello', which names no class"),
    "no training images": (
        lambda files: {name: content for name, content in files.items() if not name.startswith("train/")},
        "has 0 train images, not 100,000",
    ),
    "only broken images": (
        lambda files: {name: b"hello" if name.startswith("val/images") else data for name, data in files.items()},
        "has no val image that is a whole JPEG",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, official: dict[str, bytes], case: str) -> None:
    change, sentence = BAD_FILES[case]
    write_zip(tmp_path, change(official))
    with pytest.raises(DataError, match=sentence):
        TinyImageNet(str(tmp_path)).prepare_data()
    assert [path.name for path in (tmp_path / "tiny-imagenet-200" / "prepared").iterdir()] == [".64x64.lock"]


def test_more_images_than_official_are_refused(root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(tiny_imagenet, "TRAIN_IMAGES_A_CLASS", 3)
    (tmp_path / "tiny-imagenet-200.zip").symlink_to(root / "tiny-imagenet-200" / "tiny-imagenet-200.zip")
    with pytest.raises(DataError, match="has 800 train images, not 600"):
        TinyImageNet(str(tmp_path)).prepare_data()


@pytest.mark.parametrize("change", [lambda content: content[:-1000], lambda content: b"hello", lambda content: b""])
def test_a_damaged_zip(tmp_path: Path, official: dict[str, bytes], change) -> None:
    path = write_zip(tmp_path, official)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"tiny-imagenet-200.zip is damaged \("):
        TinyImageNet(str(tmp_path)).prepare_data()


def test_a_damaged_text_in_the_zip(tmp_path: Path, official: dict[str, bytes]) -> None:
    path = write_zip(tmp_path, official)
    content = bytearray(path.read_bytes())
    content[content.find(official["words.txt"]) + 5] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"words.txt of .* is damaged \("):
        TinyImageNet(str(tmp_path)).prepare_data()


def test_a_lying_zip_gives_no_more_bytes_than_it_says(tmp_path: Path, official: dict[str, bytes]) -> None:
    """Its directory says 1,000 bytes, its stream holds 64 million."""
    path = write_zip(tmp_path, official)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("tiny-imagenet-200/val/images/bomb.JPEG")
        info.compress_type = zipfile.ZIP_STORED
        archive.writestr(info, packed)
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    content[entry + 10 : entry + 12] = (8).to_bytes(2, "little")  # now it is said to be deflated
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    start = content.rfind(packed) - len(info.filename) - 30
    content[start + 8 : start + 10] = (8).to_bytes(2, "little")
    path.write_bytes(content)
    with Tree(path) as tree, pytest.raises(zipfile.BadZipFile):
        tree.read("val/images/bomb.JPEG")


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize("annotated", [False, True])
def test_sorted_validation_images(
    tmp_path: Path, official: dict[str, bytes], root: Path, below: str, annotated: bool
) -> None:
    """As many scripts sort them, with the annotations or without."""
    lines = official["val/val_annotations.txt"].decode().splitlines()
    wnid_of = dict(line.split("\t")[:2] for line in lines)
    files = {name: content for name, content in official.items() if not name.startswith("val/")}
    for name, wnid in wnid_of.items():
        files[f"val/{wnid}/{below}{name}"] = official[f"val/images/{name}"]
    if annotated:
        files["val/val_annotations.txt"] = official["val/val_annotations.txt"]
    write_zip(tmp_path, files)
    data, expected = prepared(tmp_path), prepared(root)
    for split in ("val_set", "test_set"):
        assert torch.equal(getattr(data, split).column("label"), getattr(expected, split).column("label"))
        assert torch.equal(getattr(data, split).column("image"), getattr(expected, split).column("image"))
