"""Downloads from a server on this machine: resume, checksum, early ends, archives."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from retr_hf.data.download import SOURCES, Source, download, fetch, unpack
from retr_hf.data.readers.known import READERS
from retr_hf.errors import DataError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Answers with ``files``, whole or from a byte on; stops after ``stop`` bytes of a body."""

    files: dict[str, bytes] = {}
    stop: int | None = None
    tag = '"one"'
    asked: list[str | None] = []

    def do_GET(self):
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        type(self).asked.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if asked and self.headers.get("If-Range") != self.tag:
            first, asked = 0, None
        if first >= len(content) > 0:
            self.send_error(416)
            return
        self.send_response(206 if asked else 200)
        self.send_header("ETag", self.tag)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : first + self.stop if self.stop else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Here", (Server,), {"files": {"/big.bin": CONTENT}, "asked": []})
    here = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=here.serve_forever, daemon=True)
    thread.start()
    handler.address = f"http://127.0.0.1:{here.server_port}"
    yield handler
    here.shutdown()
    thread.join()
    here.server_close()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server, tmp_path):
    for _ in range(2):
        assert fetch(f"{server.address}/big.bin", tmp_path / "raw", MD5).read_bytes() == CONTENT
    assert names(tmp_path / "raw") == ["big.bin"] and server.asked == [None]


def test_an_interrupted_download_goes_on(server, tmp_path):
    server.stop = 300_000
    with pytest.raises(DataError, match="ended after 300,000 of 1,024,000 bytes; run the command again"):
        fetch(f"{server.address}/big.bin", tmp_path, MD5)
    assert names(tmp_path) == ["big.bin.part", "big.bin.part.etag"]
    server.stop = None
    assert fetch(f"{server.address}/big.bin", tmp_path, MD5).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-"] and names(tmp_path) == ["big.bin"]


def test_it_does_not_go_on_with_another_file(server, tmp_path):
    server.stop = 300_000
    with pytest.raises(DataError):
        fetch(f"{server.address}/big.bin", tmp_path)
    server.stop, server.tag, server.files = None, '"two"', {"/big.bin": b"new" * 200_000}
    assert fetch(f"{server.address}/big.bin", tmp_path).read_bytes() == b"new" * 200_000


def test_a_part_that_was_whole(server, tmp_path):
    (tmp_path / "big.bin.part").write_bytes(CONTENT)
    (tmp_path / "big.bin.part.etag").write_text(server.tag)
    assert fetch(f"{server.address}/big.bin", tmp_path, MD5).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DataError, match=f"expected the published MD5 {'0' * 32}, got {MD5}"):
        fetch(f"{server.address}/big.bin", tmp_path, "0" * 32)
    assert names(tmp_path) == []
    (tmp_path / "big.bin").write_bytes(b"damaged")  # one that is there, but is not it, is fetched again
    assert fetch(f"{server.address}/big.bin", tmp_path, MD5).read_bytes() == CONTENT


def test_a_server_without_the_file_or_none_at_all(server, tmp_path):
    with pytest.raises(DataError, match="got 404"):
        fetch(f"{server.address}/absent.bin", tmp_path)
    with pytest.raises(DataError, match="expected an answer"):
        fetch("http://127.0.0.1:9/x.bin", tmp_path)
    assert names(tmp_path) == []


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in members.items():
            file.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


def test_a_release_is_fetched_and_unpacked(server, tmp_path):
    archive = zipped(**{"ml-1m__ratings.dat": "1::2::3::4\n"})
    server.files = {"/ml-1m.zip": archive, "/meta.txt": b"m"}
    releases = {"1m": hashlib.md5(archive).hexdigest(), "20m": None}
    source = Source(f"{server.address}/ml-{{}}.zip", f"{server.address}/meta.txt", releases, "ml-{}")
    inputs, items = download("movielens", tmp_path, "1m", source)
    assert (inputs / "ratings.dat").read_text() == "1::2::3::4\n" and items.read_bytes() == b"m"
    assert names(tmp_path) == ["meta.txt", "ml-1m", "ml-1m.zip"]
    for release in (None, "9m"):
        with pytest.raises(DataError, match="expected --release with one of: 1m, 20m"):
            download("movielens", tmp_path, release, source)
    with pytest.raises(DataError, match="taobao: has no public address"):
        download("taobao", tmp_path, None)


def test_broken_archives(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(other="x"))
    with pytest.raises(DataError, match=r"expected wanted in it, but it holds \['other'\]"):
        unpack(tmp_path / "a.zip", tmp_path, "wanted")
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match="it is broken"):
        unpack(tmp_path / "b.zip", tmp_path, "wanted")
    assert names(tmp_path) == ["a.zip", "b.zip"]


def test_sources_are_of_known_readers():
    assert set(SOURCES) <= set(READERS)
    assert all(len(md5) == 32 for source in SOURCES.values() for md5 in source.releases.values() if md5)
