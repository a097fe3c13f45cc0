"""Generated secrets, cut at every place: how many of their characters a stream releases."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableGenerator
from rich.progress import track

from benchmarks.scorecard.generated_secrets import Secret, secrets_of_patterns, secrets_of_pii, shipped_patterns
from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sizes import Size
from langchain_stars import guard_runnable
from stars_guard.audit import MemoryStore
from stars_guard.core.events import Called, Released
from stars_guard.core.messages import Message
from stars_guard.guard import Guard
from stars_guard.testing import ScriptedBackend

__all__ = ["common", "cuts", "measure", "policy_of", "through_guard"]

BEFORE, AFTER = "Well, it is ", " and so on."
EVEN = (1, 2, 3, 5, 8, 16)
ASK = [Message("user", "Tell me.")]


def measure(size: Size) -> Section:
    """Every secret, every cut, through a guarded model and around another's."""
    secrets = size.few([*secrets_of_patterns(size.secrets), *secrets_of_pii(size.secrets)])
    rows: dict[str, list[int]] = {}
    for turn, secret in enumerate(track(secrets, description="cuts")):
        row = rows.setdefault(secret.kind, [0, 0, 0, 0])
        text = f"{BEFORE}{secret.text}{AFTER}"
        starts = [start for start, _, _ in secret.scorer.find(text)]
        if not starts:
            continue  # the words beside it change what it is
        start, policy = min(starts), policy_of(secret)
        for number, pieces in enumerate(size.thinned([*cuts(text, len(BEFORE), len(secret.text))], turn)):
            doors = (through_guard, _around_another) if number % 4 == 0 else (through_guard,)
            for door in doors:
                released = common(door(policy, pieces), text) - start
                row[0] += 1
                row[1] += released > 0
                row[2] += max(0, released)
        row[3] += 1
    tried, leaked = sum(row[0] for row in rows.values()), sum(row[1] for row in rows.values())
    return Section(
        title="Delivery: secrets cut at every place",
        about=(
            f"Texts that a judge vetoes, made from all {len(shipped_patterns())} patterns of the shipped policies "
            "(by rstr) and of every kind of personal data (by phonenumbers and python-stdnum), each in the middle "
            "of a sentence. The sentence is generated in two pieces, cut at every place of the secret, and in "
            f"pieces of {', '.join(map(str, EVEN))} characters. Each piece is a segment of a guarded model that "
            "writes the same whatever is rejected. Each fourth cut is also tried around another's model "
            "(`guard_runnable`). It leaks if one character of the secret is released."
        ),
        figures={
            "leaked": Share(hits=leaked, of=tried),
            "characters": sum(row[2] for row in rows.values()),
            "secrets": sum(row[3] for row in rows.values()),
        },
        tables=(
            Table(
                head=("what", "secrets", "streams that leak", "characters released"),
                rows=tuple((kind, row[3], Share(hits=row[1], of=row[0]), row[2]) for kind, row in rows.items()),
            ),
        ),
        bars=(Bar.of("streams that leak", Share(hits=leaked, of=tried)),),
    )


def common(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def cuts(text: str, start: int, length: int) -> Iterator[list[str]]:
    """The text whole, in two pieces at every place of the secret, and in even ones."""
    yield [text]
    for at in range(start, start + length + 1):
        yield [text[:at], text[at:]]
    for step in EVEN:
        yield [text[at : at + step] for at in range(0, len(text), step)]


def policy_of(secret: Secret) -> Mapping[str, Any]:
    """A policy whose only judge is the secret's."""
    patterns = shipped_patterns()
    judge: dict[str, Any] = (
        {"type": "patterns", "patterns": [{"name": "it", "regex": patterns[secret.kind].regex}]}
        if secret.kind in patterns
        else {"type": "pii", "kinds": [secret.kind]}
    )
    return {
        "apiVersion": "stars-guard/v1",
        "name": "cuts",
        "decoding": {"segment_tokens": 1, "attempts": 1, "max_tokens": 1000, "on_exhausted": "refuse"},
        "refusal": {"message": "#"},
        "judges": [{"name": "secret", **judge}],
    }


def through_guard(policy: Mapping[str, Any], pieces: Sequence[str]) -> str:
    """What is released of an answer whose tokens are these pieces."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], chance: random.Random) -> str | None:
        return pieces[len(so_far)] if len(so_far) < len(pieces) else None

    given = ""
    with Guard(policy, model=ScriptedBackend(script), audit=MemoryStore()).blocking as guard:
        for event in guard.stream(ASK):
            given += event.text if isinstance(event, Released | Called) else ""
    return given


def _around_another(policy: Mapping[str, Any], pieces: Sequence[str]) -> str:
    def said(given: Iterator[str]) -> Iterator[str]:
        for _ in given:
            yield from pieces

    runnable = guard_runnable(RunnableGenerator(said), policy, audit=MemoryStore())
    return "".join(str(piece) for piece in runnable.stream("Tell me."))
