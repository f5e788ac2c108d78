import io
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, DataWarning, Omniglot, OmniglotEpisodes, omniglot
from datamodules.loading.archives import RemoteFile
from datamodules.loading.tensors import GatherDataset, LabeledImages
from datamodules.omniglot import CHARACTERS, QuarterTurns, split_of
from tests.support.data_modules import real_root, set_up
from tests.support.fixtures import Patch

# Some characters of each split of Vinyals et al.: two alphabets for training, one each for validation and testing.
CHOSEN = {
    "background": ["Latin/character01", "Latin/character26", "Hebrew/character01", "Hebrew/character02"],
    "evaluation": ["Angelic/character03", "Gurmukhi/character41", "Gurmukhi/character42", "Tibetan/character07"],
}
LABELS = {str(character): label for label, character in enumerate(CHARACTERS)}

pytestmark = pytest.mark.filterwarnings("ignore::datamodules.DataWarning")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: Patch) -> None:
    monkeypatch.setattr("datamodules.loading.archives.RETRY_DELAYS", ())
    serve_from(monkeypatch, "http://127.0.0.1:1/")


def serve_from(monkeypatch: Patch, address: str) -> None:
    for part, file in omniglot.FILES.items():
        monkeypatch.setitem(omniglot.FILES, part, RemoteFile(file.name, (address,)))
    monkeypatch.setattr(omniglot, "RUNS_FILE", RemoteFile("all_runs.zip", (address,)))


@pytest.fixture
def real_omniglot() -> Path:
    return real_root("omniglot/images_background.zip")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a few characters in the author's format."""
    write_zips(tmp_path / "data" / "omniglot")
    return tmp_path / "data"


def drawing(character: str, drawer: int) -> np.ndarray:
    """True where there is ink: rough strokes of their own for every drawing."""
    rng = np.random.default_rng([LABELS[character], drawer])
    coarse = rng.random((15, 15)) < 0.25
    return np.kron(coarse, np.ones((7, 7), bool))


