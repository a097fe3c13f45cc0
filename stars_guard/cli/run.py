"""A file of prompts and a file of answers: each prompt is answered once, even if the run is cut off in between."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import anyio
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from rich.console import Console

from stars_guard.calling import portal
from stars_guard.cli._concurrently import concurrently
from stars_guard.cli._counting import counting
from stars_guard.core.messages import Message
from stars_guard.errors import GuardVerdict, InputError, ScorerInputError
from stars_guard.guard import CallOptions, Guard

__all__ = ["Job", "read_jobs", "read_prompts", "run_file"]


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "user", "assistant"]
    content: str


class _Row(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)
    prompt: str | None = None
    messages: list[_Turn] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> _Row:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt (text) or messages (a list of role and content)")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt of a file; ``index`` is its line, from 0. ``wrong`` says why a line is no prompt."""

    index: int
    digest: str
    messages: tuple[Message, ...] = ()
    id: Any = None
    wrong: InputError | None = None


def run_file(
    console: Console, guard: Guard, source: Path, target: Path, options: CallOptions, *, concurrency: int
) -> bool:
    """Answer every prompt of a JSONL file that the target does not answer yet.

    A line of the target is written whole and at once, in the order in which answers are ready; ``index`` is the
    prompt's line in the source, from 0. A line that is no prompt, or a prompt that can't be answered, such as one that
    is too long, gets a line with ``error``, and the others are answered. If the engine, a judge or the log fails, the
    run ends, and the prompts in work get no line, so that another run answers them.

    Args:
        options: of every call; prompt i gets ``seed + i``.

    Returns:
        Whether every prompt has an answer, those of earlier runs included.

    Raises:
        InputError: the source can't be read, the target belongs to other prompts, or another run writes to it.
        StarsGuardError: of any other kind; the engine, a judge or the log failed. Another run goes on from there.
    """
    jobs = read_jobs(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{target}.lock", timeout=0):
            done = _done(target, jobs)
            todo = [job for job in jobs if job.index not in done]
            failed = sum(done.values())
            if done:
                without = f", {failed} of them with an error" if failed else ""
                console.print(f"{len(done)} of {len(jobs)} are done already{without}")
            if any(job.wrong is None for job in todo):
                guard.blocking.load()  # what is missing for every prompt is no fault of any
            with (
                counting(console, "answering", len(jobs), done=len(done)) as advance,
                target.open("a", encoding="utf-8") as out,
            ):
                failed += portal.call(lambda: _answer_all(guard, todo, options, concurrency, out, advance))
    except Timeout as exc:
        raise InputError(f"{target}: another run writes to it", hint="wait for it, or choose another file") from exc
    for job in jobs:
        if job.wrong is not None:
            console.print(str(job.wrong), style="yellow", soft_wrap=True)
    if failed:
        console.print(f"{failed} of {len(jobs)} could not be answered: see the lines with `error`", style="yellow")
    return not failed


def read_jobs(source: Path) -> list[Job]:
    """The prompts of a JSONL file in UTF-8, with or without a byte order mark. Empty lines are passed over.

    Raises:
        InputError: it can't be read. What is wrong with a line is in its `Job`.
    """
    try:
        data = source.read_bytes()
    except OSError as exc:
        raise InputError(f"{source}: cannot be read: {exc.strerror}") from exc
    data = data.removeprefix(codecs.BOM_UTF8)
    # JSON begins with an ASCII character, so that one of the first bytes is zero in UTF-16 and UTF-32
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise InputError(
            f"{source}: is UTF-16 or UTF-32 text, and must be UTF-8", hint="convert it: iconv -f UTF-16 -t UTF-8"
        )
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return [_job(source, index, line) for index, line in enumerate(lines) if line.strip()]


def read_prompts(source: Path) -> list[Job]:
    """The prompts of a file in which each line is one.

    Raises:
        InputError: it can't be read, or a line is no prompt.
    """
    jobs = read_jobs(source)
    for job in jobs:
        if job.wrong is not None:
            raise job.wrong
    return jobs


def _job(source: Path, index: int, line: bytes) -> Job:
    digest = hashlib.sha256(line).hexdigest()[:16]
    where = f"{source}:{index + 1}"
    try:
        row = _Row.model_validate_json(line.decode())
        turns = row.messages if row.messages is not None else [_Turn(role="user", content=row.prompt or "")]
        messages = tuple(Message(turn.role, turn.content) for turn in turns)
    except UnicodeDecodeError:
        return Job(index=index, digest=digest, wrong=InputError(f"{where}: is not UTF-8 text"))
    except ValidationError as exc:
        wrong = exc.errors(include_input=False)[0]
        at = ".".join(str(part) for part in wrong["loc"])
        return Job(index=index, digest=digest, wrong=InputError(f"{where}: {at}{': ' if at else ''}{wrong['msg']}"))
    return Job(index=index, digest=digest, messages=messages, id=(row.model_extra or {}).get("id"))


def _done(target: Path, jobs: list[Job]) -> dict[int, bool]:
    """What is done already: the prompt's index, and whether the line holds an error.

    A last line that a kill cut off is taken out of the file.
    """
    if not target.exists():
        return {}
    content = target.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with target.open("r+b") as file:
            file.truncate(len(whole))
    digests = {job.index: job.digest for job in jobs}
    done: dict[int, bool] = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            index, digest = row["index"], row["prompt_sha256"]
        except (ValueError, KeyError, TypeError) as exc:
            raise InputError(f"{target}:{number}: is not a line of answers", hint="choose another file") from exc
        if digests.get(index) != digest:
            raise InputError(
                f"{target}:{number}: answers another prompt than the source's line {index + 1}",
                hint="choose another file, or restore the prompts",
            )
        done[index] = "error" in row
    return done


async def _answer_all(
    guard: Guard, jobs: list[Job], options: CallOptions, concurrency: int, out: TextIO, advance: Callable[[], None]
) -> int:
    """Answer every job and write a line for each; how many could not be answered."""
    failed = 0
    # in a thread, because a pipe that nobody reads would hold up every call; one line after the other
    writing = anyio.CapacityLimiter(1)

    async def work(job: Job) -> None:
        nonlocal failed
        row = await _answer(guard, job, options)
        failed += "error" in row
        await anyio.to_thread.run_sync(_write, out, row, limiter=writing)
        advance()

    await concurrently(work, jobs, min(concurrency, len(jobs)))
    return failed


def _write(out: TextIO, row: dict[str, Any]) -> None:
    out.write(json.dumps(row, ensure_ascii=False) + "\n")
    out.flush()


async def _answer(guard: Guard, job: Job, options: CallOptions) -> dict[str, Any]:
    row: dict[str, Any] = {"index": job.index, "prompt_sha256": job.digest}
    if job.id is not None:
        row["id"] = job.id
    seed = None if options.seed is None else options.seed + job.index
    try:
        if job.wrong is not None:
            raise job.wrong
        done = await guard.generate(job.messages, replace(options, seed=seed))
    except (InputError, ScorerInputError, GuardVerdict) as exc:
        # of this prompt; whatever else fails, fails for all
        return {**row, "error": f"{type(exc).__name__}: {exc}"}
    return {
        **row,
        "text": done.text,
        "finish": done.finish,
        "reason": done.reason,
        "audit_id": done.call_id,
        "totals": asdict(done.totals),
    }
