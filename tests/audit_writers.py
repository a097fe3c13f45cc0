"""Processes that write audit records, for tests of what several of them, or a kill, do to a log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

from stars_guard.audit import CallRecord, Text, Writing, open_store
from stars_guard.audit.record import Turn

__all__ = ["small", "write_for_ever", "write_many"]


def small(call_id: str, **more: Any) -> CallRecord:
    """A short record of a call that drew nothing."""
    now = datetime.now(UTC).isoformat()
    fields: dict[str, Any] = {
        "started_at": now,
        "ended_at": now,
        "seconds": 0.5,
        "policy": "default",
        "policy_sha256": "0" * 64,
        "mode": "enforce",
        "seed": 2**62,
        "finish": "eos",
        "answer": Text(content="", chars=0),
        "prompt": (Turn(role="user", content=Text(content=f"call {call_id}", chars=5 + len(call_id))),),
    }
    return CallRecord(call_id=call_id, **{**fields, **more})


def write_many(url: str, name: str, count: int) -> None:
    """Write records ``name0``, ``name1`` and so on, in batches."""

    async def go() -> None:
        async with open_store(url, Writing(durability="batch", on_error="block")) as store:
            for number in range(count):
                await store.append(small(f"{name}-{number}"))

    asyncio.run(go())


def write_for_ever(url: str, name: str, durable: Connection) -> None:
    """Write, and say how many records are durable, until killed."""

    async def go() -> None:
        store = open_store(url)
        number = 0
        while True:
            await asyncio.gather(*(store.append(small(f"{name}-{number + i}")) for i in range(8)))
            number += 8
            durable.send(number)

    asyncio.run(go())
