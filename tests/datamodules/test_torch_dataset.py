import gzip
import hashlib
import pickle
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import functional

from datamodules import DataError, DataWarning, EpisodeDataModule, FewLabels, TorchDataset
from datamodules.torch_dataset import as_picture
from lit_models import VAE
from tests.support.data_modules import set_up, sizes
from tests.support.fixtures import Patch
from tests.support.smallest_data import idx
from tests.support.smallest_data import write as write_bytes
from tests.support.trainers import quiet_trainer

HERE = __name__
Pixels = dict[str, np.ndarray]
"""Images ``(N, C, H, W)`` of the splits."""


pytestmark = pytest.mark.usefixtures("default_root")


class Cells(Dataset):
    """A user's class: arrays of floats, its own split, names of the classes."""

    classes = ("round", "long", "odd")
    made = 0

    def __init__(self, train: bool = True, size: int = 30, scale: float = 1.0) -> None:
        type(self).made += 1
        self.train, self.size, self.scale = train, size, scale

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        value = (index + (0 if self.train else 100)) / 255 * self.scale
        return torch.full((1, 12, 16), value), np.int64(index % 3)


class Odd(Dataset):
    """Labels that are no classes, and images that are none, one kind at a time."""

    def __init__(self, label: Any = 0, image: str = "gray", file: str = "") -> None:
        self.label, self.image = label, image

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        images = {
            "gray": torch.full((1, 4, 4), 0.5),
            "two channels": torch.zeros(2, 4, 4),
            "nan": torch.full((1, 4, 4), float("nan")),
            "deep": Image.fromarray(np.full((4, 4), 2000, np.int32)),
        }
        labels = {"one-hot": torch.eye(3)[0], "from 1": 1 + index % 3}
        return images[self.image], labels.get(self.label, self.label) if isinstance(self.label, str) else self.label


class Drawings(Dataset):
    """Pictures of several sizes, without labels, by an argument ``split``."""

    def __init__(self, root: str, split: str) -> None:
        self.root, self.split = root, split

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Image.Image:
        return Image.new("RGB", (20 + index, 20), (index, 0, 9 if self.split == "test" else 0))


class NoImages(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[str, str]:
        return "image", "cat"


class FakeFashion(torchvision.datasets.FashionMNIST):
    """FashionMNIST with few images that needn't be downloaded."""

    def _check_exists(self) -> bool:
        return True

    def _load_data(self) -> tuple[torch.Tensor, torch.Tensor]:
        size = 50 if self.train else 20
        return torch.arange(size, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 28, 28), torch.arange(size) % 10


class Divided(Dataset):
    def __init__(self, train: bool = True, size: int = 10) -> None:
        self.train, self.size = train, size


class Letters(Divided):
    """As EMNIST: hands arguments on to its base, and has a ``split`` of another meaning."""

    def __init__(self, split: str = "all", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.split = split

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return torch.full((1, 4, 4), {"all": 0, "letters": 100}[self.split] + index + 50 * (not self.train)).byte(), 0


def prepared(**arguments: Any) -> TorchDataset:
    return set_up(TorchDataset(**{"batch_size": 4, **arguments}))


def test_a_data_set_of_torchvisions(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", FakeFashion)
    data = prepared(train="FashionMNIST", val_fraction=0.2)
    assert data.image_shape == (1, 28, 28)
    assert (data.num_classes, data.class_names[0]) == (10, "T-shirt/top")
    assert sizes(data) == [40, 10, 20]
    rows = torch.cat([data.train_set.rows, data.val_set.rows]).sort().values  # type: ignore[list-item]
    assert rows.tolist() == list(range(50))
    sample = data.test_set[7]
    assert (sample.image.unique().tolist(), int(sample.label)) == ([7], 7)
    padded = prepared(train="torchvision.datasets.FashionMNIST", image_size=32, channels=3)
    assert padded.image_shape == (3, 32, 32)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_as_mnist(name: str) -> Callable[[Path, Pixels, Patch], None]:
    def write(root: Path, pixels: Pixels, _: Patch) -> None:
        for split, start in (("train", "train"), ("test", "t10k")):
            write_bytes(root / name / "raw" / f"{start}-images-idx3-ubyte", idx(pixels[split][:, 0]))
            write_bytes(root / name / "raw" / f"{start}-labels-idx1-ubyte", idx(np.arange(len(pixels[split])) % 10))

    return write


def write_svhn(root: Path, pixels: Pixels, monkeypatch: Patch) -> None:
    root.mkdir()
    facts = {}
    for split, image in pixels.items():
        file = root / f"{split}_32x32.mat"
        label = np.arange(len(image)) % 10
        scipy.io.savemat(file, {"X": image.transpose(2, 3, 1, 0), "y": np.where(label == 0, 10, label)[:, None]})
        facts[split] = ["http://nowhere", file.name, md5(file)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", facts)


def write_cifar100(root: Path, pixels: Pixels, monkeypatch: Patch) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, image in pixels.items():
        labels = [number % 100 for number in range(len(image))]
        content = {"data": image.reshape(len(image), -1), "fine_labels": labels}
        (folder / split).write_bytes(pickle.dumps(content))
        monkeypatch.setattr(torchvision.datasets.CIFAR100, f"{split}_list", [[split, md5(folder / split)]])
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"kind {number}" for number in range(100)]}))
    meta = {"filename": "meta", "key": "fine_label_names", "md5": md5(folder / "meta")}
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "meta", meta)


