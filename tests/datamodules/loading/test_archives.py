"""Downloads from a local server that misbehaves on purpose, and archives made to do harm."""

import errno
import hashlib
import io
import multiprocessing
import os
import shutil
import stat
import tarfile
import threading
import time
import zipfile
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules.errors import DataError, DataWarning
from datamodules.loading import archives
from datamodules.loading.archives import RemoteFile, extract, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under every path; ``server.faults[path]`` says what goes wrong at each request of it, in turn."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, path = self.server, self.path
        server.requests.append((path, self.headers.get("Range")))
        fault = server.faults[path].pop(0) if server.faults[path] else server.always.get(path, "")
        content = CONTENT
        if fault.isdigit():
            self.send_error(int(fault))
            return
        if fault.startswith("to "):
            self.send_response(302)
            self.send_header("Location", fault[3:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if "corrupt" in fault:
            content = content[:1000] + b"!" + content[1001:]
        start = 0
        if self.headers.get("Range") and "no range" not in fault:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        if "no length" in fault:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
            if "cut" not in fault:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            if "cut" in fault:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif "stall" in fault:
                self.wfile.write(body[: len(body) // 2])
                time.sleep(0.6)
                self.close_connection = True
            elif "slow" in fault:
                for i in range(0, len(body), len(body) // 8):
                    time.sleep(0.05)
                    self.wfile.write(body[i : i + len(body) // 8])
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(archives, "RETRY_DELAYS", (0.01, 0.01))
    monkeypatch.setattr(archives, "TIMEOUT", 0.3)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.faults = defaultdict(list)
    server.always = {}
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def remote(server, *mirrors: str, checksum: str = MD5) -> RemoteFile:
    return RemoteFile("data.bin", tuple(f"{server.url}/{mirror}" for mirror in mirrors or ("data.bin",)), checksum)


def visible_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# --- fetch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [MD5, SHA256, ""])
def test_downloads_once(server, tmp_path, capfd, checksum):
    file = remote(server, checksum=checksum)
    path = fetch(file, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert visible_files(path.parent) == ["data.bin"]
    assert "data.bin" in capfd.readouterr().err  # the progress bar
    assert fetch(file, path.parent) == path
    assert server.requests == [("/data.bin", None)]


def test_a_mirror_that_ends_in_a_slash_is_a_folder(server, tmp_path):
    fetch(RemoteFile("a b.bin", (f"{server.url}/folder/",), MD5), tmp_path)
    assert server.requests == [("/folder/a%20b.bin", None)]
    assert (tmp_path / "a b.bin").read_bytes() == CONTENT


def test_uses_the_users_file_in_any_folder(server, tmp_path, recwarn):
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "data.bin").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path / "first", tmp_path / "second") == tmp_path / "second" / "data.bin"
    assert not server.requests
    assert not recwarn.list
    assert not (tmp_path / "first").exists()


def test_notes_another_checksum_of_the_users_file(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.warns(DataWarning, match=f"md5:{hashlib.md5(b'mine').hexdigest()}, not the published {MD5}"):
        assert fetch(remote(server), tmp_path).read_bytes() == b"mine"
    assert not server.requests


def test_goes_on_where_the_connection_broke_off(server, tmp_path, capfd):
    server.faults["/data.bin"] = ["cut", "cut"]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    half, three_quarters = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert [r for _, r in server.requests] == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert "trying again in 0.01 s" in capfd.readouterr().err


def test_progress_restarts_the_row_of_retries(server, tmp_path):
    server.faults["/data.bin"] = ["cut"] * 10  # more than there are delays, each with new bytes
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 11


def test_goes_on_with_the_part_of_an_earlier_run(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/data.bin", "bytes=1000-")]


def test_a_whole_part_of_an_earlier_run_is_enough(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/data.bin", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("old", [b"of another file", CONTENT + b"longer"])
def test_a_wrong_part_of_an_earlier_run_is_thrown_away(server, tmp_path, old):
    (tmp_path / "data.bin.part").write_bytes(old)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert visible_files(tmp_path) == ["data.bin"]


def test_without_a_checksum_an_old_part_is_not_trusted(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    server.faults["/data.bin"] = ["cut"]
    assert fetch(remote(server, checksum=""), tmp_path).read_bytes() == CONTENT
    assert [r for _, r in server.requests] == [None, f"bytes={len(CONTENT) // 2}-"]  # its own part is


def test_without_a_checksum_bytes_of_two_mirrors_are_not_mixed(server, tmp_path):
    server.faults["/a"] = ["corrupt cut"]
    assert fetch(remote(server, "a", "b", checksum=""), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", None)]


def test_server_without_ranges(server, tmp_path):
    server.faults["/data.bin"] = ["no range cut", "no range"]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_server_that_does_not_say_the_length(server, tmp_path):
    server.faults["/data.bin"] = ["no length cut", "no length"]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


def test_slow_server(server, tmp_path):
    server.faults["/data.bin"] = ["slow"]  # 0.4 s in all, but never 0.3 s without a byte
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_server_that_falls_silent(server, tmp_path):
    server.faults["/data.bin"] = ["stall"]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert [r for _, r in server.requests] == [None, f"bytes={len(CONTENT) // 2}-"]


@pytest.mark.parametrize("status", ["500", "503", "429"])
def test_passing_faults_are_tried_again(server, tmp_path, status):
    server.faults["/data.bin"] = [status, status]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_redirect(server, tmp_path):
    server.faults["/data.bin"] = ["to /elsewhere"]
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/data.bin", "/elsewhere"]


def test_redirect_to_a_local_file_is_refused(server, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    server.always["/data.bin"] = f"to file://{tmp_path}/secret"
    with pytest.raises(DataError, match="can't be downloaded"):
        fetch(remote(server, checksum=""), tmp_path / "data")


@pytest.mark.parametrize("fault", ["404", "403", "corrupt"])
def test_next_mirror_at_once(server, tmp_path, fault):
    server.always["/a"] = fault
    assert fetch(remote(server, "a", "b"), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", None)]


def test_a_second_mirror_completes_the_first_ones_part(server, tmp_path):
    server.always["/a"] = "500"
    server.faults["/a"] = ["cut"]
    assert fetch(remote(server, "a", "b"), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", f"bytes={len(CONTENT) // 2}-")]


def test_a_first_mirrors_bad_bytes_do_not_spoil_the_second(server, tmp_path):
    server.faults["/a"] = ["corrupt cut"]
    server.always["/a"] = "404"
    assert fetch(remote(server, "a", "b"), tmp_path).read_bytes() == CONTENT


def test_unreachable_host_then_mirror(server, tmp_path):
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    closed.server_close()
    file = RemoteFile("data.bin", (f"http://127.0.0.1:{closed.server_port}/", f"{server.url}/"), MD5)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


BAD_DOWNLOADS = {
    "missing": (
        ["404"],
        r"data\.bin can't be downloaded \(http\S+/a: 404 Not Found\)\. Try again later, or put the file",
    ),
    "broken server": (["500"], r"/a: 500 Internal Server Error\)"),
    "wrong checksum": (["corrupt"], rf"/a: wrong checksum md5:\w+, not {MD5}\)"),
    "missing and wrong": (["404", "corrupt"], r"/a: 404 Not Found; http\S+/b: wrong checksum"),
    "always cut": (["cut no range"], r"/a: the connection broke off after 524,288 of 1,048,576 bytes\)"),
    "endless redirect": (["to /a"], r"/a: 302 .*redirect"),
}


@pytest.mark.parametrize(("faults", "sentence"), BAD_DOWNLOADS.values(), ids=BAD_DOWNLOADS)
def test_one_sentence_when_all_mirrors_fail(server, tmp_path, faults, sentence):
    mirrors = "abc"[: len(faults)]
    server.always = {f"/{mirror}": fault for mirror, fault in zip(mirrors, faults, strict=True)}
    with pytest.raises(DataError, match=sentence) as caught:
        fetch(remote(server, *mirrors), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data.bin").exists()


@pytest.mark.parametrize(
    ("urls", "sentence"),
    [((), "no address of it is known"), (("ftp//nonsense",), "unknown url type"), (("http:///x",), "no host given")],
)
def test_useless_addresses(tmp_path, monkeypatch, urls, sentence):
    monkeypatch.setattr(archives, "RETRY_DELAYS", ())
    with pytest.raises(DataError, match=sentence):
        fetch(RemoteFile("data.bin", urls), tmp_path)


def test_full_disk_while_downloading(server, tmp_path, monkeypatch):
    class FullDisk(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real_open = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *a, **k: FullDisk(path, "w") if mode == "wb" else real_open(path, mode, *a, **k),
    )
    with pytest.raises(
        DataError, match=r"data\.bin can't be downloaded to .*: No space left on device\. Free some space"
    ):
        fetch(remote(server), tmp_path)
    assert visible_files(tmp_path) == []
    assert len(server.requests) == 1  # a full disk is not a lost connection


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission(server, tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            fetch(remote(server), tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_no_write_permission_as_the_system_reports_it(server, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"can't be downloaded to .*: Permission denied\. .*choose another folder"):
        fetch(remote(server), tmp_path / "folder")
    assert not server.requests


def test_a_file_where_the_folder_should_be(server, tmp_path):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DataError, match=r"can't be downloaded to .*: (File exists|Not a directory)"):
        fetch(remote(server), tmp_path / "data")


def _fetch_in_process(url: str, folder: Path, start) -> None:
    start.wait()
    fetch(RemoteFile("data.bin", (url,), MD5), folder)


def test_two_processes_download_once(server, tmp_path):
    server.always["/data.bin"] = "slow"
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    start = context.Event()
    arguments = (f"{server.url}/data.bin", tmp_path, start)
    processes = [context.Process(target=_fetch_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert len(server.requests) == 1


# --- extract ----------------------------------------------------------------------------------------------------------

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
