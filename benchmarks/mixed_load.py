"""``python -m benchmarks.mixed_load --minutes 60``: everything at once on one guard, and what is left of it afterwards.

Answers and checks run side by side, streams are left in the middle, calls are cancelled, policies are replaced, the
server of a judge is killed and brought back, and the log's database is locked by another connection. The engine is
scripted, so that an hour shows the guard and not a model. Afterwards every call must have one record, and it must say
what the caller saw.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.progress import Progress

from stars_guard.audit import CallRecord, Filter, open_store
from stars_guard.calling import portal
from stars_guard.core.events import Finished, Released
from stars_guard.core.messages import Message
from stars_guard.errors import StarsGuardError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing import ScriptedBackend

__all__ = ["DISTURBANCES", "WORKERS", "Outcome", "Seen", "compared", "main", "run"]

WORKERS = 8
PAUSE = 0.3
"""Seconds that a worker rests between two calls, at the median, so that an hour's log stays small."""
WORDS = ("sea ", "wind ", "ship ", "bad ", "light ", "stone ", "AKIA0123456789ABCDEF ")
WEIGHTS = (20, 20, 20, 3, 20, 20, 1)
DISTURBANCES = ("policy replaced", "server killed", "log locked")
SAMPLES = 200
"""How often memory and open files are looked at."""


def policy(port: int, attempts: int) -> Mapping[str, Any]:
    """A policy with a pattern and a judge behind a server; ``attempts`` is what changes when it is replaced."""
    keys = {
        "name": "keys",
        "type": "patterns",
        "patterns": [{"name": "key", "regex": r"\bAKIA[0-9A-Z]{16}\b"}],
    }
    served = {
        "name": "served",
        "type": "http",
        "url": f"http://127.0.0.1:{port}/",
        "body": {"text": "{segment}"},
        "score": "score",
        "reject_above": 0.5,
        "timeout": 5.0,
    }
    return {
        "apiVersion": "stars-guard/v1",
        "name": "mixed-load",
        "decoding": {"segment_tokens": 4, "max_tokens": 32, "attempts": attempts, "on_exhausted": "refuse"},
        "judges": [keys, served],
        "rails": {"input": {"judges": [{**keys, "name": "keys-in"}]}, "output": {"judges": []}},
        "audit": {"content": "full"},
    }


