"""Bytes of converted records: streamed to a directory or any fsspec URL, gone on with after a break."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import fsspec

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Backoff, Clock, HttpSession, TransportError, register_secret

MOST_REDIRECTS = 3
CHUNK = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is there in full. `resumed_at`: bytes that were there before; `requests` were sent."""

    path: str
    size: int
    resumed_at: int
    requests: int


class FileFetcher:
    """Fetches addresses that the API gave. The key goes to the API's own host only, never with a redirect."""

    def __init__(
        self, http: HttpSession, api_url: str, headers: dict[str, str], clock: Clock, backoff: Backoff
    ) -> None:
        self._http, self._clock, self._backoff = http, clock, backoff
        self._own, self._headers = _origin(api_url), headers
        self._requests = 0

    def fetch(self, url: str, target: str, size: int, log: Callable[[str], None]) -> Fetched:
        """Have `target` (a path or an fsspec URL) with `size` bytes; 0 for as many as the server says.

        A part of it (`….part`) is gone on with where the file system can append. Raises PermanentSourceError
        for an address that is refused or leads to no file, TransientSourceError when it breaks too often or
        the file has another size.
        """
        register_secret(url)
        self._requests = 0
        fs, path = fsspec.core.url_to_fs(target)
        if fs.exists(path) and (not size or fs.size(path) == size):
            return Fetched(target, fs.size(path), fs.size(path), 0)
        fs.makedirs(fs._parent(path), exist_ok=True)
        part = f"{path}.part"
        began = _size(fs, part)
        waits = self._backoff.waits()
        while True:
            failed = self._attempt(url, fs, part, size)
            if failed is None:
                break
            wait = next(waits, None)
            if wait is None:
                raise TransientSourceError(f"A record's file broke off too often: {failed}")
            log(f"A record's file broke off at {_size(fs, part):,} bytes ({failed}): going on")
            self._clock.sleep(wait)
        fs.mv(part, path)
        return Fetched(target, fs.size(path), began, self._requests)

    def _attempt(self, url: str, fs: Any, part: str, size: int) -> str | None:
        """One request for what is missing; None when all is there, else why it is not."""
        have = _size(fs, part)
        if size and have == size:
            return None
        if size and have > size:
            fs.rm(part)
            have = 0
        try:
            return self._stream(url, fs, part, have, size)
        except TransportError as error:
            return error.kind

    def _stream(self, url: str, fs: Any, part: str, have: int, size: int) -> str | None:
        for _ in range(MOST_REDIRECTS + 1):
            self._requests += 1
            own = self._headers if _origin(url) == self._own else {}
            resume = {"Range": f"bytes={have}-"} if have else {}
            headers = {"Accept-Encoding": "identity", **resume, **own}
            with self._http.stream("GET", url, headers=headers, decode=False) as answer:
                if answer.status in _REDIRECTS:
                    url = _target(url, answer.headers.get("Location", ""))
                    continue
                if answer.status >= 500 or answer.status == 429:
                    return f"answered {answer.status}"
                if answer.status == 416 or (answer.status == 206 and _begins_at(answer) != have):
                    fs.rm(part)  # what is here is not a beginning of what is there
                    return "the part did not fit"
                if answer.status not in (200, 206):
                    raise PermanentSourceError(
                        f"A record's file is refused with {answer.status}: its address may be old; run again."
                    )
                if answer.headers.get("Content-Type", "").startswith("text/html"):
                    raise PermanentSourceError(
                        "A record's address leads to a page, not to a file: it may be old; run again."
                    )
                return self._write(answer, fs, part, have if answer.status == 206 else 0, size)
        raise PermanentSourceError("A record's file is redirected too often.")

    @staticmethod
    def _write(answer: Any, fs: Any, part: str, have: int, size: int) -> str | None:
        told = int(answer.headers.get("Content-Length") or 0)
        with fs.open(part, "ab" if have else "wb") as file:
            for chunk in answer.chunks:
                file.write(chunk)
        got, wanted = _size(fs, part), size or have + told
        if not wanted or got == wanted:
            return None
        if told and got == have + told:  # nothing broke off: asking again would give the same
            fs.rm(part)
            raise TransientSourceError(
                f"A record's file has {got:,} bytes, and MTS Link says {wanted:,}: it may just be made anew."
            )
        return f"{got:,} of {wanted:,} bytes"


def _target(url: str, location: str) -> str:
    """Where a redirect leads. Raises PermanentSourceError for what is no web address."""
    found = urljoin(url, location)
    if not location or urlsplit(found).scheme not in ("http", "https"):
        raise PermanentSourceError("A record's file is redirected to what is no web address.")
    register_secret(found)
    return found


def _begins_at(answer: Any) -> int:
    """The first byte of a partial answer; -1 if it does not say."""
    said = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(said[1]) if said else -1


def _size(fs: Any, path: str) -> int:
    return int(fs.size(path)) if fs.exists(path) else 0


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()
