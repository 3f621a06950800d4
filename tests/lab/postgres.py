"""A throw-away PostgreSQL server for tests and benches: started once per process, gone with it.

    url = server().fresh_database()                  # an empty database, some 30 ms
    server().template("migrated", build)             # build(url) once; then
    url = server().fresh_database("migrated")        # a copy of what build made

The server listens on a Unix socket only, in a temporary folder that disappears when it stops. It runs under an
unprivileged account where we are root (PostgreSQL refuses root). A shell between us and the server holds a pipe to
us: when this process ends, however it ends, the pipe closes and the server is stopped and its folder removed.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

_SCRIPT = """
"$1/postgres" -D "$2/data" </dev/null >"$2/log" 2>&1 &
server=$!
read -r _
kill -INT "$server"
wait "$server"
rm -rf "$2"
"""
_SETTINGS = {
    "listen_addresses": "''",
    "max_connections": "200",
    "shared_buffers": "'256MB'",
    "max_wal_size": "'2GB'",
    "autovacuum_naptime": "'10s'",
    "log_min_messages": "'warning'",
}
#: Nothing of a test survives a power cut, so nothing has to.
_QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_INITDB = ("-U", "heroes", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
_servers: dict[bool, PostgresServer] = {}
_lock = threading.Lock()


class PostgresServer:
    """A running server. `durable`: with the durability of a production server, as benches want it."""

    def __init__(self, durable: bool) -> None:
        self.programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="heroes-pg-", dir="/tmp" if durable else quick_folder()))
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._account = _account()
        self._initialise(durable)
        self._shell = self._start()
        self._admin = self._connect()

    def url_for(self, database: str) -> str:
        """The address of `database` for SQLAlchemy with psycopg 3."""
        return f"postgresql+psycopg://heroes@/{database}?host={self.folder}&port=5432"

    def template(self, name: str, build: Callable[[str], None]) -> None:
        """Make a database `name` once and let `build(url)` fill it; it must close its connections."""
        with self._lock:
            if name not in self._templates:
                self._run(f'CREATE DATABASE "{name}"')
                build(self.url_for(name))
                self._templates.add(name)

    def fresh_database(self, template: str = "template0") -> str:
        """The address of a new database, a copy of `template`. Nobody may be connected to the template."""
        name = f"t{next(self._numbers)}"
        with self._lock:
            self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_for(name)

    def drop(self, url: str) -> None:
        """Remove the database at `url`; whoever is still connected to it is cut off."""
        name = url.split("/@", 1)[-1].split("@/", 1)[-1].split("?", 1)[0]
        with self._lock:
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def stop(self) -> None:
        """Stop the server (open transactions are rolled back) and remove its folder. Idempotent. A process that was
        forked from its owner leaves it alone."""
        if os.getpid() != self._owner:
            return
        assert self._shell.stdin is not None
        self._admin.close()
        self._shell.stdin.close()
        self._shell.wait(timeout=60)

    def _run(self, statement: str) -> None:
        self._admin.execute(statement)

    def _initialise(self, durable: bool) -> None:
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        done = subprocess.run(
            [self.programs / "initdb", "-D", self.folder / "data", *_INITDB],
            capture_output=True,
            text=True,
            cwd="/",
            **self._as_account(),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")
        settings = _SETTINGS | {"unix_socket_directories": f"'{self.folder}'"} | ({} if durable else _QUICK)
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sh", "-c", _SCRIPT, "sh", self.programs, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **self._as_account(),
        )

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        deadline = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(host=str(self.folder), user="heroes", dbname="postgres", autocommit=True)
            except psycopg.OperationalError as error:
                if self._shell.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}") from error
                time.sleep(0.02)

    def _as_account(self) -> dict[str, object]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}


def server(durable: bool = False) -> PostgresServer:
    """The server of this process, started at the first call and stopped when the process ends."""
    with _lock:
        if durable not in _servers:
            _servers[durable] = PostgresServer(durable)
            atexit.register(_servers[durable].stop)
        return _servers[durable]


def fresh_database(template: str = "template0") -> str:
    """The address of a new database on the server of this process."""
    return server().fresh_database(template)


def programs() -> Path:
    """The folder of PostgreSQL's programs; installs Debian's package, and says so, where there are none."""
    found = _find()
    if found is None:
        print("tests: installing Debian's package postgresql (apt-get)", file=sys.stderr, flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"], env=environment, check=True
        )
        found = _find()
    if found is None:
        raise RuntimeError("PostgreSQL is not installed: initdb is neither on PATH nor below /usr/lib/postgresql")
    return found


def quick_folder() -> str:
    """In memory where there is room: copying a database makes 300 files, slow on a disk that others sync."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30 else "/tmp"


def _find() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4].split(".")[0]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _account() -> pwd.struct_passwd | None:
    """The account to run under: ours (None) unless we are root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
