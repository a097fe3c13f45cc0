"""Engines for SQLite and PostgreSQL, and the schema brought up to date."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stars_guard.audit._files import ELSEWHERE
from stars_guard.audit.private_files import tighten
from stars_guard.errors import AuditError, MissingExtra

__all__ = ["HEAD", "Database", "at_head", "migrate", "translated"]

HEAD = "0002"
"""The newest revision in ``migrations``."""

_BESIDE = ("-wal", "-shm", "-journal")
"""The files that SQLite makes beside a database."""

_LOCK = 0x57A85
"""Names the lock in PostgreSQL under which the schema is made."""


class Database:
    """A database as it was when it was opened.

    Where it is a file, that may be deleted or replaced while it is in use, by rotation or by a cleaning job. What is
    written then goes to a file that has no name any more, so that it is lost.

    Attributes:
        path: of the file; None where the log is no file.
    """

    def __init__(self, url: URL) -> None:
        self.engine = _make_engine(url)
        self.pool = _Pool(self.engine)
        self.path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
        self._file: tuple[int, int] | None = None
        self._ready = False
        weakref.finalize(self, self.engine.dispose)

    @property
    def is_gone(self) -> bool:
        """Whether another file, or none, is in the place of the one that is used."""
        return self._file is not None and self._file != self._identity()

    def use(self, first: Callable[[], None]) -> None:
        """Call ``first``, which makes the schema the newest, unless it is that already."""
        if not self._ready:
            first()
            self._file, self._ready = self._identity(), True

    def _identity(self) -> tuple[int, int] | None:
        if self.path is None:
            return None
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return stat.st_dev, stat.st_ino


def _make_engine(url: URL) -> Engine:
    """An engine; nothing is connected to yet.

    Raises:
        MissingExtra: the database's driver is not installed.
    """
    args: dict[str, Any] = {"check_same_thread": False, "timeout": 60}
    if url.get_backend_name() == "postgresql":
        args = {"connect_timeout": 5} if "connect_timeout" not in url.query else {}
    try:
        engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=args,
            pool_size=2,
            max_overflow=8,
            pool_pre_ping=url.get_backend_name() == "postgresql",
        )
    except ImportError as exc:
        raise MissingExtra("an audit log in PostgreSQL", "postgresql") from exc
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


class _Pool:
    """Closes an engine's connections, but none while any is in use: one that comes back later would be left open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._users = 0
        self._to_close = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """The time in which a connection is in use."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def close(self) -> None:
        """Close all connections, now or when the last of them comes back. The engine connects again when it is used."""
        with self._lock:
            self._to_close = True
            self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._to_close and not self._users:
            self._to_close = False
            self._engine.dispose()


def at_head(connection: Connection) -> bool:
    """Whether the schema is the newest."""
    if not inspect(connection).has_table("alembic_version"):
        return False
    return str(connection.scalar(text("SELECT version_num FROM alembic_version"))) == HEAD


def migrate(engine: Engine, path: Path | None) -> None:
    """Bring the schema up to date. Any number of processes may do so at once.

    Args:
        path: the file of an SQLite database; it and its folders are made for their owner only, and taken
            from others where they could read it.

    Raises:
        AuditError: the database was written by a newer version of stars-guard.
    """
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _folder_locked(path.parent):
            if not path.exists():
                # of a database that was deleted: others may still be using them
                for each in _BESIDE:
                    path.with_name(path.name + each).unlink(missing_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            for each in ("", *_BESIDE):
                # SQLite makes the files beside it with the permissions that the database has
                tighten(path.with_name(path.name + each))
            with engine.connect() as connection:
                raw = connection.connection.driver_connection
                assert raw is not None  # noqa: S101
                raw.execute("PRAGMA journal_mode=WAL").fetchone()
            _upgrade(engine)
        return
    _upgrade(engine)


def _upgrade(engine: Engine) -> None:
    with engine.connect().execution_options(immediate=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if at_head(connection):
            return
        with _alembic_quiet():
            from alembic import command
            from alembic.config import Config
            from alembic.util import CommandError

            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as exc:
                newer = "the audit log was written by a newer version of stars-guard"
                raise AuditError(newer, hint="upgrade it") from exc


_quiet = threading.Lock()


@contextmanager
def _alembic_quiet() -> Iterator[None]:
    """Without the lines that alembic writes into the app's log as it is imported and runs. Warnings are still seen."""
    logger = logging.getLogger("alembic")
    with _quiet:
        before = logger.level
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(before)


@contextmanager
def translated(doing: str, name: str) -> Iterator[None]:
    """Errors of the database become ours; its word on them has no texts of records in it.

    Args:
        doing: ``read``, ``write``, ``purge`` or ``rebuild``.
    """
    try:
        yield
    except DBAPIError as exc:
        said = str(exc.orig).strip().splitlines()[:1]
        place = doing == "write" and type(exc.orig).__module__.startswith("sqlite3")
        hint = ELSEWHERE if place else ""
        raise AuditError(f"cannot {doing} the audit log {name}: {''.join(said)}", hint=hint) from exc
    except OSError as exc:
        said = [exc.strerror or type(exc).__name__]
        hint = ELSEWHERE if doing == "write" else ""
        raise AuditError(f"cannot {doing} the audit log {name}: {''.join(said)}", hint=hint) from exc
    except SQLAlchemyError as exc:
        raise AuditError(f"cannot {doing} the audit log {name}: {type(exc).__name__}") from exc


def _sqlite_connect(connection: Any, record: object) -> None:
    # the driver would begin transactions by itself, too late and not for every statement
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")


def _sqlite_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    # on the folder: closing any descriptor of the database's own file would drop SQLite's locks on it
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
