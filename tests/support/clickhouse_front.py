"""A ClickHouse HTTP(S) server for tests: the embedded engine behind ClickHouse's own HTTP interface.

    with clickhouse_front(tmp_path / "engine", users={"loader": "pw"}, tls=private_ca(tmp_path)) as server:
        client = clickhouse_connect.get_client(dsn=server.url("loader"), secure=True, ca_cert=server.ca_file)
        server.faults.cut_reply()  # the next INSERT is done, and its client never hears of it

The engine is one to a process, so it lives in a subprocess: this same file run as a script. The parent tells
it what to do over its standard input, one JSON object a line, and gets one line back; when that input ends,
the server ends too. What it speaks follows https://clickhouse.com/docs/interfaces/http and, for statuses,
ClickHouse's `src/Server/HTTP/exceptionCodeToHTTPStatus.cpp`.

As a real server, unlike the engine alone: several statements in one request are refused (code 62), a GET
cannot write (164), two requests of one session at once are refused (373). Unlike a real server: sessions keep
nothing between requests, results are built in memory before they are sent, and there is no `ON CLUSTER`, no
external data and no SQL user.
"""

import base64
import binascii
import gzip
import hmac
import json
import math
import os
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email import message_from_bytes
from email.policy import HTTP as HTTP_POLICY
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from tests.support.certificates import Certificates

ANY = ""
INSERT = r"^\s*INSERT\b"

START_S = 60.0
ANSWER_S = 30.0
IDLE_S = 60.0
LONGEST_DELAY_S = 120.0
LONGEST_WAIT_S = 20.0
BODY_LIMIT = 512 * 1024 * 1024
PIECE = 64 * 1024
HEAD = 4096
LOG_LIMIT = 2000


# --------------------------------------------------------------------------------------- the side of the test


@dataclass(frozen=True)
class Request:
    """What the server saw of one request; passwords are never kept.

    `statement` is its first 4096 characters without the data of an INSERT, `settings` what the URL asked for
    beside the transport's own parameters, `received` the bytes of the body as they came, `status` the HTTP
    one or 0 if the connection was cut, `code` ClickHouse's error code or 0.
    """

    method: str
    user: str
    database: str
    statement: str
    settings: dict[str, str]
    encoding: str
    chunked: bool
    received: int
    status: int
    code: int


