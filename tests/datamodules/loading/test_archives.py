"""Archives, some of them made to do harm."""

import errno
import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from datamodules.errors import DataError
from datamodules.loading import archives
from datamodules.loading.archives import extract
from tests.support.data_modules import visible_files

FILES = {"images/a/1.bin": b"one" * 1000, "images/b/2.bin": b"two", "readme.txt": b""}


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: the constructor would cut it at a null or turn its slashes
            info.compress_type = compression
            archive.writestr(info, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return path


def tar_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def content_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("stored.zip", lambda path: write_zip(path, FILES, zipfile.ZIP_STORED)),
        ("deflated.zip", lambda path: write_zip(path, FILES)),
        ("plain.tar", lambda path: write_tar(path, FILES)),
        ("packed.tar.gz", lambda path: write_tar(path, FILES, mode="w:gz")),
        ("packed.tgz", lambda path: write_tar(path, FILES, tar_entry("empty", tarfile.DIRTYPE), mode="w:gz")),
        ("packed.tar.bz2", lambda path: write_tar(path, FILES, mode="w:bz2")),
        ("packed.tar.xz", lambda path: write_tar(path, FILES, mode="w:xz")),
        ("no_suffix", lambda path: write_tar(path, FILES, mode="w:gz")),
        ("dots.tar", lambda path: write_tar(path, {f"./{name}": content for name, content in FILES.items()})),
        ("backslashes.zip", lambda path: write_zip(path, {n.replace("/", "\\"): c for n, c in FILES.items()})),
    ],
)
def test_extracts(tmp_path, name, write):
    folder = extract(write(tmp_path / name), tmp_path / "out" / "folder")
    assert folder == tmp_path / "out" / "folder"
    assert content_of(folder) == FILES
    assert visible_files(folder.parent) == ["folder"]


def test_an_extracted_folder_is_left_alone(tmp_path):
    archive = write_zip(tmp_path / "a.zip", FILES)
    folder = extract(archive, tmp_path / "out")
    (folder / "readme.txt").write_text("changed")
    archive.unlink()
    assert (extract(archive, folder) / "readme.txt").read_text() == "changed"


def zip_with_link(path: Path) -> Path:
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def damaged(path: Path, position: int) -> Path:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-1500])
    return path


NOISE = os.urandom(5000)
LEAVES, LINK, GROWS, DAMAGED = "would leave the folder", "is a link or a device", "would unpack to more", "is damaged"