FILES = {
    "FashionMNIST": (write_as_mnist("FashionMNIST"), (1, 28, 28), 10, "T-shirt/top"),
    "KMNIST": (write_as_mnist("KMNIST"), (1, 28, 28), 10, "o"),
    "SVHN": (write_svhn, (3, 32, 32), 10, "0"),
    "CIFAR100": (write_cifar100, (3, 32, 32), 100, "kind 0"),
}


def publish(name: str, address: str, site: Path, monkeypatch: Patch) -> None:
    """Puts the files of a data set onto the site as its authors do, and directs torchvision's class to them."""
    made: Any = getattr(torchvision.datasets, name)
    if name == "SVHN":
        entries = made.split_list.items()
        monkeypatch.setattr(
            made, "split_list", {split: [f"{address}/{entry[1]}", *entry[1:]] for split, entry in entries}
        )
    elif name == "CIFAR100":
        archive = site / made.filename
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(site / made.base_folder, made.base_folder)
        monkeypatch.setattr(made, "url", f"{address}/{made.filename}")
        monkeypatch.setattr(made, "tgz_md5", md5(archive))
    else:
        files = []
        for raw in sorted((site / name / "raw").iterdir()):
            packed = site / f"{raw.name}.gz"
            packed.write_bytes(gzip.compress(raw.read_bytes()))
            files.append((packed.name, md5(packed)))
        monkeypatch.setattr(made, "resources", files)
        monkeypatch.setattr(made, "mirrors", [f"{address}/"])


@pytest.mark.parametrize("name", FILES)
def test_torchvisions_files_by_name(
    tmp_path: Path, monkeypatch: Patch, serve: Callable[[Path], tuple[str, list[str]]], name: str
) -> None:
    """Torchvision's own code downloads them, here from this machine, and reads their published formats. Files that are
    there need no server; without files and server one sentence is left."""
    write, shape, num_classes, first_class = FILES[name]
    pixels = {
        split: np.random.default_rng(len(split)).integers(0, 256, (count, *shape), np.uint8)
        for split, count in (("train", 110), ("test", 20))
    }
    folder = tmp_path / "site"
    write(folder, pixels, monkeypatch)
    publish(name, serve(folder)[0].removesuffix("/"), folder, monkeypatch)
    data = prepared(train=name)
    assert (data.image_shape, data.num_classes, data.class_names[0]) == (shape, num_classes, first_class)
    assert sizes(data) == [99, 11, 20]
    for row, file_row in enumerate(data.train_set.rows.tolist()):  # type: ignore[union-attr]
        sample = data.train_set[row]
        assert int(sample.label) == file_row % num_classes
        assert np.array_equal(sample.image, pixels["train"][file_row])
    assert np.array_equal(data.test_set.columns.image, pixels["test"])
    assert data.test_set.column("label").tolist() == [row % num_classes for row in range(20)]
    shutil.rmtree(folder)
    assert len(prepared(train=name, val_fraction=0).train_set) == 110, "prepared once"
    shutil.rmtree(data.store.folder)
    assert np.array_equal(prepared(train=name).train_set.columns.image, pixels["train"])

    publish_nowhere = {
        "SVHN": {"split_list": {split: ["http://127.0.0.1:9/x", f"{split}.mat", "0" * 32] for split in pixels}},
        "CIFAR100": {"url": "http://127.0.0.1:9/x"},
    }
    for attribute, value in publish_nowhere.get(name, {"mirrors": ["http://127.0.0.1:9/"]}).items():
        monkeypatch.setattr(getattr(torchvision.datasets, name), attribute, value)
    with pytest.raises(
        DataError, match=rf"^torchvision\.datasets\.{name} can't be downloaded \(Connection refused\): try"
    ):
        prepared(train=name, root=str(tmp_path / "elsewhere"))
    assert not list((tmp_path / "elsewhere").rglob("*.npy"))


