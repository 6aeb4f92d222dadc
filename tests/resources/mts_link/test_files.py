"""Files of records from storages of every sort: whole, gone on with, checked; the key stays at home."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resources.errors import PermanentSourceError, TransientSourceError
from resources.mts_link import MtsLinkClient

BODY = bytes(range(256)) * 800
SIZE = len(BODY)
KEY = "key-of-the-storage-test"


class Hurried:
    """Time without sleeps."""

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        pass


class Storage(ThreadingHTTPServer):
    """What a path does is its name. `asked`: (path, range, key, coding) of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, str | None, str | None]] = []
        self.leads_to = ""
        self.breaks = 2

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Storage  # type: ignore[assignment]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        path, wanted = self.path, self.headers.get("Range")
        self.server.asked.append(
            (path, wanted, self.headers.get("x-auth-token"), self.headers.get("Accept-Encoding"))
        )
        start = int(wanted[6:-1]) if wanted else 0
        if path == "/redirect":
            return self.give(302, b"", Location=self.server.leads_to)
        if path == "/page":
            return self.give(200, b"<html>sign in</html>", **{"Content-Type": "text/html; charset=utf-8"})
        if path == "/without-ranges" or not wanted:
            return self.give(200, BODY)
        start += 10 if path == "/other-range" else 0
        return self.give(206, BODY[start:], **{"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}"})

    def give(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/broken" and self.server.breaks:
            self.server.breaks -= 1
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)


@pytest.fixture
def storage() -> Iterator[Storage]:
    with Storage() as storage:
        thread = threading.Thread(target=storage.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield storage
        storage.shutdown()
        thread.join()


def fetch(storage: Storage, url: str, target: str, size: int = SIZE, part: bytes = b"") -> bytes:
    """What stands at `target` after a fetch, where `part` of it was there before."""
    fs, path = fsspec.core.url_to_fs(target)
    if part:
        fs.pipe_file(f"{path}.part", part)
    link = MtsLinkClient(KEY, base_url=storage.url("/v3"), rate=0, clock=Hurried())
    link.fetcher().fetch(url, target, size, lambda text: None)
    assert not fs.exists(f"{path}.part")
    return fs.cat_file(path)


@pytest.mark.parametrize("form", ["{folder}/1.mp4", "file://{folder}/1.mp4", "memory://records/{name}/1.mp4"])
def test_a_file_is_whole_wherever_it_goes(storage: Storage, tmp_path: Path, form: str):
    target = form.format(folder=tmp_path, name=tmp_path.name)
    assert fetch(storage, storage.url("/broken"), target) == BODY
    assert [wanted for _, wanted, _, _ in storage.asked] == [
        None,
        f"bytes={SIZE // 2}-",
        f"bytes={SIZE * 3 // 4}-",
    ]
    assert {coding for *_, coding in storage.asked} == {"identity"}


@pytest.mark.parametrize("path", ["/file", "/without-ranges", "/other-range"])
@pytest.mark.parametrize("part", [BODY[:1000], BODY, BODY + b"more"], ids=["some", "all", "too-much"])
def test_what_is_there_is_gone_on_with_or_left(storage: Storage, tmp_path: Path, path: str, part: bytes):
    assert fetch(storage, storage.url(path), f"{tmp_path}/1.mp4", part=part) == BODY
    assert len(storage.asked) == (
        0 if part == BODY else 2 if (path, len(part)) == ("/other-range", 1000) else 1
    )


@pytest.mark.parametrize("size", [SIZE - 7, SIZE + 7])
def test_a_whole_answer_of_another_size_is_told_at_once_and_not_kept(
    storage: Storage, tmp_path: Path, size: int
):
    with pytest.raises(TransientSourceError, match=f"has {SIZE:,} bytes, and MTS Link says {size:,}"):
        fetch(storage, storage.url("/file"), f"{tmp_path}/1.mp4", size)
    assert len(storage.asked) == 1
    assert not list(tmp_path.iterdir())


def test_the_key_goes_to_the_host_of_the_api_only(storage: Storage, tmp_path: Path):
    storage.leads_to = storage.url("/file", host="localhost")
    assert fetch(storage, storage.url("/redirect"), f"{tmp_path}/1.mp4") == BODY
    assert [(path, key) for path, _, key, _ in storage.asked] == [("/redirect", KEY), ("/file", None)]


@pytest.mark.parametrize(
    ("path", "leads_to", "said"),
    [
        ("/redirect", "/redirect", "redirected too often"),
        ("/redirect", "", "no web address"),
        ("/redirect", "file:///etc/passwd", "no web address"),
        ("/page", "", "a page, not to a file"),
    ],
)
def test_an_address_that_leads_to_no_file_is_told_at_once(
    storage: Storage, tmp_path: Path, path: str, leads_to: str, said: str
):
    storage.leads_to = leads_to
    with pytest.raises(PermanentSourceError, match=said):
        fetch(storage, storage.url(path), f"{tmp_path}/1.mp4", size=0)
    assert len(storage.asked) <= 4
    assert not list(tmp_path.iterdir())
