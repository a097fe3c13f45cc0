"""Files that only their owner may read, whatever was there before."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stars_guard.errors import AuditError

__all__ = ["replacing", "tighten"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new, empty file for its owner alone, which takes the place of ``path`` if the block ends without an error.

    Nobody sees half a file. A file that was there is replaced and not written to, so neither its permissions nor its
    other names matter.

    Raises:
        AuditError: the file cannot be made, or ``path`` is a link, a folder or a device.
    """
    try:
        if not _is_replaceable(path):
            raise AuditError(f"cannot write {path}: it is a link, or no ordinary file", hint="name a new file")
        path.parent.mkdir(parents=True, exist_ok=True)
        # made exclusively, and with no permissions for others
        file, name = tempfile.mkstemp(prefix=".stars-guard-", suffix=".part", dir=path.parent)
    except (OSError, ValueError) as exc:
        raise AuditError(f"cannot write {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    part = Path(name)
    try:
        os.close(file)
        yield part
        os.replace(part, path)
    except OSError as exc:
        raise AuditError(f"cannot write {path}: {exc.strerror}") from exc
    finally:
        part.unlink(missing_ok=True)


def tighten(file: int | Path) -> None:
    """Take a file of ours away from group and others, if they may do anything with it. No file is no error."""
    try:
        found = os.stat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o077:
            os.chmod(file, stat.S_IMODE(found.st_mode) & 0o700)
    except FileNotFoundError:
        return


def _is_replaceable(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True
