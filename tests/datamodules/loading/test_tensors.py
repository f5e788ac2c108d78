import errno
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import DataError, DataWarning
from datamodules.loading import tensors
from datamodules.loading.folders import files_below
from datamodules.loading.tensors import ArrayWriter, Episodes, GatherDataset, LabeledImages, TensorStore
from tests.support.data_modules import visible_files
from tests.support.fixtures import Patch

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="the test forks")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "digits" / "prepared" / "8x8"


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)


def build(writer: ArrayWriter) -> None:
    writer.create("image", (50, 1, 8, 8))[...] = images()
    writer.write("label", torch.arange(50))


def never(writer: ArrayWriter) -> None:
    pytest.fail("what is there is written again")


def assert_whole(store: TensorStore) -> None:
    arrays = store.load()
    assert arrays.keys() == {"image", "label"}
    assert np.array_equal(arrays["image"].numpy(), images())
    assert arrays["image"].dtype == torch.uint8
    assert torch.equal(arrays["label"], torch.arange(50))


def assert_stale(store: TensorStore) -> None:
    """The sources have changed, which is noted, and the arrays are written again."""
    with pytest.warns(DataWarning, match="the source files have changed"):
        store.prepare(build)


@pytest.fixture
def source(folder: Path) -> Path:
    """A file that arrays are made from."""
    source = folder.parents[1] / "digits.gz"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"1234")
    return source


# --- the store --------------------------------------------------------------------------------------------------------


def test_arrays_are_written_once_and_read_back(folder: Path) -> None:
    store = TensorStore(folder, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.prepare(build)
        store.prepare(never)
        TensorStore(folder, {}).prepare(never)
    assert_whole(store)
    assert visible_files(folder.parent) == ["8x8"]


def test_arrays_are_mapped_and_writing_to_them_leaves_the_file_alone(folder: Path) -> None:
    store = TensorStore(folder, {})
    store.prepare(build)
    first, second = store.load()["image"], store.load()["image"]
    first.zero_()
    assert second.any()
    assert_whole(store)
    store.prepare(never)


def test_what_was_never_prepared_is_not_read(folder: Path) -> None:
    with pytest.raises(DataError, match=r"8x8 are missing or incomplete\. Run `relit prepare`"):
        TensorStore(folder, {}).load()


def damage_bytes(folder: Path) -> None:
    path = folder / "image.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_off(folder: Path) -> None:
    path = folder / "image.npy"
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "one bit changed": (damage_bytes, "damaged (the bytes of image.npy have changed)"),
    "cut off": (cut_off, "damaged (image.npy has the wrong size)"),
    "array gone": (lambda folder: (folder / "label.npy").unlink(), "missing or incomplete"),
    "description gone": (lambda folder: (folder / "meta.json").unlink(), "missing or incomplete"),
    "description cut off": (lambda folder: (folder / "meta.json").write_text("{"), "damaged (meta.json is unreadable)"),
    "description of something else": (
        lambda folder: (folder / "meta.json").write_text("[1]"),
        "damaged (meta.json is unreadable)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_written_again_with_a_note(folder: Path, damage: str) -> None:
    store = TensorStore(folder, {})
    store.prepare(build)
    do, fault = DAMAGES[damage]
    do(folder)
    with pytest.warns(DataWarning) as notes:
        store.prepare(build)
    assert [str(note.message) for note in notes] == [
        f"The prepared data in {folder} are {fault}; they are written again."
    ]
    assert_whole(store)
    store.prepare(never)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "one bit changed"])
def test_a_damaged_folder_is_not_read(folder: Path, damage: str) -> None:
    store = TensorStore(folder, {})
    store.prepare(build)
    DAMAGES[damage][0](folder)
    with pytest.raises(DataError, match=r"damaged|missing"):
        store.load()