class Faults:
    """Arms faults; each hits the next `times` requests whose statement matches the expression `match`.

    `times=None` means every one until `clear()`. Faults armed earlier are used up first. The pings of a
    client carry no statement and are never hit; `ClickHouseFront.kill()` is for a server that is not there.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], Any]) -> None:
        self._tell = tell

    def cut_insert(self, after_bytes: int = 0, *, times: int | None = 1, match: str = INSERT) -> None:
        """Drop the connection once `after_bytes` of the body have come; nothing is inserted.

        A body that is shorter is read whole, dropped and not executed. Decided every 64 KiB. A client may
        send the statement again by itself: `times=None` is for one that must not succeed.
        """
        self._arm("cut_body", times, match, after_bytes=after_bytes)

    def cut_reply(self, *, times: int | None = 1, match: str = INSERT) -> None:
        """Execute, then drop the connection without an answer: the client cannot know."""
        self._arm("cut_reply", times, match)

    def answer(
        self, status: int, body: str = "", *, times: int | None = 1, match: str = ANY, executed: bool = False
    ) -> None:
        """Answer like a gateway: `status`, no ClickHouse code, before or after the statement is done."""
        self._arm("answer", times, match, status=status, body=body or f"status {status}\n", executed=executed)

    def error(self, code: int, name: str, message: str, *, times: int | None = 1, match: str = ANY) -> None:
        """Answer with the ClickHouse error `code`, nothing executed."""
        self._arm("error", times, match, code=code, name=name, message=message)

    def disk_full(self, *, times: int | None = None, match: str = INSERT) -> None:
        """What an INSERT gets when no volume has room for the part."""
        text = "Cannot reserve 1.00 MiB, not enough space"
        self.error(243, "NOT_ENOUGH_SPACE", text, times=times, match=match)

    def read_only(
        self, *, times: int | None = None, match: str = r"^\s*(INSERT|CREATE|ALTER|DROP)\b"
    ) -> None:
        """What a write gets when the profile of the user, or the server, is read-only."""
        self.error(164, "READONLY", "Cannot execute query in readonly mode", times=times, match=match)

    def delay(self, seconds: float, *, times: int | None = 1, match: str = ANY) -> None:
        """Hold the request that long, then execute it though the client be gone; `clear()` lets it go on."""
        self._arm("delay", times, match, seconds=min(seconds, LONGEST_DELAY_S))

    def spent(self, seconds: float = 0) -> bool:
        """Whether nothing is armed any more, waiting that long (20 s at most) for the last fault to hit."""
        return self._tell({"do": "spent", "seconds": min(seconds, LONGEST_WAIT_S)})["spent"]

    def clear(self) -> None:
        """Disarm everything and release what is delayed."""
        self._tell({"do": "clear"})

    def _arm(self, kind: str, times: int | None, match: str, **details: Any) -> None:
        re.compile(match)
        self._tell({"do": "arm", "fault": {"kind": kind, "times": times, "match": match, **details}})


class ClickHouseFront:
    """A running server. Thread-safe; one process may run several, each with its own directory."""

    host = "127.0.0.1"

    def __init__(
        self,
        path: Path,
        users: Mapping[str, str],
        tls: "Certificates | None",
        readonly_users: Iterable[str],
    ) -> None:
        self.port = 0
        self.users = dict(users)
        self.ca_file = str(tls.ca_file) if tls else None
        self.faults = Faults(self._tell)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "path": str(path),
            "users": self.users,
            "readonly_users": sorted(readonly_users),
            "chain": str(tls.server_chain) if tls else None,
            "key": str(tls.server_key) if tls else None,
        }

    @property
    def secure(self) -> bool:
        return self.ca_file is not None

    def url(self, user: str, database: str = "default", password: str | None = None) -> str:
        """`http[s]://user:password@127.0.0.1:port/database`; another `password` is for a wrong one."""
        secret = self.users[user] if password is None else password
        scheme = "https" if self.secure else "http"
        return (
            f"{scheme}://{quote(user, '')}:{quote(secret, '')}@{self.host}:{self.port}/{quote(database, '')}"
        )

    def start(self) -> None:
        """Start, or start again after `kill()` or `stop()`: same port, same data.

        Raises RuntimeError if the server does not answer within a minute.
        """
        if self._process is not None:
            raise RuntimeError("the server runs already")
        command = [sys.executable, "-P", __file__]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        try:
            self.port = self._tell({**self._settings, "port": self.port}, START_S)["port"]
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Close the engine properly; requests under way are lost. Harmless if it has ended already."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)

    def kill(self) -> None:
        """End it as a lost machine does, with SIGKILL; `start()` brings it back."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        _close(process)

    def requests(self) -> list[Request]:
        """The last 2000 requests that carried a statement, oldest first, in the order in which they ended."""
        return [Request(**seen) for seen in self._tell({"do": "requests"})["requests"]]

    def forget_requests(self) -> None:
        """Empty what `requests()` gives."""
        self._tell({"do": "forget"})

    def _tell(self, order: dict[str, Any], seconds: float = ANSWER_S) -> dict[str, Any]:
        with self._lock:
            process = self._process
            if process is None:
                raise RuntimeError("the server does not run")
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], seconds)[0]:
                raise RuntimeError("the server does not answer")
            line = process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended by itself")
        return json.loads(line)


@contextmanager
def clickhouse_front(
    path: str | Path,
    users: Mapping[str, str],
    tls: "Certificates | None" = None,
    readonly_users: Iterable[str] = (),
) -> Iterator[ClickHouseFront]:
    """Serve the engine directory `path` on a free loopback port until the block ends.

    `users` are names and passwords. Those in `readonly_users` have a profile with `readonly = 1`: no writes
    and no settings of their own. With `tls` the port speaks only HTTPS, with the certificate that this
    authority issued.
    """
    server = ClickHouseFront(Path(path), users, tls, readonly_users)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


# -------------------------------------------------------------------------------------------------------- SQL

