"""The queue in front of a store. It writes records off the event loop and in batches, also after the store was down."""

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

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from stars_guard.audit._sink import Sink
from stars_guard.audit._spool import Spool
from stars_guard.audit.entries import Item
from stars_guard.audit.record import CallRecord
from stars_guard.audit.writing import Backlog, Writing
from stars_guard.errors import AuditError

__all__ = ["WriteQueue"]

_log = logging.getLogger("stars_guard.audit")

_BATCH = 64
_IDLE = 5.0
"""Seconds without work after which the thread ends. It is started again when there is work."""

_AGAIN = 1.0
"""Seconds between two tries to empty the spool."""

_Waiting = tuple[CallRecord, "Future[None]"]


class WriteQueue:
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
        self._closers = 0
        self._failed: AuditError | None = None
        self._again_at = 0.0

    async def append(self, record: CallRecord) -> None:
        """Put a record into the queue. Wait until it is written under ``every-call``, and also when the queue is full.

        A caller that is cancelled stops waiting. Its record is written all the same.

        Raises:
            AuditError: as `ChainedStore.append`.
        """
        done: Future[None] = Future()
        full = self._is_full()
        if full and self.writing.on_error == "drop":
            self._drop(1)
            return
        self._put(record, done)
        if self.writing.durability == "every-call" or full:
            await asyncio.wrap_future(done)
        elif self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def backlog(self) -> Backlog:
        """What has not reached the store. Looks into the spool's folder."""
        with self._change:
            waiting = len(self._waiting)
        spooled = 0 if self._spool is None else self._spool.size()
        return Backlog(waiting=waiting, spooled_bytes=spooled, dropped=self.dropped)

    def close(self) -> None:
        """Write what waits, end the thread, and let go of what the store and the spool hold. Blocks.

        A queue may be closed more than once, and a later append starts it again.
        """
        with self._change:
            self._closers += 1
            self._change.notify_all()
            thread = self._thread
        try:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        finally:
            with self._change:
                self._closers -= 1

    def _is_full(self) -> bool:
        with self._change:
            return len(self._waiting) >= self.writing.queue

    def _put(self, record: CallRecord, done: Future[None]) -> None:
        # nothing is awaited up to here, so a caller that is cancelled has its record in the queue or has not begun
        with self._change:
            self._waiting.append((record, done))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._store(),), name="audit", daemon=True)
                _running.add(self)
                self._thread.start()
            self._change.notify_all()

    def _run(self, store: Sink) -> None:
        while True:
            while (batch := self._take()) is not None:
                self._serve(store, batch)
            self._let_go(store)
            with self._change:
                # what came in meanwhile is served by this thread: there are never two
                if not self._waiting:
                    self._thread = None
                    _running.discard(self)
                    return

    def _let_go(self, store: Sink) -> None:
        try:
            if self._spool is not None:
                self._spool.release()
            store.rest()
        except Exception:
            # nothing of a record depends on it, and the thread must not die with records in the queue
            _log.exception("the audit log %s could not be put to rest", store.name)

    def _take(self) -> list[_Waiting] | None:
        """The next batch. It is empty when only the spool is to be looked at, and None when there is no more work."""
        with self._change:
            timeout = _AGAIN if self._spool is not None and self._spool.holds else _IDLE
            self._change.wait_for(lambda: self._waiting or self._closers, timeout)
            if not self._waiting and (self._closers or timeout == _IDLE):
                return None
            if self.writing.durability == "batch":
                self._change.wait_for(lambda: len(self._waiting) >= _BATCH or self._closers, self.writing.linger)
            return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]

    def _serve(self, store: Sink, batch: Sequence[_Waiting]) -> None:
        items, futures = [], []
        for record, done in batch:
            # a caller that was cancelled has its record written all the same
            waited_for = [done] if done.set_running_or_notify_cancel() else []
            try:
                items.append(Item.of(record))
                futures += waited_for
            except Exception as exc:
                self._fail(waited_for, _as_audit_error(exc))
        try:
            self._write(store, items)
        except Exception as exc:
            self._fail(futures, _as_audit_error(exc))
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
        for done in futures:
            done.set_exception(error)

    def _drop(self, records: int, exc: AuditError | None = None) -> None:
        self.dropped += records
        _log.warning("%d audit records were dropped, %d so far: %s", records, self.dropped, exc or "the queue is full")


def _as_audit_error(exc: Exception) -> AuditError:
    if isinstance(exc, AuditError):
        return exc
    unforeseen = AuditError(f"cannot write the audit log: {type(exc).__name__}")
    unforeseen.__cause__ = exc
    return unforeseen


_running: set[WriteQueue] = set()
"""Queues whose thread runs: they, and so what waits in them, are not forgotten."""


def _close_all() -> None:
    for queue in list(_running):
        queue.close()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_running.clear)  # what waits in them is written by the parent process
