"""What a caller may choose about the writing of records."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from stars_guard.core.vocabulary import Durability, OnWriteError

__all__ = ["Backlog", "Writing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What has not reached the log.

    Attributes:
        waiting: records in the queue of this process.
        spooled_bytes: size of the records that were put aside because the log was down, by all processes of this
            machine that write to it.
        dropped: records that this process has given up, under ``on_error: drop``.
    """

    waiting: int
    spooled_bytes: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Writing:
    """When a record counts as written, and what happens when it cannot be.

    Attributes:
        durability: ``every-call``: when the disk or the database has committed it; calls that end at the same moment
            share a commit. ``batch``: at once; it is committed within ``linger`` seconds or with the 64th record.
        on_error: ``spool``: keep it in a local file until the store is back. ``block``: try again for ``patience``
            seconds, and then fail the call. ``drop``: count it, log a warning, and go on.
        linger: seconds.
        patience: seconds.
        queue: how many records may wait before calls do. A call that finds so many waits until its own record is
            written. Under ``drop`` its record is lost.
    """

    durability: Durability = "every-call"
    on_error: OnWriteError = "spool"
    _: KW_ONLY
    linger: float = 0.2
    patience: float = 30.0
    queue: int = 1024