TOKEN = re.compile(
    rb"""(?P<blank>\s+|--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)
        |(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)
        |(?P<word>[A-Za-z_]\w*)
        |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
LAST_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^();]*)?;?\s*$", re.IGNORECASE)
DATA_START = re.compile(rb"[ \t\f]*\r?\n?")
RESULT_STATEMENTS = {"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"}


@dataclass(frozen=True)
class Statement:
    """One request's SQL, told apart from the data that follows an `INSERT ... FORMAT`.

    `text` ends before the FORMAT clause if there is `data`; `input_at` is where the arguments of a table
    function `input(` begin in it; `format` is the one that the statement names.
    """

    kind: str
    text: bytes
    format: str | None = None
    data: bytes | None = None
    input_at: int | None = None
    several: bool = False


@dataclass
class _Scan:
    """Where a left-to-right reading of a statement stands."""

    depth: int = 0
    kind: str = ""
    previous: tuple[str, int] = ("", 0)
    ended: bool = False
    input_at: int | None = None


def parse(sql: bytes) -> Statement:
    """Read only as much of `sql` as tells its kind; the data of an INSERT is not looked at."""
    scan = _Scan()
    for token in TOKEN.finditer(sql):
        if token.lastgroup == "blank":
            continue
        if scan.ended:
            return Statement(scan.kind, sql, several=True)
        word = token.group().decode("utf-8", "replace").upper()
        before, at = scan.previous
        if token.lastgroup == "sign":
            scan.depth += {"(": 1, ")": -1}.get(word, 0)
            scan.ended = word == ";"
            if word == "(" and before == "INPUT":
                scan.input_at = token.end()
        elif token.lastgroup == "word":
            scan.kind = scan.kind or word
            if scan.kind == "INSERT" and scan.depth == 0:
                if before == "FORMAT":
                    return _with_data(sql, scan, at, token)
                if word == "VALUES":
                    return Statement("INSERT", sql)
        scan.previous = word, token.start()
    named = LAST_FORMAT.search(sql)
    return Statement(scan.kind, sql, named.group(1).decode() if named else None)


def _with_data(sql: bytes, scan: _Scan, text_end: int, format_name: re.Match[bytes]) -> Statement:
    gap = DATA_START.match(sql, format_name.end())
    data = sql[gap.end() if gap else len(sql) :]
    return Statement("INSERT", sql[:text_end], format_name.group().decode(), data, scan.input_at)


def literal(value: str) -> str:
    """`value` as a ClickHouse string literal; the engine turns it into whatever type a setting has."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """`name` quoted with backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


# ------------------------------------------------------------------------------------- the side of the server

CODES_OF_STATUS = {
    400: (
        6,
        8,
        15,
        25,
        26,
        27,
        36,
        37,
        38,
        41,
        44,
        53,
        62,
        72,
        117,
        123,
        167,
        168,
        223,
        321,
        376,
        427,
        441,
        675,
        676,
    ),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    413: (229,),
    501: (48,),
    503: (76, 209, 439),
}
STATUS_OF_CODE = {code: status for status, codes in CODES_OF_STATUS.items() for code in codes}
OWN_PARAMETERS = {
    "buffer_size",
    "client_protocol_version",
    "compress",
    "database",
    "decompress",
    "default_format",
    "enable_http_compression",
    "http_headers_progress_interval_ms",
    "password",
    "query",
    "query_id",
    "quota_key",
    "role",
    "send_progress_in_http_headers",
    "session_check",
    "session_id",
    "session_timeout",
    "user",
    "wait_end_of_query",
}
SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ERROR = re.compile(
    r"Code: (?P<code>\d+)\. DB::Exception: (?P<message>.*?)\.? "
    r"\((?P<name>[A-Z0-9_]+)\)(?: \(version [^)]*\))?\s*$",
    re.DOTALL,
)

INFLATERS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: zlib.decompressobj(31),
    "deflate": zlib.decompressobj,
}
DEFLATERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": zstd.compress,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": zlib.compress,
}


class EngineError(Exception):
    """What a client is told: a ClickHouse error code with its text."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}. ({name})")
        self.code = code

    @classmethod
    def understood(cls, error: RuntimeError) -> "EngineError":
        """The error in what the engine raises: a prefix of chdb's own, the text and, at times, a version."""
        found = ERROR.search(str(error))
        return (
            cls(int(found["code"]), found["name"], found["message"])
            if found
            else cls(1001, "STD_EXCEPTION", str(error))
        )


