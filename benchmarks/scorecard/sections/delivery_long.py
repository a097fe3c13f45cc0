"""A secret anywhere in a long text: whether a rail and a stream find it."""

from __future__ import annotations

import random
from typing import Any

from rich.progress import track

from benchmarks.scorecard.generated_secrets import Secret, secrets_of_patterns, secrets_of_pii
from benchmarks.scorecard.section import Bar, Section, Share, Table
from benchmarks.scorecard.sections.delivery_cuts import common, policy_of, through_guard
from benchmarks.scorecard.sizes import Size
from stars_guard.audit import MemoryStore
from stars_guard.guard import Guard

__all__ = ["measure"]

LENGTHS = (1_000, 10_000, 100_000)
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
STREAMED = 1_000
"""Characters of the texts that are streamed too."""
WORDS = (
    "The",
    "weather",
    "report",
    "says",
    "that",
    "it",
    "will",
    "be",
    "mild",
    "and",
    "the",
    "ferry",
    "leaves",
    "at",
    "noon",
)


def measure(size: Size) -> Section:
    """Every kind of secret, length and place."""
    secrets = {secret.kind: secret for secret in (*secrets_of_patterns(1), *secrets_of_pii(1))}
    tried = [(secret, length, place) for secret in secrets.values() for length in LENGTHS for place in PLACES]
    rows: dict[str, list[int]] = {}
    for secret, length, place in track(size.thinned(tried, 1), description="long texts"):
        text, start = _long(secret, length, place)
        _count(rows, f"{length:,} characters, a rail's check", _passes(secret, text))
        if length == STREAMED:
            pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
            given = through_guard(policy_of(secret), pieces)
            _count(rows, f"{length:,} characters, streamed", common(given, text) > start)
    shares = {name: Share(hits=hits, of=of) for name, (hits, of) in rows.items()}
    total = Share(hits=sum(one.hits for one in shares.values()), of=sum(one.of for one in shares.values()))
    return Section(
        title="Delivery: long texts",
        about=(
            "A text of each shipped pattern and each kind of personal data at the beginning, at the end and at the "
            "quarters of ordinary words. It is missed if the rail `output` lets the text pass, or a stream releases "
            "a character of it."
        ),
        figures={"missed": total},
        tables=(Table(head=("what", "missed"), rows=tuple(shares.items())),),
        bars=(Bar.of("missed", total),),
    )


def _long(secret: Secret, length: int, place: float) -> tuple[str, int]:
    chance = random.Random(secret.kind)
    before = _words(chance, int(place * (length - len(secret.text))))
    after = _words(chance, length - len(secret.text) - len(before))
    return f"{before} {secret.text} {after}", len(before) + 1


def _words(chance: random.Random, length: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(length // 5 + 1))[: max(0, length)]


def _passes(secret: Secret, text: str) -> bool:
    base: Any = policy_of(secret)
    policy = {**base, "rails": {"output": {"judges": base["judges"]}}, "judges": []}
    with Guard(policy, audit=MemoryStore()).blocking as guard:
        return bool(guard.check("output", text).allowed)


def _count(rows: dict[str, list[int]], name: str, missed: bool) -> None:
    row = rows.setdefault(name, [0, 0])
    row[0] += missed
    row[1] += 1