BAD_ARCHIVES = {
    "zip: up": (lambda p: write_zip(p, {"ok": b"1", "../evil": b"2"}), LEAVES),
    "zip: up in the middle": (lambda p: write_zip(p, {"a/../../evil": b"2"}), LEAVES),
    "zip: absolute": (lambda p: write_zip(p, {"/tmp/evil": b"2"}), LEAVES),
    "zip: up with backslashes": (lambda p: write_zip(p, {"..\\evil": b"2"}), LEAVES),
    "zip: drive": (lambda p: write_zip(p, {"C:\\evil": b"2"}), LEAVES),
    "zip: drive without a root": (lambda p: write_zip(p, {"C:evil": b"2"}), LEAVES),
    "zip: network share": (lambda p: write_zip(p, {"\\\\host\\share\\evil": b"2"}), LEAVES),
    "zip: symbolic link": (zip_with_link, LINK),
    "zip: bomb by ratio": (lambda p: write_zip(p, {f"{i}": bytes(4_000_000) for i in range(3)}), GROWS),
    "zip: a long name": (lambda p: write_zip(p, {"n" * 300: b"1"}), r"\(the name of a file in it is too long here\)"),
    "zip: damaged": (lambda p: damaged(write_zip(p, {"a": NOISE}, zipfile.ZIP_STORED), 2000), DAMAGED),
    "tar: up": (lambda p: write_tar(p, {"ok": b"1", "../evil": b"2"}), LEAVES),
    "tar: absolute": (lambda p: write_tar(p, {"/tmp/evil": b"2"}), LEAVES),
    "tar: drive": (lambda p: write_tar(p, {"C:/evil": b"2"}), LEAVES),
    "tar: folder above": (lambda p: write_tar(p, {}, tar_entry("../evil", tarfile.DIRTYPE)), LEAVES),
    "tar: symbolic link": (lambda p: write_tar(p, {}, tar_entry("link", tarfile.SYMTYPE, "/etc")), LINK),
    "tar: hard link": (lambda p: write_tar(p, {}, tar_entry("link", tarfile.LNKTYPE, "../evil")), LINK),
    "tar: link inside": (lambda p: write_tar(p, {"a": b"1"}, tar_entry("link", tarfile.SYMTYPE, "a")), LINK),
    "tar: device": (lambda p: write_tar(p, {}, tar_entry("null", tarfile.CHRTYPE)), LINK),
    "tar: pipe": (lambda p: write_tar(p, {}, tar_entry("pipe", tarfile.FIFOTYPE)), LINK),
    "tar: bomb by ratio": (lambda p: write_tar(p, {"zeros": bytes(10_000_000)}, mode="w:bz2"), GROWS),
    "tar: bomb of empty files": (
        lambda p: write_tar(p, {f"{i:05}": b"" for i in range(3000)}, mode="w:xz"),
        GROWS,
    ),
    "tar.gz: cut off": (lambda p: cut(write_tar(p, {"a": NOISE}, mode="w:gz")), DAMAGED),
    "tar: cut off": (lambda p: (p.write_bytes(write_tar(p, {"a": NOISE}).read_bytes()[:3000]), p)[1], DAMAGED),
    "tar.gz: damaged": (lambda p: damaged(write_tar(p, {"a": NOISE}, mode="w:gz"), 3000), DAMAGED),
    "tar.xz: damaged": (lambda p: damaged(write_tar(p, {"a": NOISE}, mode="w:xz"), 3000), DAMAGED),
    "tar.bz2: damaged": (lambda p: damaged(write_tar(p, {"a": NOISE}, mode="w:bz2"), 3000), DAMAGED),
    "text": (lambda p: (p.write_text("<html>Please log in</html>"), p)[1], "neither a zip nor a tar archive"),
    "empty file": (lambda p: (p.write_bytes(b""), p)[1], "neither a zip nor a tar archive"),
    "null in a name": (lambda p: write_tar(p, {"a\0b/../../evil": b"1"}), None),
    "missing": (lambda p: p, "No such file"),
}


@pytest.mark.parametrize(("write", "sentence"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives_are_refused_whole(tmp_path, write, sentence):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    archive = write(tmp_path / "in" / "archive")
    if sentence is None:  # harmless: both formats end a name at its null
        assert content_of(extract(archive, tmp_path / "out" / "folder")) == {"a": b"1"}
        return
    with pytest.raises(DataError, match=sentence) as caught:
        extract(archive, tmp_path / "out" / "folder")
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible_files(tmp_path / "out") == []
    assert visible_files(tmp_path) == ["in", "out"]
    assert not Path("/tmp/evil").exists()


def test_bomb_by_total_size(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", {"a": NOISE, "b": NOISE})
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 9000)
    with pytest.raises(DataError, match="would unpack to more than 9,000 bytes"):
        extract(archive, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 12000)
    extract(archive, tmp_path / "out")


def test_a_zip_that_lies_about_its_size(tmp_path):
    """The size in the directory is what is checked, and no more than it is ever written."""
    archive = write_zip(tmp_path / "a.zip", {"a": bytes(1_000_000)})
    content = archive.read_bytes()
    claimed = (1_000_000).to_bytes(4, "little")
    assert content.count(claimed) == 2
    archive.write_bytes(content.replace(claimed, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match="is damaged"):
        extract(archive, tmp_path / "out")


def test_encrypted_zip(tmp_path):
    archive = write_zip(tmp_path / "a.zip", {"a": NOISE})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"can't be unpacked \(it is encrypted\): unpack it by hand"):
        extract(archive, tmp_path / "out")


def test_full_disk_while_unpacking(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "a.zip", FILES)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(DataError, match=r"can't be unpacked to .*: No space left on device\. Free some space"):
        extract(archive, tmp_path / "out" / "folder")
    assert visible_files(tmp_path / "out") == []


def test_no_permission_to_unpack(tmp_path):
    archive = write_zip(tmp_path / "a.zip", FILES)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"can't be unpacked to .*file: (File exists|Not a directory)"):
        extract(archive, tmp_path / "file" / "folder")