class ConnectionCutError(Exception):
    """The client gets no more answer."""


@dataclass(frozen=True)
class Answer:
    """One HTTP response before it is compressed."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    code: int = 0


@dataclass
class Asked:
    """One request, understood: what is to be executed, for whom and how."""

    method: str
    parameters: dict[str, str]
    user: str = ""
    database: str = ""
    sql: bytes = b""
    default_format: str = "TabSeparated"

    @property
    def settings(self) -> dict[str, str]:
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in OWN_PARAMETERS and not name.startswith("param_")
        }

    @property
    def bound(self) -> dict[str, str]:
        return {name: value for name, value in self.parameters.items() if name.startswith("param_")}


def inflate(encoding: str, data: bytes, *, partial: bool = False) -> bytes:
    """Undo a Content-Encoding of one or many frames; `partial` gives what a cut stream holds so far.

    Raises EngineError for an encoding that is not served or data that is not in it.
    """
    if not encoding or encoding == "identity":
        return data
    if encoding not in INFLATERS:
        if partial:
            return b""
        raise EngineError(48, "NOT_IMPLEMENTED", f"Unknown compression method: {encoding}")
    parts: list[bytes] = []
    try:
        while data:
            frame = INFLATERS[encoding]()
            parts.append(frame.decompress(data))
            if not frame.eof and not partial:
                raise EngineError(33, "CANNOT_READ_ALL_DATA", f"The {encoding} body ends too early")
            data = frame.unused_data or b""
    except (RuntimeError, zlib.error, zstd.ZstdError) as error:
        if not partial:
            raise EngineError(354, "ZLIB_INFLATE_FAILED", f"{encoding}: {error}") from None
    return b"".join(parts)


class Engine:
    """The embedded ClickHouse of this process; each request has a handle, as it has a context in a server."""

    def __init__(self, path: str) -> None:
        import chdb  # the parent imports this module too and must stay free of the engine

        self._connect = lambda: chdb.connect(path)
        self._keeper = self._connect()
        row = self._keeper.query("SELECT version(), timezone(), hostName()", "TabSeparated").bytes().decode()
        self.version, self.timezone, self.name = row.rstrip("\n").split("\t")

    def close(self) -> None:
        self._keeper.close()

    def run(self, asked: Asked, readonly: bool) -> Answer:
        """Execute one statement. Raises EngineError with the engine's own code and text."""
        statement = parse(asked.sql)
        if not statement.kind:
            raise EngineError(
                62, "SYNTAX_ERROR", "Syntax error: failed at position 1 (end of query): Empty query"
            )
        if statement.several:
            raise EngineError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        handle = self._connect()
        try:
            self._prepare(handle, asked, readonly)
            if statement.data is None:
                return self._query(handle, statement, asked.default_format)
            if statement.input_at is not None:
                return self._insert_select(handle, statement)
            return self._insert(handle, statement, statement.data)
        except RuntimeError as error:  # all that the engine raises
            raise EngineError.understood(error) from None
        finally:
            handle.close()

    def _prepare(self, handle: Any, asked: Asked, readonly: bool) -> None:
        if asked.database:
            handle.query(f"USE {identifier(asked.database)}")
        for name, value in asked.bound.items():
            handle.query(f"SET {_checked(name)} = {literal(value)}")
        if readonly:
            handle.query("SET readonly = 1")
        for name, value in asked.settings.items():
            handle.query(f"SET {_checked(name)} = {literal(value)}")
        if asked.method != "POST" and not readonly:
            handle.query("SET readonly = 2")

    def _query(self, handle: Any, statement: Statement, default_format: str) -> Answer:
        result = handle.query(statement.text, default_format)
        read = {"read_rows": result.rows_read(), "read_bytes": result.bytes_read()}
        headers = {"X-ClickHouse-Summary": _summary(result.elapsed(), read)}
        if statement.kind in RESULT_STATEMENTS:
            headers["X-ClickHouse-Format"] = statement.format or default_format
        return Answer(200, result.bytes() or b"", headers)

    def _insert(self, handle: Any, statement: Statement, data: bytes) -> Answer:
        with handle.send_insert(statement.text.decode(), statement.format) as stream:
            if data:
                stream.append(data)
            result = stream.finish()
        written = {"written_rows": result.rows_written, "written_bytes": result.bytes_written}
        return Answer(200, b"", {"X-ClickHouse-Summary": _summary(result.elapsed, written)})

    def _insert_select(self, handle: Any, statement: Statement) -> Answer:
        """`INSERT ... SELECT ... FROM input('structure')`: a file stands in for the input that chdb lacks."""
        at = statement.input_at or 0
        start = re.sub(rb"\w+\s*\($", b"", statement.text[:at])
        with tempfile.NamedTemporaryFile() as data:
            data.write(statement.data or b"")
            data.flush()
            source = f"file({literal(data.name)}, {literal(statement.format or '')}, ".encode()
            result = handle.query(start + source + statement.text[at:], "TabSeparated")
        written = {"written_rows": result.storage_rows_read(), "written_bytes": result.storage_bytes_read()}
        return Answer(200, b"", {"X-ClickHouse-Summary": _summary(result.elapsed(), written)})


