"""Downloads from a local server that misbehaves on purpose."""

import errno
import hashlib
import io
import multiprocessing
import os
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from datamodules.errors import DataError, DataWarning
from datamodules.loading import archives
from datamodules.loading.archives import RemoteFile, fetch
from tests.support.data_modules import visible_files
from tests.support.local_server import LocalServer, Quiet, without_proxies

CONTENT = bytes(range(256)) * 4096  # 1 MiB
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(Quiet, BaseHTTPRequestHandler):
    """Serves CONTENT under every path; ``server.faults[path]`` says what goes wrong at each request of it, in turn."""

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
    without_proxies(monkeypatch)
    with LocalServer(Handler) as server:
        server.faults = defaultdict(list)
        server.always = {}
        server.requests = []
        yield server


def remote(server, *mirrors: str, checksum: str = MD5) -> RemoteFile:
    return RemoteFile("data.bin", tuple(f"{server.url}/{mirror}" for mirror in mirrors or ("data.bin",)), checksum)


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


FROM_HALF, FROM_1000 = f"bytes={len(CONTENT) // 2}-", "bytes=1000-"
FROM_THREE_QUARTERS, FROM_END = f"bytes={len(CONTENT) * 3 // 4}-", f"bytes={len(CONTENT)}-"
FAULTS = {
    "breaks off twice": ({"/a": ["cut", "cut"]}, [("/a", None), ("/a", FROM_HALF), ("/a", FROM_THREE_QUARTERS)]),
    "has no ranges": ({"/a": ["no range cut", "no range"]}, [("/a", None), ("/a", FROM_HALF)]),
    "gives no length": ({"/a": ["no length cut", "no length"]}, [("/a", None), ("/a", FROM_END)]),
    "is slow, but never silent for 0.3 s": ({"/a": ["slow"]}, [("/a", None)]),
    "falls silent": ({"/a": ["stall"]}, [("/a", None), ("/a", FROM_HALF)]),
    **{f"answers {status} twice": ({"/a": [status] * 2}, [("/a", None)] * 3) for status in ("500", "503", "429")},
    "redirects": ({"/a": ["to /elsewhere"]}, [("/a", None), ("/elsewhere", None)]),
}
"""What a server does: its faults in turn, and the requests that get the file all the same."""


@pytest.mark.parametrize(("faults", "requests"), FAULTS.values(), ids=FAULTS)
def test_gets_the_file_from_a_server_that(server, tmp_path, faults, requests):
    server.faults.update(faults)
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == CONTENT
    assert server.requests == requests


def test_progress_restarts_the_row_of_retries(server, tmp_path, capfd):
    server.faults["/a"] = ["cut"] * 10  # more than there are delays, each with new bytes
    assert fetch(remote(server, "a"), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 11
    assert "trying again in 0.01 s" in capfd.readouterr().err


MIRRORS = {
    **{f"answers {fault}": ([fault], MD5, None) for fault in ("404", "403")},
    "sends other bytes": (["corrupt"], MD5, None),
    "breaks off": (["cut"], MD5, FROM_HALF),
    "breaks off without a checksum": (["corrupt cut"], "", None),  # bytes of two mirrors are not mixed
}
"""What the first mirror does, the checksum, and the range that the second one is asked for."""


@pytest.mark.parametrize(("faults", "checksum", "requested"), MIRRORS.values(), ids=MIRRORS)
def test_takes_the_second_mirror_if_the_first(server, tmp_path, faults, checksum, requested):
    server.faults["/a"] = faults
    assert fetch(remote(server, "a", "b", checksum=checksum), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", None), ("/b", requested)]


def test_a_first_mirrors_bad_bytes_do_not_spoil_the_second(server, tmp_path):
    server.faults["/a"] = ["corrupt cut"]
    server.always["/a"] = "404"
    assert fetch(remote(server, "a", "b"), tmp_path).read_bytes() == CONTENT


PARTS = {
    "whole": (CONTENT, MD5, [FROM_END]),
    "part": (CONTENT[:1000], MD5, [FROM_1000]),
    "part, no checksum": (CONTENT[:1000], "", [None]),  # it isn't trusted
    "other file": (b"of another file", MD5, ["bytes=15-", None]),
    "longer": (CONTENT + b"longer", MD5, [f"bytes={len(CONTENT) + 6}-", None]),
}
"""What an earlier run left, the checksum, and the ranges that are asked for."""


@pytest.mark.parametrize(("old", "checksum", "requested"), PARTS.values(), ids=PARTS)
def test_goes_on_with_the_part_of_an_earlier_run(server, tmp_path, old, checksum, requested):
    (tmp_path / "data.bin.part").write_bytes(old)
    assert fetch(remote(server, "a", checksum=checksum), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/a", one) for one in requested]
    assert visible_files(tmp_path) == ["data.bin"]


def test_redirect_to_a_local_file_is_refused(server, tmp_path):
    (tmp_path / "secret").write_bytes(CONTENT)
    server.always["/data.bin"] = f"to file://{tmp_path}/secret"
    with pytest.raises(DataError, match="can't be downloaded"):
        fetch(remote(server, checksum=""), tmp_path / "data")


def test_unreachable_host_then_mirror(server, tmp_path):
    closed = LocalServer(Handler)
    closed.server_close()
    file = RemoteFile("data.bin", (f"{closed.url}/", f"{server.url}/"), MD5)
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