class Seen:
    """What the callers saw: a line of JSON each, in a file, because it must not grow in memory.

    Attributes:
        kinds: how many calls ended how, and how often each disturbance came.
    """

    def __init__(self, path: Path) -> None:
        self.kinds: Counter[str] = Counter()
        self._path = path
        self._file = path.open("w", encoding="utf-8")

    def ended(self, run_id: str, how: str, text: str = "") -> None:
        """A call is over, and its caller has seen this text."""
        self.kinds[how] += 1
        self._file.write(json.dumps({"run": run_id, "how": how, "text": text}) + "\n")

    def checked(self, audit_id: str | None) -> None:
        """A check is over."""
        self.kinds["checked"] += 1
        self._file.write(json.dumps({"check": audit_id}) + "\n")

    def read(self) -> list[dict[str, str]]:
        """All of it, at the end."""
        self._file.close()
        return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is left.

    Attributes:
        memory: of this process in MiB, sample by sample; so ``files`` and its open files and sockets.
        missing, doubled, wrong: calls without a record, with several, and whose record says something else than the
            caller saw.
        open_requests: that the engine still holds.
        kinds: how many calls ended how, and how often each disturbance came.
    """

    minutes: float
    calls: int
    checks: int
    missing: int
    doubled: int
    wrong: int
    open_requests: int
    memory: tuple[float, ...]
    files: tuple[int, ...]
    kinds: Mapping[str, int]

    @property
    def memory_growth(self) -> float:
        """How much more memory the last quarter needs than the second one, as a fraction."""
        quarter = max(1, len(self.memory) // 4)
        return median(self.memory[-quarter:]) / median(self.memory[quarter : 2 * quarter] or self.memory) - 1

    @property
    def more_files(self) -> int:
        """How many more are open at the end than after the first tenth."""
        return self.files[-1] - max(self.files[: max(1, len(self.files) // 10)])


async def run(minutes: float, *, seed: int = 1) -> Outcome:
    """Load a guard for so many minutes, and look at what is left."""
    chance, backend = random.Random(seed), ScriptedBackend(_says, chunk=2)
    with tempfile.TemporaryDirectory() as folder, _Judge() as judge, Progress() as progress:
        database, seen = Path(folder) / "log.db", Seen(Path(folder) / "seen.jsonl")
        kinds = seen.kinds
        guard = Guard(policy(judge.port, 3), model=backend, audit=f"sqlite:///{database}")
        await guard.check("input", "The log is made.")
        holder, end = [guard], time.monotonic() + 60 * minutes
        memory: list[float] = []
        files: list[int] = []
        bar = progress.add_task("mixed load", total=60 * minutes)

        async def worker(number: int) -> None:
            own = random.Random(1000 * seed + number)
            while time.monotonic() < end:
                await _one(holder[0], seen, own)
                await asyncio.sleep(PAUSE * 2 * own.random())

        async def disturb() -> None:
            attempts = 3
            every = min(20.0, 6 * minutes)  # ten of them at least
            while time.monotonic() < end:
                await asyncio.sleep(every * (0.5 + chance.random()))
                kind = chance.choice(DISTURBANCES)
                kinds[kind] += 1
                if kind == "policy replaced":
                    attempts = 5 - attempts
                    holder[0] = await holder[0].replaced(policy(judge.port, attempts))
                elif kind == "server killed":
                    await asyncio.to_thread(judge.kill)
                    await asyncio.sleep(every / 10)
                    await asyncio.to_thread(judge.start)
                else:
                    await asyncio.to_thread(_lock, database, every / 10)

        async def watch() -> None:
            own, began = psutil.Process(), time.monotonic()
            while time.monotonic() < end:
                gc.collect()
                memory.append(own.memory_info().rss / 2**20)
                files.append(own.num_fds())
                progress.update(bar, completed=time.monotonic() - began)
                await asyncio.sleep(60 * minutes / SAMPLES)

        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                group.create_task(worker(number))
            group.create_task(disturb())
            group.create_task(watch())
        await holder[0].aclose()
        await guard.aclose()
        gc.collect()
        files.append(psutil.Process().num_fds())
        counts = await asyncio.to_thread(compared, seen.read(), f"sqlite:///{database}")
    return Outcome(
        minutes=minutes,
        calls=sum(kinds.values()) - sum(kinds[kind] for kind in ("checked", *DISTURBANCES)),
        checks=kinds["checked"],
        open_requests=backend.sessions,
        memory=tuple(memory),
        files=tuple(files),
        kinds=dict(kinds),
        **counts,
    )


def _says(messages: Sequence[Message], so_far: tuple[str, ...], chance: random.Random) -> str | None:
    return chance.choices(WORDS, WEIGHTS)[0] if len(so_far) < 24 else None


async def _one(guard: Guard, seen: Seen, chance: random.Random) -> None:
    run_id = uuid.UUID(int=chance.getrandbits(128)).hex
    way = chance.choice(("whole", "whole", "stream", "left", "cancelled", "check"))
    ask, options = [Message("user", "Tell me of the sea.")], CallOptions(run_id=run_id)
    try:
        if way == "check":
            checked = await guard.check("input", chance.choice(("Tell me of the sea.", f"My key is {WORDS[-1]}.")))
            seen.checked(checked.audit_id)
        elif way == "whole":
            done = await guard.generate(ask, options)
            seen.ended(run_id, done.finish, done.text)
        elif way == "cancelled":
            try:
                async with asyncio.timeout(chance.random() * 0.05):
                    done = await guard.generate(ask, options)
                seen.ended(run_id, done.finish, done.text)
            except TimeoutError:
                seen.ended(run_id, "cancelled")
        else:
            await _streamed(guard, seen, run_id, chance.randint(1, 4) if way == "left" else 10**9)
    except StarsGuardError as error:
        seen.ended(run_id, f"failed: {type(error).__name__}")


async def _streamed(guard: Guard, seen: Seen, run_id: str, most: int) -> None:
    """Read so many events of a stream."""
    text = ""
    events = guard.stream([Message("user", "Tell me of the sea.")], CallOptions(run_id=run_id))
    async with contextlib.aclosing(events):
        async for event in events:
            text += event.text if isinstance(event, Released) else ""
            most -= 1
            if isinstance(event, Finished):
                seen.ended(run_id, event.finish, event.text)
                return
            if most == 0:
                break
    seen.ended(run_id, "left", text)


def compared(seen: Sequence[Mapping[str, Any]], url: str) -> dict[str, int]:
    """Every record with what its caller saw: how many are missing, doubled and wrong."""
    store = open_store(url)
    calls = {line["run"]: line for line in seen if "run" in line}
    checks = [line["check"] for line in seen if "check" in line]
    found: Counter[str] = Counter()
    wrong = 0
    for record in store.select(Filter()):
        found[record.run_id or record.call_id] += 1
        wrong += record.run_id is not None and not _right(record, **calls[record.run_id])
    portal.call(store.aclose)
    # a call that was cancelled before it began has none
    due = [*checks, *(run for run, line in calls.items() if line["how"] != "cancelled")]
    missing = sum(found[one] == 0 for one in due)
    return {"missing": missing, "doubled": sum(count > 1 for count in found.values()), "wrong": wrong}


def _right(record: CallRecord, *, run: str, how: str, text: str) -> bool:
    """Whether a record says what the caller saw."""
    answer = (record.answer.content if record.answer is not None else None) or ""
    if how in ("left", "cancelled"):
        return record.finish in ("cancelled", "refused", "eos", "stopped", "length") and answer.startswith(text)
    if how.startswith("failed"):
        return record.finish == "error"
    return record.finish == how and answer == text


def _lock(database: Path, seconds: float) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return
        time.sleep(seconds)
        other.execute("ROLLBACK")


class _Judge:
    """The server of a judge, in a process of its own."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> _Judge:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def start(self) -> None:
        """Begin to serve, and come back when it does."""
        script = Path(__file__).with_name("load_judge.py")
        self._process = subprocess.Popen([sys.executable, script, str(self.port)], stderr=subprocess.DEVNULL)
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("the judge's server did not start")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Run, and print what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    found = portal.call(lambda: run(parser.parse_args().minutes))
    print(
        f"{found.calls} calls and {found.checks} checks in {found.minutes} minutes: {found.missing} records missing, "
        f"{found.doubled} doubled, {found.wrong} wrong; {found.open_requests} requests open; memory "
        f"{found.memory_growth:+.1%}; {found.more_files:+d} files\n{dict(found.kinds)}"
    )


if __name__ == "__main__":
    main()