def _checked(name: str) -> str:
    if not SETTING_NAME.fullmatch(name):
        raise EngineError(115, "UNKNOWN_SETTING", f"Unknown setting {literal(name)}")
    return name


def _summary(seconds: float, counts: Mapping[str, int]) -> str:
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read", "result_rows")
    values = {name: str(counts.get(name, 0)) for name in names}
    return json.dumps({**values, "elapsed_ns": str(int(seconds * 1e9))})


class ArmedFaults:
    """The faults of the running server, shared by its threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._armed: list[dict[str, Any]] = []
        self._released = threading.Event()

    def arm(self, fault: dict[str, Any]) -> None:
        with self._changed:
            self._armed.append({**fault, "released": self._released})

    def clear(self) -> None:
        with self._changed:
            self._armed.clear()
            self._released.set()
            self._released = threading.Event()

    def spent(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._armed, seconds)

    def take(self, kind: str, statement: str) -> dict[str, Any] | None:
        """The first armed fault of that kind that the statement matches, used up by one."""
        with self._changed:
            for fault in self._armed:
                if fault["kind"] == kind and re.search(fault["match"], statement, re.IGNORECASE):
                    if fault["times"] is not None:
                        fault["times"] -= 1
                        if fault["times"] <= 0:
                            self._armed.remove(fault)
                            self._changed.notify_all()
                    return fault
        return None

    def cut_after(self) -> float:
        """Bytes of a body after which somebody may want it cut; infinite if nobody does."""
        with self._changed:
            return min((f["after_bytes"] for f in self._armed if f["kind"] == "cut_body"), default=math.inf)


class Front(ThreadingHTTPServer):
    """The listening socket with what all its requests share."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings: dict[str, Any]) -> None:
        self.engine = Engine(settings["path"])
        self.users: dict[str, str] = settings["users"]
        self.readonly_users = set(settings["readonly_users"])
        self.faults = ArmedFaults()
        self.seen: deque[Request] = deque(maxlen=LOG_LIMIT)
        self.sessions: set[str] = set()
        self.sessions_lock = threading.Lock()
        self.tls: ssl.SSLContext | None = None
        if settings["chain"]:
            self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self.tls.load_cert_chain(settings["chain"], settings["key"])
        super().__init__(("127.0.0.1", settings["port"]), Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:
            # the handshake is left to the thread of the connection: here it would hold up all others
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up or refuses the certificate is what tests are made of."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    @contextmanager
    def session(self, name: str) -> Iterator[None]:
        """Hold the session `name`, if it is one, for the block. Raises EngineError if a request is in it."""
        with self.sessions_lock:
            if name and name in self.sessions:
                raise EngineError(
                    373, "SESSION_IS_LOCKED", f"Session {name} is locked by a concurrent client"
                )
            self.sessions.add(name)
        try:
            yield
        finally:
            with self.sessions_lock:
                self.sessions.discard(name)


class Handler(BaseHTTPRequestHandler):
    """One connection: reads a request, has it executed, answers, waits for the next."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    wbufsize = -1  # headers and body in one packet: two of them would wait for each other's acknowledgement
    server: Front  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: request lines carry credentials."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        address = urlsplit(self.path)
        asked = Asked(self.command, dict(parse_qsl(address.query, keep_blank_values=True)))
        received = bytearray()
        answer = Answer(0)
        try:
            if address.path == "/ping" or (self.command == "GET" and "query" not in asked.parameters):
                self._reply(Answer(200, b"Ok.\n"), asked)
                return
            try:
                self._understand(asked, received)
                answer = self._execute(asked)
            except EngineError as error:
                answer = self._refusal(error)
            if self.server.faults.take("cut_reply", _head(asked.sql)):
                raise ConnectionCutError
        except ConnectionCutError:
            answer = Answer(0)
            self._cut()
        self._remember(asked, len(received), answer)
        if answer.status:
            self._reply(answer, asked)

    def _understand(self, asked: Asked, received: bytearray) -> None:
        """Read the body and fill in what is asked, who asks and where."""
        encoding = self.headers.get("Content-Encoding", "")
        query = asked.parameters.get("query", "").encode()
        self._read_body(received, lambda: _joined(query, inflate(encoding, bytes(received), partial=True)))
        if "1" in (asked.parameters.get("compress"), asked.parameters.get("decompress")):
            raise EngineError(
                48, "NOT_IMPLEMENTED", "Compression by blocks is not served, use Content-Encoding"
            )
        content = inflate(encoding, bytes(received))
        if self.headers.get_content_type() == "multipart/form-data":
            asked.parameters.update(self._form(content))
            content, query = b"", asked.parameters.get("query", "").encode()
        asked.sql = _joined(query, content)
        asked.user, password = self._credentials(asked.parameters)
        known = self.server.users.get(asked.user)
        if known is None or not hmac.compare_digest(known.encode(), password.encode()):
            reason = "Authentication failed: password is incorrect, or there is no user with such name"
            raise EngineError(516, "AUTHENTICATION_FAILED", f"{asked.user}: {reason}")
        asked.database = asked.parameters.get("database") or self.headers.get("X-ClickHouse-Database", "")
        wanted = self.headers.get("X-ClickHouse-Format") or asked.parameters.get("default_format")
        asked.default_format = wanted or asked.default_format

    def _read_body(self, received: bytearray, statement: Callable[[], bytes]) -> None:
        decided = False
        for piece in self._pieces():
            received += piece
            if len(received) > BODY_LIMIT:
                raise ConnectionCutError
            if not decided and len(received) >= self.server.faults.cut_after():
                head = _head(statement())
                decided = bool(head)
                self._maybe_cut(head)
        if not decided and self.server.faults.cut_after() < math.inf:
            self._maybe_cut(_head(statement()))

    def _maybe_cut(self, head: str) -> None:
        if head and self.server.faults.take("cut_body", head):
            raise ConnectionCutError

    def _pieces(self) -> Iterator[bytes]:
        """The body as it comes, at most 64 KiB at a time, chunked or with a length."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._exactly(int(self.headers.get("Content-Length", "0")))
            return
        while size := int(self.rfile.readline(PIECE).split(b";")[0], 16):
            yield from self._exactly(size)
            self.rfile.readline(3)
        while self.rfile.readline(PIECE).strip():
            continue

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, PIECE))
            if not piece:
                raise ConnectionCutError
            size -= len(piece)
            yield piece

    def _form(self, content: bytes) -> dict[str, str]:
        """Fields of a form: the query and its bound parameters, when those are long."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields: dict[str, str] = {}
        for part in message_from_bytes(head + content, policy=HTTP_POLICY).iter_parts():
            if part.get_filename():
                raise EngineError(48, "NOT_IMPLEMENTED", "External data is not served")
            payload = part.get_payload(decode=True)
            name = part.get_param("name", header="Content-Disposition")
            fields[str(name)] = payload.decode() if isinstance(payload, bytes) else ""
        return fields

    def _credentials(self, parameters: dict[str, str]) -> tuple[str, str]:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                user, _, password = base64.b64decode(token).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise EngineError(516, "AUTHENTICATION_FAILED", "Invalid HTTP credentials") from None
            return user, password
        if user := self.headers.get("X-ClickHouse-User"):
            return user, self.headers.get("X-ClickHouse-Key", "")
        return parameters.get("user", "default"), parameters.get("password", "")

    def _execute(self, asked: Asked) -> Answer:
        faults, head = self.server.faults, _head(asked.sql)
        with self.server.session(asked.parameters.get("session_id", "")):
            if fault := faults.take("delay", head):
                fault["released"].wait(fault["seconds"])
            if fault := faults.take("error", head):
                raise EngineError(fault["code"], fault["name"], fault["message"])
            gateway = faults.take("answer", head)
            if gateway and not gateway["executed"]:
                return Answer(gateway["status"], gateway["body"].encode())
            answer = self.server.engine.run(asked, asked.user in self.server.readonly_users)
        return Answer(gateway["status"], gateway["body"].encode()) if gateway else answer

    def _refusal(self, error: EngineError) -> Answer:
        text = f"{error} (version {self.server.engine.version} (official build))\n"
        headers = {"X-ClickHouse-Exception-Code": str(error.code)}
        return Answer(STATUS_OF_CODE.get(error.code, 500), text.encode(), headers, error.code)

    def _reply(self, answer: Answer, asked: Asked) -> None:
        body, headers = answer.body, dict(answer.headers)
        encoding = self._reply_encoding(asked) if answer.status == 200 and body else None
        if encoding:
            body, headers["Content-Encoding"] = DEFLATERS[encoding](body), encoding
        headers["X-ClickHouse-Query-Id"] = asked.parameters.get("query_id") or str(uuid.uuid4())
        headers["X-ClickHouse-Server-Display-Name"] = self.server.engine.name
        headers["X-ClickHouse-Timezone"] = self.server.engine.timezone
        headers.setdefault("Content-Type", "text/plain; charset=UTF-8")
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reply_encoding(self, asked: Asked) -> str | None:
        if asked.parameters.get("enable_http_compression") != "1":
            return None
        offered = [e.split(";")[0].strip() for e in self.headers.get("Accept-Encoding", "").split(",")]
        return next((e for e in offered if e in DEFLATERS), None)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # unsent is lost

    def _remember(self, asked: Asked, received: int, answer: Answer) -> None:
        seen = Request(
            method=asked.method,
            user=asked.user,
            database=asked.database,
            statement=_head(asked.sql),
            settings=asked.settings,
            encoding=self.headers.get("Content-Encoding", ""),
            chunked=self.headers.get("Transfer-Encoding", "").lower() == "chunked",
            received=received,
            status=answer.status,
            code=answer.code,
        )
        self.server.seen.append(seen)


def _joined(query: bytes, content: bytes) -> bytes:
    return query + b"\n" + content if query and content else query or content


def _head(sql: bytes) -> str:
    """What is shown and matched of a request: its statement without data; the start of a body is enough."""
    statement = parse(sql[:PIECE])
    clause = f"FORMAT {statement.format}" if statement.data is not None else ""
    return (statement.text.decode("utf-8", "replace") + clause)[:HEAD]


def _obey(front: Front, order: dict[str, Any]) -> dict[str, Any]:
    match order["do"]:
        case "arm":
            front.faults.arm(order["fault"])
        case "clear":
            front.faults.clear()
        case "spent":
            return {"spent": front.faults.spent(order["seconds"])}
        case "requests":
            return {"requests": [asdict(request) for request in list(front.seen)]}
        case "forget":
            front.seen.clear()
        case unknown:
            return {"error": f"unknown order {unknown}"}
    return {}


def serve(orders: IO[bytes], answers: IO[bytes]) -> None:
    """Run until `orders` ends. The first line holds the settings, every other one an order."""
    front = Front(json.loads(orders.readline()))
    threading.Thread(target=front.serve_forever, daemon=True).start()
    reply: dict[str, Any] = {"port": front.server_address[1]}
    while True:
        answers.write(json.dumps(reply).encode() + b"\n")
        answers.flush()
        line = orders.readline()
        if not line:
            break
        reply = _obey(front, json.loads(line))
    front.shutdown()
    front.engine.close()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as own_output:
        os.dup2(2, 1)  # whatever the engine prints must not be taken for an answer
        serve(sys.stdin.buffer, own_output)
    os._exit(0)  # threads of idle connections still stand in the engine's code
