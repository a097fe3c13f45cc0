"""A real PostgreSQL of its own for the tests, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing

__all__ = ["Postgres", "postgres"]


class Postgres:
    """A server in a temporary folder. It runs as the user ``postgres`` where the tests run as root, whom it refuses."""

    def __init__(self) -> None:
        self._bin = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="stars-guard-pg-"))
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self._data, "-U", "stars", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8", "-N")
        self._databases = 0

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -c max_connections=60"
        self._run("pg_ctl", "-D", self._data, "-o", options, "-l", str(self._folder / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def database(self) -> str:
        """The audit URL of a new, empty database."""
        self._databases += 1
        name = f"audit{self._databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "stars", name)
        return f"postgresql+psycopg://stars@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        """Stop it and take everything away."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *args: str) -> None:
        # pg_ctl leaves the server behind, which would hold a pipe open
        errors = None if program == "pg_ctl" else subprocess.PIPE
        command = [*self._as, str(self._bin / program), *args]
        done = subprocess.run(command, cwd="/", check=False, text=True, stdout=subprocess.DEVNULL, stderr=errors)
        assert done.returncode == 0, done.stderr


def _programs() -> Path:
    """Where PostgreSQL's programs are."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if debian:
        return debian[-1]
    found = shutil.which("initdb")
    if found is None:
        missing("PostgreSQL", "see make system")
    return Path(found).parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running server."""
    server = Postgres()
    server.start()
    yield server
    server.remove()
