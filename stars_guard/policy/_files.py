"""A policy's files as they stand on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["LARGEST_FILE", "FileState", "look_at"]

LARGEST_FILE = 256_000
"""The most bytes that a policy file may have."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What was at a path at one moment. Two states are equal only if nothing has changed in between.

    The content itself is compared, because a file can change without a change of its time or its size.

    Attributes:
        real: the path without symbolic links. Relative paths in the file start from its folder.
        content: the file's bytes, or its first ones where it is larger than `LARGEST_FILE`; None where there is no
            file that can be read.
        problem: why it cannot be read; empty where it can.
    """

    real: Path
    content: bytes | None = field(repr=False)
    problem: str = ""


def look_at(path: Path) -> FileState:
    """Read what is at a path now. Failing to read it is a state too, so this raises nothing."""
    real = path
    try:
        real = path.resolve()
        with real.open("rb") as file:
            return FileState(real, file.read(LARGEST_FILE + 1))
    except OSError as exc:
        return FileState(real, None, exc.strerror or type(exc).__name__)
    except (ValueError, RuntimeError):  # a NUL in the path, and links that form a circle
        return FileState(real, None, "the path is not valid")
