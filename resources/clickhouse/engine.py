"""Connections: a ClickHouse server over HTTP(S), or the embedded engine, behind one `session()`.

`CLICKHOUSE_URL` chooses: `http[s]://user:password@host:port/database` or `chdb:///absolute/path`.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.httpclient import HttpClient
from filelock import FileLock, Timeout

from resources.clickhouse.errors import WarehouseError, explain
from resources.http import register_secret

LINGER_S = 0.6  # inserts that follow each other at once are one use of an engine
REST_S = 60.0  # an engine that nobody uses gives its memory back
LOOK_S = 0.1
LOCK_TIMEOUT_S = 900
MADV_DONTNEED = 4


class Server:
    """A ClickHouse server; one client with its own connection pool, shared by all threads of the process."""

    embedded = False
    blank = False

    def warm_up(self) -> None:
        """Nothing: a connection is quick."""

    def __init__(self, url: str, ca_bundle: str | None) -> None:
        self._url = urlsplit(url)
        self._ca_bundle = ca_bundle
        self._client: Client | None = None
        self._mutex = threading.Lock()
        if self._url.password:
            register_secret(unquote(self._url.password))

    @contextmanager
    def session(self) -> Iterator[Client]:
        with self._mutex:
            if self._client is None:
                self._client = self._connect()
        yield self._client

    def _connect(self) -> Client:
        secure = self._url.scheme == "https"
        if self._ca_bundle and not Path(self._ca_bundle).is_file():
            raise WarehouseError(f"CLICKHOUSE_CA_BUNDLE: there is no file {self._ca_bundle}")
        try:
            client = clickhouse_connect.get_client(
                host=self._url.hostname or "localhost",
                port=self._url.port or (8443 if secure else 8123),
                username=unquote(self._url.username or "default"),
                password=unquote(self._url.password or ""),
                database=self._url.path.strip("/") or "default",
                interface="https" if secure else "http",
                ca_cert=self._ca_bundle if secure else None,
                autogenerate_session_id=False,
                client_name="svod",
                send_receive_timeout=600,
            )
        except Exception as error:
            raise explain(error, f"connecting to {self._url.hostname}") from None
        if isinstance(client, HttpClient):
            client.http_retries = (
                0  # the transport would send the rest of a body again, as if it were the whole
            )
        return client


class Embedded:
    """ClickHouse inside this process, in one directory.

    The engine admits one process a directory, so an inter-process lock is held from opening to closing. When
    another process waits for it, it is closed as soon as nobody here writes or reads for `LINGER_S`: a load
    that waits for its source leaves the warehouse to others. Otherwise it stays open, for chdb 26 leaves some
    threads, and three open files of each, behind whenever it is closed.
    """

    embedded = True

    @property
    def blank(self) -> bool:
        """Nothing was ever written here: known without opening the engine, which takes most of a second."""
        return not Path(self._path).exists()

    _by_path: ClassVar[dict[str, Embedded]] = {}
    _registry: ClassVar[threading.Lock] = threading.Lock()
    _trimmed: ClassVar[bool] = False

    @classmethod
    def at(cls, path: str) -> Embedded:
        """The engine of a directory.

        The same object for the whole process, since chdb is process-wide too.
        """
        resolved = str(Path(path).resolve())
        with cls._registry:
            return cls._by_path.setdefault(resolved, cls(resolved))

    def __init__(self, path: str) -> None:
        self._path = path
        self._mutex = threading.RLock()
        self._depth = 0
        self._client: Client | None = None
        self._lock = FileLock(f"{path}.lock", thread_local=False)
        self._used_at = 0.0
        self._closed = threading.Event()

    def warm_up(self) -> None:
        """Load and open the engine in the background: the first time takes most of a second."""
        if self._client is None:
            threading.Thread(target=self._try, name="warehouse-warm-up", daemon=True).start()

    def _try(self) -> None:
        with suppress(WarehouseError), self.session():
            pass

    @contextmanager
    def session(self) -> Iterator[Client]:
        with self._mutex:
            client = self._client or self._open()
            self._depth += 1
            try:
                yield client
            finally:
                self._depth -= 1
                self._used_at = time.monotonic()

    def _open(self) -> Client:
        for other in list(self._by_path.values()):
            if other is not self:
                other.close()
        try:
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
        except Timeout:
            raise WarehouseError(
                f"The embedded warehouse {self._path} has been in use by another process for {LOCK_TIMEOUT_S} s. "
                "Wait for the other run, or use a ClickHouse server (CLICKHOUSE_URL=https://…) for parallel work."
            ) from None
        except OSError as error:
            raise explain(error, f"opening the embedded warehouse {self._path}") from None
        _hold_little_memory()
        try:
            self._client = clickhouse_connect.get_client(interface="chdb", path=self._path)
        except Exception as error:
            self._lock.release()
            raise explain(error, f"opening the embedded warehouse {self._path}") from None
        if not Embedded._trimmed:
            Embedded._trimmed = True
            _forget_start_up_code()
        self._used_at, self._closed = time.monotonic(), threading.Event()
        threading.Thread(
            target=self._watch, args=(self._closed,), name="warehouse-watch", daemon=True
        ).start()
        return self._client

    def _acquire(self) -> None:
        """Get the lock; whoever holds it can see that somebody waits. Raises Timeout or OSError."""
        with suppress(Timeout):
            self._lock.acquire(timeout=0)
            return
        with open(self._wanted_path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # released when the file is closed, or its process killed
            self._lock.acquire(timeout=LOCK_TIMEOUT_S)

    @property
    def _wanted_path(self) -> str:
        return f"{self._path}.wanted"

    def _is_wanted(self) -> bool:
        try:
            with open(self._wanted_path, "a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # somebody holds it, or the folder is gone
            return True
        return False

    def _watch(self, closed: threading.Event) -> None:
        """Close the engine when it rests and another process wants it, or when it rests for long."""
        while not closed.wait(LOOK_S):
            if not self._mutex.acquire(blocking=False):
                continue
            try:
                rest = time.monotonic() - self._used_at
                if not closed.is_set() and rest >= LINGER_S and (rest >= REST_S or self._is_wanted()):
                    self.close()
            finally:
                self._mutex.release()

    def close(self) -> None:
        """Close the engine if nobody uses it; it opens again by itself."""
        with self._mutex:
            if self._depth or self._client is None:
                return
            client, self._client = self._client, None
            self._closed.set()
            try:
                client.close()
            finally:
                self._lock.release()


def _hold_little_memory() -> None:
    """Let glibc give back the pages of answers and inserts at once (mallopt: M_MMAP_THRESHOLD,
    M_ARENA_MAX)."""
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 128 * 1024)
        libc.mallopt(-8, 2)


def _forget_start_up_code() -> None:
    """Unmap the pages of the engine's code that only its start needed: 190 MB, the larger part of it.

    They are clean pages of a file, and those that are needed come back from the system's cache.
    """
    with suppress(OSError, AttributeError):  # another system
        advise = ctypes.CDLL("libc.so.6").madvise
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, permissions, *_, name = line.split()
            if permissions.startswith("r-x") and "/_chdb." in name:
                start, end = (int(edge, 16) for edge in span.split("-"))
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)


def engine_for(url: str, ca_bundle: str | None) -> Server | Embedded:
    """The engine that CLICKHOUSE_URL names.

    Raises WarehouseError, naming the variable, for a URL of another form.
    """
    scheme = urlsplit(url).scheme
    if scheme == "chdb":
        path = url.removeprefix("chdb://")
        if not path.startswith("/"):
            raise WarehouseError(
                "CLICKHOUSE_URL: chdb needs an absolute path, as in chdb:///var/lib/svod/warehouse"
            )
        return Embedded.at(path)
    if scheme in ("http", "https") and _has_address(url):
        return Server(url, ca_bundle)
    raise WarehouseError(
        "CLICKHOUSE_URL must be http[s]://user:password@host:port/database or chdb:///absolute/path; "
        f"it has the scheme {scheme or '(none)'!r}"
    )


def _has_address(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # the port is no number
        return False


@atexit.register
def _close_engines() -> None:
    for engine in list(Embedded._by_path.values()):
        engine.close()