def test_arrays_of_other_settings_are_stale(folder: Path) -> None:
    TensorStore(folder, {"people": ["a", "b"]}).prepare(build)
    TensorStore(folder, {"people": ("a", "b")}).prepare(never)  # the same as JSON
    other = TensorStore(folder, {"people": ["a"]})
    with pytest.raises(DataError, match="out of date"):
        other.load()
    with pytest.warns(DataWarning, match="out of date .made with other settings or by another version.; they are wri"):
        other.prepare(build)
    assert_whole(other)


def test_arrays_of_another_version_are_stale(folder: Path, monkeypatch: Patch) -> None:
    TensorStore(folder, {}).prepare(build)
    monkeypatch.setattr("datamodules.loading.tensors.FORMAT", 2)
    with pytest.warns(DataWarning, match="out of date"):
        TensorStore(folder, {}).prepare(build)


def test_arrays_of_another_source_file_are_stale_but_not_those_of_one_that_is_gone(folder: Path, source: Path) -> None:
    store = TensorStore(folder, {}, [source])
    store.prepare(build)
    store.prepare(never)
    source.write_bytes(b"12345")
    assert_stale(store)
    source.unlink()
    store.prepare(never)


def test_a_source_of_the_same_size_is_stale_by_its_content(folder: Path, source: Path) -> None:
    store = TensorStore(folder, {}, [source])
    store.prepare(build)
    os.utime(source, ns=(1, 1))  # copied, or touched
    store.prepare(never)
    source.write_bytes(b"4321")
    assert_stale(store)
    meta = json.loads((folder / "meta.json").read_text())
    meta["sources"] = {"digits.gz": 4}  # as an older relit wrote it
    (folder / "meta.json").write_text(json.dumps(meta))
    store.prepare(never)


def test_each_of_two_sources_of_one_name_is_noticed(folder: Path) -> None:
    sources = [folder.parents[1] / part / "labels.csv" for part in ("train", "test")]
    for source in sources:
        source.parent.mkdir(parents=True)
        source.write_bytes(b"1234")
    store = TensorStore(folder, {}, sources)
    store.prepare(build)
    store.prepare(never)
    for source in sources:
        source.write_bytes(b"4321")
        assert_stale(store)


def test_arrays_of_a_folder_with_other_files_are_stale(folder: Path) -> None:
    source = folder.parents[1] / "photos"
    (source / "cats").mkdir(parents=True)
    (source / "cats" / "1.jpg").write_bytes(b"1234")
    store = TensorStore(folder, {}, [source])
    store.prepare(build)
    store.prepare(never)
    (source / "cats" / "2.jpg").write_bytes(b"1234")
    assert_stale(store)
    (source / "cats" / "2.jpg").write_bytes(b"5678")
    os.utime(source / "cats" / "2.jpg", ns=(0, 1))
    assert_stale(store)
    store.prepare(never)


def test_a_folder_that_changes_while_it_is_read_is_read_again(folder: Path) -> None:
    source = folder.parents[1] / "photos"
    source.mkdir(parents=True)
    (source / "1.jpg").write_bytes(b"1234")
    store = TensorStore(folder, {}, [source])

    def build_slowly(writer: ArrayWriter) -> None:
        build(writer)
        (source / "2.jpg").write_bytes(b"1234")  # a download that goes on

    with pytest.warns(DataWarning, match="Files in photos changed while they were read"):
        store.prepare(build_slowly)
    assert_whole(store)
    assert_stale(store)
    store.prepare(never)


def test_files_are_listed_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/.hidden.png", "a.png", ".git/x.png", "b/c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == ["a.png", "b/2.png", "b/c/1.png"]


# --- when something goes wrong ----------------------------------------------------------------------------------------


def test_a_failed_build_leaves_nothing(folder: Path) -> None:
    def fails(writer: ArrayWriter) -> None:
        build(writer)
        raise DataError("The source is bad.")

    with pytest.raises(DataError, match="The source is bad"):
        TensorStore(folder, {}).prepare(fails)
    assert visible_files(folder.parent) == []


def test_an_interrupted_rebuild_leaves_nothing_half_written(folder: Path) -> None:
    def interrupted(writer: ArrayWriter) -> None:
        writer.create("image", (50, 1, 8, 8))
        raise KeyboardInterrupt

    store = TensorStore(folder, {})
    with pytest.raises(KeyboardInterrupt):
        store.prepare(interrupted)
    assert visible_files(folder.parent) == []
    store.prepare(build)
    assert_whole(store)