def test_arguments_go_to_the_test_images_too() -> None:
    data = prepared(train=f"{HERE}.Letters", train_args={"split": "letters", "size": 6}, test_args={"split": "letters"})
    assert data.train_set.columns.image[:, 0, 0, 0].tolist() == list(range(100, 106))
    assert data.test_set.columns.image[:, 0, 0, 0].tolist() == list(range(150, 156))
    other = prepared(train=f"{HERE}.Letters", train_args={"size": 6}, test=f"{HERE}.Letters")
    assert len(other.test_set) == 10, "a class that is named gets its own arguments only"


def test_a_users_class() -> None:
    Cells.made = 0
    data = prepared(train=f"{HERE}.Cells", train_args={"size": 20}, test_args={"size": 6})
    assert Cells.made == 2
    assert data.image_shape == (1, 12, 16)
    assert data.class_names == ("round", "long", "odd")
    assert sizes(data) == [18, 2, 6]
    for row, value in enumerate(data.train_set.rows.tolist()):  # type: ignore[union-attr]
        sample = data.train_set[row]
        assert (sample.image.unique().tolist(), int(sample.label)) == ([value], value % 3)
    assert data.test_set[1].image.unique().tolist() == [101]
    prepared(train=f"{HERE}.Cells", train_args={"size": 20}, test_args={"size": 6})
    assert Cells.made == 2, "read once"
    assert prepared(train=f"{HERE}.Cells").train_set.columns.image.shape[0] == 30


def test_images_of_several_sizes_without_labels() -> None:
    with pytest.raises(DataError, match=r"Sample 1 of .*Drawings has the shape 3x20x21, but another has 3x20x20"):
        prepared(train=f"{HERE}.Drawings")
    data = prepared(train=f"{HERE}.Drawings", image_size=8)
    assert data.num_classes == 0
    assert data.train_set.column("label").unique().tolist() == [-1]
    assert data.test_set[3].image[:, 0, 0].tolist() == [3, 0, 9]