def png(ink: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(~ink).save(buffer, "PNG")  # one bit a pixel, ink is black
    return buffer.getvalue()


def write_zips(folder: Path, drawers: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, characters in CHOSEN.items():
        with zipfile.ZipFile(folder / f"images_{part}.zip", "w") as archive:
            archive.mkdir(f"images_{part}")
            for character in characters:
                for drawer in range(drawers, 0, -1):
                    name = f"images_{part}/{character}/{LABELS[character] + 1:04}_{drawer:02}.png"
                    archive.writestr(name, png(drawing(character, drawer)))


def write_runs(folder: Path) -> None:
    """The 20 runs with other drawings, the test items in an order of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "all_runs.zip", "w") as archive:
        for run in range(1, 21):
            lines = []
            for item, place in enumerate(np.random.default_rng(run).permutation(20) + 1, 1):
                archive.writestr(f"run{run:02}/training/class{place:02}.png", png(drawing("Latin/character01", place)))
                archive.writestr(f"run{run:02}/test/item{item:02}.png", png(drawing("Latin/character26", place)))
                lines.append(f"run{run:02}/test/item{item:02}.png run{run:02}/training/class{place:02}.png\n")
            archive.writestr(f"run{run:02}/class_labels.txt", "".join(lines))


def resized(ink: np.ndarray, size: int = 28) -> np.ndarray:
    gray = Image.fromarray(ink.astype(np.uint8) * 255)
    return np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR))


def prepared(root: Path, **arguments: object) -> Omniglot:
    return set_up(Omniglot(str(root), **arguments))


# --- the characters ---------------------------------------------------------------------------------------------------


def test_there_are_1623_characters_of_50_alphabets() -> None:
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 1623
    assert len({character.alphabet for character in CHARACTERS}) == 50
    assert Counter(character.part for character in CHARACTERS) == {"background": 964, "evaluation": 659}
    assert Counter(character.vinyals for character in CHARACTERS) == {"train": 1028, "val": 172, "test": 423}
    assert all(character.part == "background" for character in CHARACTERS[:964])
    assert CHARACTERS[0] == ("Alphabet_of_the_Magi", 1, "background", "train")


def test_the_background_split_tests_on_the_evaluation_part() -> None:
    splits = Counter((split_of(character, "background"), character.part) for character in CHARACTERS)
    assert splits == {("train", "background"): 792, ("val", "background"): 172, ("test", "evaluation"): 659}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_vinyals_split_is_the_one_of_snell_et_al(real_omniglot: Path, split: str) -> None:
    lines = (real_omniglot / "omniglot" / "splits" / "vinyals" / f"{split}.txt").read_text().split()
    ours = {f"{c}/rot{angle:03}" for c in CHARACTERS if c.vinyals == split for angle in (0, 90, 180, 270)}
    assert ours == set(lines)
    assert len(ours) == len(lines)


# --- the drawings -----------------------------------------------------------------------------------------------------


def test_drawings_are_resized_with_ink_as_255_and_labeled(root: Path) -> None:
    module = prepared(root, split="background")
    whole = module.train_set.columns
    assert whole.image.shape == (160, 1, 28, 28)
    assert whole.image.dtype == torch.uint8
    expected = sorted(
        (LABELS[name], name, drawer) for names in CHOSEN.values() for name in names for drawer in range(1, 21)
    )
    for row, (label, name, drawer) in enumerate(expected):
        assert whole.label[row] == label
        assert np.array_equal(whole.image[row, 0].numpy(), resized(drawing(name, drawer)))
        assert module.class_names[label] == name


@pytest.mark.parametrize("size", [20, 105])
def test_the_size_is_chosen(root: Path, size: int) -> None:
    module = prepared(root, image_size=size)
    assert module.image_shape == (1, size, size)
    latin = module.train_set.__getitems__([0])
    assert np.array_equal(latin.image[0, 0].numpy(), resized(drawing("Latin/character01", 1), size))


@pytest.mark.parametrize(
    ("arguments", "train", "val", "test"),
    [
        (
            {"split": "background"},
            ["Latin/character01", "Latin/character26"],
            CHOSEN["background"][2:],
            CHOSEN["evaluation"],
        ),
        (
            {"split": "vinyals"},
            ["Latin/character01", "Latin/character26", "Angelic/character03", "Gurmukhi/character41"],
            ["Hebrew/character01", "Hebrew/character02"],
            ["Gurmukhi/character42", "Tibetan/character07"],
        ),
        (
            {"split": "vinyals", "train_on_val": True},
            [*CHOSEN["background"], "Angelic/character03", "Gurmukhi/character41"],
            ["Hebrew/character01", "Hebrew/character02"],
            ["Gurmukhi/character42", "Tibetan/character07"],
        ),
    ],
)
def test_splits_hold_their_characters(
    root: Path, arguments: dict[str, object], train: list[str], val: list[str], test: list[str]
) -> None:
    module = prepared(root, **arguments)
    for split, names in ((module.train_set, train), (module.val_set, val), (module.test_set, test)):
        assert Counter(split.column("label").tolist()) == {LABELS[name]: 20 for name in names}
    assert module.num_classes == 1623


def test_batches_are_labeled_images(root: Path) -> None:
    module = prepared(root, batch_size=8)
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch.image.shape == (8, 1, 28, 28)
    assert batch.image.dtype == torch.float32
    assert batch.image.max() == 1
    assert set(batch.label.tolist()) <= {LABELS["Latin/character01"], LABELS["Latin/character26"]}


def test_turned_drawings_are_classes_of_their_own(root: Path) -> None:
    upright, turned = prepared(root), prepared(root, rotations=True)
    assert len(turned.train_set) == 4 * len(upright.train_set) == 160
    assert turned.num_classes == 4 * 1623
    order = torch.randperm(160).view(4, 40)
    images, labels = turned.train_set.__getitems__(order)
    for place in np.ndindex(4, 40):
        row, turns = divmod(int(order[place]), 4)
        image, label = upright.train_set[row]
        assert np.array_equal(images[place].numpy(), np.rot90(image.numpy(), turns, (1, 2)))
        assert labels[place] == 4 * label + turns
        assert turned.class_names[labels[place]] == f"{upright.class_names[label]}/rot{90 * turns:03}"


def test_columns_of_turned_drawings_are_in_the_order_of_their_rows(root: Path) -> None:
    data = prepared(root, rotations=True).train_set
    batch = data.__getitems__(torch.arange(len(data)))
    assert torch.equal(data.column("label"), batch.label)
    assert torch.equal(data.column("image"), batch.image)


def test_turning_before_resizing_comes_to_the_same(root: Path) -> None:
    # As Snell et al. do it: Pillow turns the large drawing, then it is resized.
    data = prepared(root, rotations=True).train_set
    large = Image.fromarray(drawing("Latin/character01", 1).astype(np.uint8) * 255)
    for turns in range(4):
        theirs = large.rotate(90 * turns).resize((28, 28), Image.Resampling.BILINEAR)
        ours = data.__getitems__([turns]).image[0, 0].numpy()
        assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_the_nearest_pixel_is_what_the_papers_authors_take(root: Path) -> None:
    """Their code turns and resizes drawings of one bit a pixel, for which Pillow takes the nearest pixel."""
    data = prepared(root, rotations=True, resample="nearest").train_set
    large = Image.open(io.BytesIO(png(drawing("Latin/character01", 3))))
    assert large.mode == "1"
    for turns in range(4):
        theirs = 1 - np.array(large.rotate(90 * turns).resize((28, 28)), np.float32)
        ours = data.__getitems__([4 * 2 + turns]).image[0, 0]
        assert np.array_equal(ours.numpy() / 255, theirs)
    assert set(np.unique(theirs)) == {0, 1}


def test_prepared_drawings_are_kept_apart_by_filter(root: Path) -> None:
    antialiased, nearest = prepared(root), prepared(root, resample="nearest")
    assert not torch.equal(antialiased.train_set[0].image, nearest.train_set[0].image)
    assert torch.equal(antialiased.train_set[0].image, prepared(root).train_set[0].image)
    assert antialiased.runs_store.folder != nearest.runs_store.folder


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_episodes_come_from_their_split(root: Path) -> None:
    module = OmniglotEpisodes(
        str(root), n_way=16, k_shot=1, n_query=19, test_way=8, test_query=3, episodes_per_batch=2, train_episodes=4
    )
    module.prepare_data()
    module.setup("fit")
    assert [len(split.column("label").unique()) for split in (module.train_set, module.val_set, module.test_set)] == [
        16,
        8,
        8,
    ]
    batch = next(iter(module.train_dataloader()))
    assert batch.support.shape == (2, 16, 1, 1, 28, 28)
    assert batch.query.shape == (2, 16, 19, 1, 28, 28)
    # Each episode takes all samples of all classes, so each class holds the same 20 images as the data set.
    everything = {}
    images, labels = module.train_set.__getitems__(torch.arange(len(module.train_set)))
    for label in labels.unique():
        everything[frozenset(image.numpy().tobytes() for image in images[labels == label])] = int(label)
    for episode in torch.cat((batch.support, batch.query), 2):
        found = [everything[frozenset(image.numpy().tobytes() for image in drawings)] for drawings in episode]
        assert sorted(found) == sorted(everything.values())


def test_defaults_are_those_of_the_papers_authors() -> None:
    module = OmniglotEpisodes("anywhere")
    assert (module.n_way, module.k_shot, module.n_query) == (60, 5, 5)
    assert (module.test_way, module.test_shot, module.test_query) == (5, 5, 15)
    assert (module.train_episodes, module.val_episodes, module.test_episodes) == (100, 100, 1000)
    assert module.images.split == "vinyals"
    assert module.image_shape == (1, 28, 28)
    assert module.num_classes == len(module.class_names) == 4 * 1623


@pytest.mark.long
def test_the_full_split_has_the_papers_classes(real_omniglot: Path) -> None:
    module = set_up(OmniglotEpisodes(str(real_omniglot), n_way=60, k_shot=5, n_query=5))
    for split, classes in ((module.train_set, 4112), (module.val_set, 688), (module.test_set, 1692)):
        _, counts = split.column("label").unique(return_counts=True)
        assert counts.tolist() == [20] * classes
    assert next(iter(module.train_dataloader())).query.shape == (1, 60, 5, 1, 28, 28)

    archive = zipfile.ZipFile(real_omniglot / "omniglot" / "images_evaluation.zip")
    with Image.open(archive.open("images_evaluation/Tibetan/character42/1597_20.png")) as image:
        expected = np.asarray(
            Image.fromarray(255 - np.asarray(image.convert("L"))).resize((28, 28), Image.Resampling.BILINEAR)
        )
    label = 4 * LABELS["Tibetan/character42"]
    rows = (module.test_set.column("label") == label).nonzero().flatten()
    image = module.test_set.__getitems__(rows[19:]).image[0, 0].numpy()
    assert np.abs(image.astype(int) - expected.astype(int)).max() <= 1


# --- the official one-shot runs ---------------------------------------------------------------------------------------


def test_queries_of_the_one_shot_runs_are_in_the_order_of_the_classes(root: Path) -> None:
    write_runs(root / "omniglot")
    module = OmniglotEpisodes(
        str(root), split="background", test_on="one_shot_runs", n_way=5, test_query=3, eval_episodes_per_batch=8
    )
    module.prepare_data()
    module.setup("test")
    batches = list(module.test_dataloader())
    assert [len(batch.support) for batch in batches] == [8, 8, 4]
    for run in range(20):
        for place in range(1, 21):
            support, query = (part[run % 8, place - 1, 0, 0].numpy() for part in batches[run // 8])
            assert np.array_equal(support, resized(drawing("Latin/character01", place)))
            assert np.array_equal(query, resized(drawing("Latin/character26", place)))


def test_the_official_runs_are_the_authors(real_omniglot: Path) -> None:
    module = Omniglot(str(real_omniglot))
    module.prepare_one_shot_runs()
    runs = module.one_shot_runs()
    assert runs.support.shape == runs.query.shape == (20, 20, 1, 1, 28, 28)
    archive = zipfile.ZipFile(real_omniglot / "omniglot" / "all_runs.zip")
    line = archive.read("run07/class_labels.txt").decode().splitlines()[4]
    item, label = line.split()
    for name, part in ((item, runs.query), (label, runs.support)):
        with Image.open(archive.open(name)) as image:
            expected = 255 - np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
        assert np.array_equal(part[6, int(label[-6:-4]) - 1, 0, 0].numpy(), expected)


def test_the_runs_are_not_for_models_that_train_on_their_characters() -> None:
    with pytest.raises(DataError, match=r"--data.split vinyals trains on: set --data.split background"):
        OmniglotEpisodes("anywhere", split="vinyals", test_on="one_shot_runs")


def test_without_write_permission_the_runs_go_to_the_users_cache(root: Path) -> None:
    write_runs(root / "omniglot")
    folders = [path for path in root.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    module = OmniglotEpisodes(str(root), split="background", test_on="one_shot_runs", n_way=5, test_query=3)
    module.prepare_data()
    module.setup("test")
    batches = list(module.test_dataloader())
    for folder in folders:
        folder.chmod(0o755)
    assert len(batches) == 20
    assert not list(root.rglob("prepared"))


def test_runs_that_are_not_whole_are_refused(root: Path) -> None:
    with zipfile.ZipFile(root / "omniglot" / "all_runs.zip", "w") as archive:
        archive.writestr("run01/class_labels.txt", "run01/test/item01.png run01/training/class01.png\n")
    with pytest.raises(DataError, match="doesn't hold the whole of run01"):
        Omniglot(str(root)).prepare_one_shot_runs()


# --- where the files come from ----------------------------------------------------------------------------------------


def assert_is_there(root: Path) -> None:
    assert len(prepared(root).train_set.columns.label) == 160


def test_files_are_used_where_torchvision_puts_them(tmp_path: Path) -> None:
    write_zips(tmp_path / "omniglot-py")
    assert_is_there(tmp_path)


@pytest.mark.parametrize("folder", ["omniglot", "omniglot-py"])
def test_unpacked_folders_are_used(root: Path, tmp_path: Path, folder: str) -> None:
    for part in CHOSEN:
        with zipfile.ZipFile(root / "omniglot" / f"images_{part}.zip") as archive:
            archive.extractall(tmp_path / "other" / folder)
    assert_is_there(tmp_path / "other")


def test_files_that_are_not_there_are_downloaded(
    root: Path, tmp_path: Path, serve: Callable[[Path], tuple[str, list[str]]], monkeypatch: Patch
) -> None:
    serve_from(monkeypatch, serve(root / "omniglot")[0])
    assert_is_there(tmp_path / "other")
    assert (tmp_path / "other" / "omniglot" / "images_background.zip").is_file()


@pytest.mark.filterwarnings("default")
def test_a_subset_and_another_checksum_are_notes(root: Path, monkeypatch: Patch) -> None:
    file = RemoteFile("images_background.zip", ("http://127.0.0.1:1/",), f"md5:{'0' * 32}")
    monkeypatch.setitem(omniglot.FILES, "background", file)
    with pytest.warns(DataWarning) as notes:
        Omniglot(str(root)).prepare_data()
    sentences = [str(note.message) for note in notes]
    assert len(sentences) == 3
    assert "has the checksum md5:" in sentences[0]
    assert "holds 80 drawings of 4 characters, not the 19280 of 964 that Omniglot's background set has" in sentences[1]
    assert "holds 80 drawings of 4 characters, not the 13180 of 659 that Omniglot's evaluation set has" in sentences[2]


def test_prepared_arrays_are_enough(root: Path) -> None:
    prepared(root)
    for part in CHOSEN:
        (root / "omniglot" / f"images_{part}.zip").unlink()
    assert_is_there(root)


# --- bad inputs -------------------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
    path = folder / "images_evaluation.zip"
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist() if not info.is_dir()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(*change(name, content))


def emptied(name: str, content: bytes) -> tuple[str, bytes]:
    return name, b"" if name.endswith("Tibetan/character07/1562_09.png") else content


def cut_zip(folder: Path) -> None:
    path = folder / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-1000])


def damaged_zip(folder: Path) -> None:
    path = folder / "images_evaluation.zip"
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a zip cut off": (cut_zip, r"images_evaluation.zip can't be read \(.*\): if it is damaged, delete it"),
    "a damaged zip": (damaged_zip, r"images_evaluation.zip can't be read|is not a whole PNG image"),
    "an empty PNG": (
        lambda folder: rewrite(folder, emptied),
        r"Tibetan/character07/1562_09.png in .*images_evaluation.zip is not a whole PNG image",
    ),
    "an unknown character": (
        lambda folder: rewrite(folder, lambda name, content: (name.replace("Tibetan", "Klingon"), content)),
        r"images_evaluation.zip holds Klingon/character07, which isn't a character of Omniglot's evaluation set",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_a_sentence_and_leave_nothing(root: Path, name: str) -> None:
    damage, sentence = BAD[name]
    damage(root / "omniglot")
    module = Omniglot(str(root))
    with pytest.raises(DataError, match=sentence):
        module.prepare_data()
    assert not module.store.folder.exists()
    assert not list(root.rglob("*.npy"))


def test_nothing_is_stored_for_turned_images() -> None:
    data = QuarterTurns(LabeledImages(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.arange(3)))
    assert isinstance(data, GatherDataset)
    assert len(data) == 12
    assert data.columns.image.shape[0] == 3