def test_an_error_of_a_source_is_not_taken_for_a_full_disk(folder: Path) -> None:
    def truncated(writer: ArrayWriter) -> None:
        raise OSError("image file is truncated")

    def forbidden(writer: ArrayWriter) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/photo.jpg")

    with pytest.raises(OSError, match="image file is truncated"):
        TensorStore(folder, {}).prepare(truncated)
    with pytest.raises(PermissionError, match=r"/elsewhere/photo\.jpg"):
        TensorStore(folder, {}).prepare(forbidden)
    assert visible_files(folder.parent) == []


FULL = (
    "can't be written to {}: No space left on device. Free some space there, or choose another folder with --data.root"
)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only where blocks can be reserved")
def test_a_full_disk_is_one_error_and_leaves_nothing(folder: Path, monkeypatch: Patch) -> None:
    def full(*args: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError) as error:
        TensorStore(folder, {}).prepare(build)
    assert FULL.format(folder) in str(error.value)
    assert visible_files(folder.parent) == []


@needs_fork
def test_a_limit_of_file_sizes_is_one_error_and_leaves_nothing(folder: Path) -> None:
    def limited() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            TensorStore(folder, {}).prepare(lambda writer: writer.create("image", (2000, 1, 32, 32)).fill(1))
        except DataError as error:
            os._exit(0 if "can't be written" in str(error) else 2)
        os._exit(1)

    assert run(limited) == 0
    assert visible_files(folder.parent) == []


def test_a_root_that_is_a_file_is_one_error(folder: Path) -> None:
    folder.parents[1].parent.mkdir(parents=True, exist_ok=True)
    folder.parents[1].touch()
    with pytest.raises(DataError, match=r"can't be written to .*choose another folder with --data.root"):
        TensorStore(folder, {}).prepare(build)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_one_error(folder: Path) -> None:
    folder.parents[1].mkdir(parents=True)
    folder.parents[1].chmod(0o500)
    with pytest.raises(DataError, match=r"can't be written to .*: Permission denied"):
        TensorStore(folder, {}).prepare(build)
    folder.parents[1].chmod(0o700)


# --- several processes ------------------------------------------------------------------------------------------------


def run(*targets: Callable[[], None]) -> int:
    """Runs each target in a separate process, all at once; the highest absolute exit code."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return max(abs(process.exitcode if process.exitcode is not None else 255) for process in processes)


@needs_fork
def test_of_several_processes_at_once_one_writes(folder: Path, tmp_path: Path) -> None:
    def slow_build(writer: ArrayWriter) -> None:
        with (tmp_path / "log").open("a") as log:
            log.write("built\n")
        time.sleep(0.3)
        build(writer)

    def process() -> None:
        store = TensorStore(folder, {})
        store.prepare(slow_build)
        assert_whole(store)

    assert run(*[process] * 4) == 0
    assert (tmp_path / "log").read_text() == "built\n"


@needs_fork
def test_a_process_killed_in_the_middle_leaves_nothing_that_is_read(folder: Path) -> None:
    def killed(writer: ArrayWriter) -> None:
        writer.create("image", (50, 1, 8, 8))[:25] = images()[:25]
        os.kill(os.getpid(), signal.SIGKILL)

    assert run(lambda: TensorStore(folder, {}).prepare(killed)) == signal.SIGKILL
    store = TensorStore(folder, {})
    assert not folder.exists()
    with pytest.raises(DataError, match="missing or incomplete"):
        store.load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.prepare(build)
    assert_whole(store)
    assert visible_files(folder.parent) == ["8x8"]


def test_the_description_names_what_the_arrays_were_made_from(folder: Path, source: Path) -> None:
    TensorStore(folder, {"image_size": 8}, [source]).prepare(build)
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["identity"]["image_size"] == 8
    facts = source.stat()
    expected = {"bytes": 4, "mtime_ns": facts.st_mtime_ns, "crc32": zlib.crc32(b"1234")}
    assert meta["sources"] == {"digits.gz": expected}
    assert meta["arrays"].keys() == {"image", "label"}


def test_bytes_are_compared_only_if_the_time_of_change_differs(folder: Path, monkeypatch: Patch) -> None:
    """So that a second start needn't read the arrays; those of an earlier version, and copies, are read."""
    store = TensorStore(folder, {})
    store.prepare(build)
    read = []
    monkeypatch.setattr(tensors, "_crc32", lambda path: read.append(path.name) or zlib.crc32(path.read_bytes()))
    store.prepare(never)
    assert read == []
    os.utime(folder / "label.npy")
    store.prepare(never)
    assert read == ["label.npy"]
    meta = json.loads((folder / "meta.json").read_text())
    for facts in meta["arrays"].values():
        del facts["mtime_ns"]
    (folder / "meta.json").write_text(json.dumps(meta))
    store.prepare(never)
    assert sorted(read) == ["image.npy", "label.npy", "label.npy"]