def test_wrappers_take_it() -> None:
    cells = TorchDataset(f"{HERE}.Cells", image_size=12, val_fraction=0.4)
    episodes = EpisodeDataModule(cells, n_way=2, n_query=1, test_way=2, test_query=1)
    episodes.prepare_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        episodes.setup("fit")
    assert episodes.image_shape == (1, 12, 12)
    few = FewLabels(TorchDataset(f"{HERE}.Cells", image_size=12), count=9, folds=3)
    few.setup("fit")
    assert few.train_set.column("label").bincount().tolist() == [3, 3, 3]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_any_image_becomes_pillows(dtype: torch.dtype) -> None:
    pixels = torch.randint(256, (3, 5, 6), dtype=torch.uint8)
    image = pixels if dtype == torch.uint8 else pixels.float() / 255
    assert torch.equal(functional.pil_to_tensor(as_picture(image)), pixels)
    assert torch.equal(functional.pil_to_tensor(as_picture(image[:1])), pixels[:1])
    assert torch.equal(functional.pil_to_tensor(as_picture(image.permute(1, 2, 0).numpy())), pixels)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"train": "FashonMNIST"},
            r"There is no data set torchvision\.datasets\.FashonMNIST .*: set --data\.train to FashionMNIST",
        ),
        ({"train": "CIFAR-100"}, r"There is no data set .*: set --data\.train to CIFAR100"),
        ({"train": "no.such.Set"}, "There is no data set no.such.Set"),
        ({"train": "os.system"}, "os.system isn't a class of data sets"),
        (
            {"train": f"{HERE}.Cells", "train_args": {"sizes": 3}},
            r"can't be made \(.*sizes.*\): set --data",
        ),
        ({"train": f"{HERE}.NoImages"}, r"Sample 0 of .*NoImages is tuple of str and str .* whole number"),
        (
            {"train": f"{HERE}.Cells", "train_args": {"scale": 9}},
            r"Sample \d+ of .*\(values from .*\); it must be",
        ),
        ({"train": f"{HERE}.Odd", "train_args": {"label": 0.5}}, r"Sample 0 of .*\(the label 0.5\); it must be"),
        ({"train": f"{HERE}.Odd", "train_args": {"label": -2}}, r"\(the label -2\); it must be"),
        ({"train": f"{HERE}.Odd", "train_args": {"label": "one-hot"}}, r"Sample 0 of .* a whole number"),
        (
            {"train": f"{HERE}.Odd", "train_args": {"image": "two channels"}},
            r"\(the shape 2x4x4\); it must be an image",
        ),
        ({"train": f"{HERE}.Odd", "train_args": {"image": "nan"}}, r"\(values from nan to nan\); it must be an image"),
        (
            {"train": f"{HERE}.Odd", "train_args": {"image": "deep"}},
            r"Sample 0 of .*Odd: its values are .*--data.value_range",
        ),
        ({"train": f"{HERE}.Cells", "image_size": 0}, "image_size is 0"),
        ({"train": f"{HERE}.Cells", "channels": 2}, r"channels is 2; it must be 1 \(gray\) or 3"),
        ({"train": f"{HERE}.Cells", "val_fraction": 1.0}, "leave something for training"),
        ({"train": f"{HERE}.Cells", "augmentation": "mild"}, "must be none, flip, standard or strong"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        prepared(**arguments)
    assert not list(tmp_path.rglob("*.npy"))


def test_values_of_deep_images_have_a_range() -> None:
    data = prepared(train=f"{HERE}.Odd", train_args={"image": "deep"}, value_range=(0, 4000))
    assert data.train_set[0].image.unique().tolist() == [128]


def test_labels_that_do_not_count_from_0_are_said() -> None:
    with pytest.warns(DataWarning, match=r"No training image of .*Odd has the label 0; labels count from 0 to 3"):
        prepared(train=f"{HERE}.Odd", train_args={"label": "from 1"})


def test_a_share_for_a_split_that_is_there_is_said() -> None:
    with pytest.warns(DataWarning, match=r"--data\.test_fraction has no effect: .*Cells has a split of these images"):
        prepared(train=f"{HERE}.Cells", test_fraction=0.3)


def test_another_file_of_the_class_or_of_its_arguments_is_noticed(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = Path(__file__).read_text().partition("class Odd")[2].partition("class Drawings")[0]
    imports = ("import numpy as np, torch", "from typing import Any", "from PIL import Image")
    head = "\n".join([*imports, "from torch.utils.data import Dataset"])
    module = tmp_path / "mine_odd.py"
    module.write_text(f"{head}\n\n\nclass Odd{text}")
    table = tmp_path / "labels.csv"
    table.write_text("a")
    arguments = {"train": "mine_odd.Odd", "train_args": {"file": str(table)}}
    prepared(**arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(**arguments)
    table.write_text("b")
    with pytest.warns(DataWarning, match="out of date"):
        prepared(**arguments)
    module.write_text(module.read_text().replace("0.5", "0.6"))
    with pytest.warns(DataWarning, match="out of date"):
        prepared(**arguments)


def test_size_and_channels_are_those_of_the_model() -> None:
    data = TorchDataset(f"{HERE}.Odd", batch_size=4)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(VAE(image_size=16, channels=3, latent_dim=2, feature_maps=2), data)
    assert data.image_shape == (3, 16, 16)
