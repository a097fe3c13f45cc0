"""Writes records off the event loop, in batches, and answers for what happens when the store is down."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import anyio.to_thread
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from stars_guard.audit._sink import Sink
from stars_guard.audit._spool import Spool
from stars_guard.audit.entries import Item
from stars_guard.audit.record import CallRecord
from stars_guard.core.vocabulary import Durability, OnWriteError
from stars_guard.errors import AuditError

__all__ = ["Writer", "Writing"]

_log = logging.getLogger("stars_guard.audit")


@dataclass(frozen=True, slots=True)
class Writing:
    """When a record counts as written, and what happens when it cannot be.

    Attributes:
        durability: ``every-call``: when the disk or the database has committed it; calls that end at the same moment
            share a commit. ``batch``: at once; it is committed within ``linger`` seconds or with the 64th record.
        on_error: ``spool``: keep it in a local file until the store is back; ``block``: try again for ``patience``
            seconds, and then fail the call; ``drop``: count it, log a warning, and go on.
        queue: records that may wait; the next call waits until there is room, or under ``drop`` loses its record.
    """

    durability: Durability = "every-call"
    on_error: OnWriteError = "spool"
    linger: float = 0.2
    patience: float = 30.0
    queue: int = 1024


_BATCH = 64
_IDLE = 5.0
"""Seconds without work after which the thread ends. It is started again when there is work."""

_AGAIN = 1.0
"""Seconds between two tries to empty the spool."""

_Waiting = tuple[CallRecord, "Future[None]"]


class Writer:
    """The queue in front of a store, and the thread that empties it.

    Attributes:
        dropped: records that were given up under ``drop``.
    """

    def __init__(self, store: Sink, writing: Writing) -> None:
        self.dropped = 0
        self.writing = writing
        self._store = weakref.ref(store)
        self._spool = Spool(store.name) if writing.on_error == "spool" else None
        self._waiting: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failed: AuditError | None = None
        self._again_at = 0.0

    async def append(self, record: CallRecord) -> None:
        """See `ChainedStore.append`."""
        done: Future[None] = Future()
        if not self._put(record, done, wait=False):
            if self.writing.on_error == "drop":
                self._drop(1)
                return
            await anyio.to_thread.run_sync(partial(self._put, record, done, wait=True))
        if self.writing.durability == "every-call":
            await asyncio.wrap_future(done)
        elif self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def close(self) -> None:
        """Write what waits. May be called again; a later append starts anew."""
        with self._change:
            self._closing = True
            self._change.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._change:
            self._closing = False

    def _put(self, record: CallRecord, done: Future[None], *, wait: bool) -> bool:
        with self._change:
            while len(self._waiting) >= self.writing.queue:
                if not wait:
                    return False
                self._change.wait()
            self._waiting.append((record, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._store(),), name="audit", daemon=True)
                _running.add(self)
                self._thread.start()
            self._change.notify_all()
            return True

    def _run(self, store: Sink) -> None:
        while (batch := self._take()) is not None:
            self._serve(store, batch)
        if self._spool is not None:
            self._spool.release()
        store.rest()

    def _take(self) -> list[_Waiting] | None:
        """The next batch; empty when only the spool is to be looked at, None when the thread may end."""
        with self._change:
            timeout = _AGAIN if self._spool is not None and self._spool.holds else _IDLE
            self._change.wait_for(lambda: self._waiting or self._closing, timeout)
            if not self._waiting and (self._closing or timeout == _IDLE):
                self._thread = None
                _running.discard(self)
                return None
            if self.writing.durability == "batch" and not self._closing:
                self._change.wait_for(lambda: len(self._waiting) >= _BATCH or self._closing, self.writing.linger)
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._change.notify_all()
            return batch

    def _serve(self, store: Sink, batch: Sequence[_Waiting]) -> None:
        items, futures = [], []
        for record, done in batch:
            # a caller that has gone away has its record all the same
            waited_for = [done] if done.set_running_or_notify_cancel() else []
            try:
                items.append(Item.of(record))
                futures += waited_for
            except AuditError as exc:
                self._fail(waited_for, exc)
        try:
            self._write(store, items)
        except Exception as exc:
            unforeseen = AuditError(f"cannot write the audit log: {type(exc).__name__}")
            unforeseen.__cause__ = exc
            self._fail(futures, exc if isinstance(exc, AuditError) else unforeseen)
            return
        for done in futures:
            done.set_result(None)

    def _write(self, store: Sink, items: Sequence[Item]) -> None:
        match self.writing.on_error:
            case "block":
                patience = self.writing.patience
                for attempt in Retrying(
                    retry=retry_if_exception_type(AuditError),
                    stop=stop_after_delay(patience),
                    wait=wait_random_exponential(multiplier=0.1, max=2.0),
                    reraise=True,
                ):
                    with attempt:
                        store.write(items)
            case "drop":
                try:
                    store.write(items)
                except AuditError as exc:
                    self._drop(len(items), exc)
            case "spool":
                self._write_or_spool(store, items)

    def _write_or_spool(self, store: Sink, items: Sequence[Item]) -> None:
        spool = self._spool
        assert spool is not None  # noqa: S101
        if time.monotonic() >= self._again_at:
            try:
                back = spool.replay(store)
                if items:
                    store.write(items)
            except AuditError as exc:
                self._again_at = time.monotonic() + _AGAIN
                if not spool.holds or not items:
                    _log.warning("the audit log %s cannot be written, records are put aside: %s", store.name, exc)
            else:
                if back:
                    _log.warning("the audit log %s is back: %d records that were put aside are in it", store.name, back)
                return
        if items:
            spool.put(items)

    def _fail(self, futures: Sequence[Future[None]], error: AuditError) -> None:
        _log.error("audit records could not be written: %s", error)
        if self.writing.durability == "batch":
            self._failed = error
            return
        for done in futures:
            done.set_exception(error)

    def _drop(self, records: int, exc: AuditError | None = None) -> None:
        self.dropped += records
        _log.warning("%d audit records were dropped, %d so far: %s", records, self.dropped, exc or "the queue is full")


_running: set[Writer] = set()
"""Writers whose thread runs: they, and so what waits in them, are not forgotten."""


def _close_all() -> None:
    for writer in list(_running):
        writer.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_running.clear)  # what waits in them is written by the parent process