# --- the data set -----------------------------------------------------------------------------------------------------


def labeled(rows: torch.Tensor | None = None) -> GatherDataset[LabeledImages]:
    return GatherDataset(LabeledImages(torch.from_numpy(images()), torch.arange(50) * 2), rows)


@pytest.mark.parametrize(
    "indices", [[3], [4, 0, 4, 2], torch.tensor([[1, 2, 3], [4, 0, 1]]), torch.zeros(2, 3, 4).long()]
)
@pytest.mark.parametrize("rows", [None, torch.tensor([40, 7, 7, 3, 21])])
def test_a_batch_is_the_rows_asked_for_in_their_shape(
    indices: list[int] | torch.Tensor, rows: torch.Tensor | None
) -> None:
    batch = labeled(rows).__getitems__(indices)
    shape = torch.as_tensor(indices).shape
    assert isinstance(batch, LabeledImages)
    assert batch.image.shape == (*shape, 1, 8, 8)
    assert batch.label.shape == shape
    for place in np.ndindex(*shape):
        row = int(torch.as_tensor(indices)[place])
        row = row if rows is None else int(rows[row])
        assert np.array_equal(batch.image[place].numpy(), images()[row])
        assert batch.label[place] == 2 * row


def test_a_batch_is_a_copy() -> None:
    data = labeled()
    data.__getitems__([1]).image.zero_()
    assert np.array_equal(data.columns.image.numpy(), images())


def test_length_and_single_rows() -> None:
    data = labeled(torch.tensor([5, 6, 7]))
    assert len(data) == 3
    assert len(labeled()) == 50
    image, label = data[2]
    assert image.shape == (1, 8, 8)
    assert label == 14


def test_a_column_is_in_the_order_of_the_rows() -> None:
    assert torch.equal(labeled(torch.tensor([5, 9, 1])).column("label"), torch.tensor([10, 18, 2]))
    assert torch.equal(labeled().column("label"), torch.arange(50) * 2)


def test_the_data_set_moves_to_a_device_as_what_it_is() -> None:
    class Special(GatherDataset[LabeledImages]):
        pass

    moved = Special(labeled().columns, torch.tensor([1, 2])).to(torch.device("meta"))
    assert isinstance(moved, Special)
    assert moved.columns.image.is_meta
    assert len(moved) == 2


def test_rows_outside_are_an_error() -> None:
    with pytest.raises(IndexError):
        labeled().__getitems__([50])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"must be of one length; these are of \[2, 3\]"):
        GatherDataset(LabeledImages(torch.zeros(2, 1, 1, 1), torch.zeros(3)))


def test_any_named_tuple_makes_a_data_set() -> None:
    tasks = GatherDataset(Episodes(torch.rand(20, 5, 1, 1, 4, 4), torch.rand(20, 5, 2, 1, 4, 4)))
    batch = tasks.__getitems__(torch.tensor([3, 5]))
    assert torch.equal(batch.query, tasks.columns.query[[3, 5]])
