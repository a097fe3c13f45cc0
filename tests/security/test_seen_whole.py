"""A text is judged in all its parts: wherever it stands, however it is cut, whenever a judge is asked."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import StarsGuardError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers import Cascade, Judge, Scorer
from stars_guard.scorers._newest import Search
from stars_guard.scorers.paths import PathScorer
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.pii import KINDS, PiiScorer
from stars_guard.testing.scripted import ScriptedBackend

FORBIDDEN = {
    "pattern": "AKIAABCDEFGHIJKLMNOP",
    "pattern with flags": "How To\nMAKE IT",
    "pattern at a line": "\nPassword: x",
    "pattern in words": " topsecret ",
    "disguised pattern": "top\u200bsecret",
    "look-alikes": "tорsесrеt",
    "email": "joe@corp.com",
    "spelled email": "joe [at] corp [dot] com",
    "phone": "(415) 555-2671",
    "credit_card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "us_ssn": "123-45-6789",
    "ip_address": "2001:db8::1",
    "path": " /etc/passwd ",
    "path up": " ../../x ",
}
PATTERNS = [
    Pattern(name="key", regex=r"\bAKIA[A-Z0-9]{16}\b"),
    Pattern(name="how", regex="how to.make it", flags="is"),
    Pattern(name="line", regex="^password: .*$", flags="im"),
    Pattern(name="word", regex=r"\btopsecret\b"),
]


def judges() -> list[Scorer]:
    return [PatternScorer(PATTERNS), PiiScorer(KINDS), PathScorer(["/work"])]


def cascade(**how: Any) -> Cascade:
    return Cascade([Judge(Rule(judge=str(i), reject_above=0.0), scorer, **how) for i, scorer in enumerate(judges())])


async def vetoed(judge: Cascade, text: str, cuts: list[int], call: str, empty_end: bool = False) -> bool:
    """Whether any segment is vetoed, all others being accepted."""
    places = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)] + [""] * empty_end
    accepted = ""
    for index, piece in enumerate(pieces):
        last = index == len(pieces) - 1
        passage = Passage(call_id=call, messages=(), accepted=accepted, segment=piece, index=index, last=last)
        (judgement,) = await judge.judge([passage])
        if judgement.veto is not None:
            return True
        accepted += piece
    return False


@pytest.mark.parametrize("filler", ["The weather is fine today. ", "Погода хорошая, и всё. "])
@pytest.mark.parametrize("what", FORBIDDEN)
async def test_the_place_in_a_long_text_changes_nothing(what: str, filler: str) -> None:
    long = filler * (100_000 // len(filler))
    judge = cascade()
    for at in (0, len(long) // 2 // len(filler) * len(filler), len(long)):
        text = f"{long[:at]}\n{FORBIDDEN[what]}\n{long[at:]}"
        assert await vetoed(judge, text, [], "whole")
        if at != 0:
            assert await vetoed(judge, text, [*range(4000, len(text), 4000)], f"cut-{at}")


async def test_an_ordinary_long_text_passes() -> None:
    text = "The weather is fine today, at 10:30. " * 3000
    assert not await vetoed(cascade(), text, [*range(130, len(text), 130)], "c")


@settings(max_examples=120)
@given(st.data())
async def test_cuts_and_rests_change_no_verdict(data: st.DataObject) -> None:
    fine = st.sampled_from(["fine ", "x" * 700, " so ", "é ", "1"])
    parts = data.draw(st.lists(st.one_of(st.sampled_from([*FORBIDDEN.values()]), fine), max_size=6))
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    every = data.draw(st.sampled_from([0, 1, 2, 3, 4]))
    expected = any(scorer.find(text) for scorer in judges())
    got = await vetoed(cascade(every=every, final=True), text, cuts, "c", data.draw(st.booleans()))
    # a word may end with a segment and go on in the next, so more may be vetoed, but never less
    assert got or not expected
    if every == 0:
        assert got == expected


@settings(max_examples=150)
@given(st.data())
def test_what_is_kept_of_a_call_changes_no_find(data: st.DataObject) -> None:
    """Also where an answer goes back and on in another way, and where a judge isn't asked about each segment."""
    alphabet = st.text("ab ", max_size=120)
    longest = 70

    def find(text: str, start: int) -> list[tuple[int, int, str]]:
        return [
            (i, i + 3, "aba")
            for i in range(start, len(text) - 2)
            if text[i : i + 3] == "aba" and text[i - 1 : i] != "b"
        ]

    search = Search(find, longest)
    accepted = ""
    for _ in range(data.draw(st.integers(1, 8))):
        segment = data.draw(alphabet)
        finds = search.finds(Passage(call_id="c", messages=(), accepted=accepted, segment=segment))
        assert sorted(finds) == find(accepted + segment, 0)
        step = data.draw(st.sampled_from(["accept", "accept", "reject", "back", "unseen"]))
        if step == "accept":
            accepted += segment
        elif step == "back":
            accepted = accepted[: data.draw(st.integers(0, len(accepted)))] + data.draw(alphabet)
        elif step == "unseen":
            accepted += segment + data.draw(alphabet)


def test_each_part_is_searched_a_bounded_number_of_times() -> None:
    searched = 0

    def find(text: str, start: int) -> list[tuple[int, int, str]]:
        nonlocal searched
        searched += len(text)
        return []

    search = Search(find, 200)
    accepted = ""
    for _ in range(400):
        search.finds(Passage(call_id="c", messages=(), accepted=accepted, segment="x" * 100))
        accepted += "x" * 100
    assert searched <= 400 * (200 + 1 + 2 * 100)


@pytest.mark.parametrize("every", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("what", ["pattern", "email", "path"])
async def test_an_answer_that_ends_in_nothing_is_judged(what: str, every: int) -> None:
    text = FORBIDDEN[what]
    half = len(text) // 2
    judge = {"pattern": {"type": "patterns", "patterns": [{"name": "k", "regex": "AKIA[A-Z0-9]{16}"}]}}
    judge |= {"email": {"type": "pii", "kinds": ["email"]}, "path": {"type": "paths", "roots": ["/work"]}}
    for words in range(7):
        tokens = [text[:half], text[half:], *["w "] * words]

        def script(messages: Any, done: Any, random: random.Random, tokens: list[str] = tokens) -> str | None:
            return tokens[len(done)] if len(done) < len(tokens) else None

        given = policy(
            judges=[{"name": "j", "every": every, "final": True, **judge[what]}],
            segment_tokens=2,
            attempts=2,
            on_exhausted="refuse",
            parallel=1,
        )
        async with Guard(given, model=ScriptedBackend(script), audit="memory://") as guard:
            done = await guard.generate([Message("user", "hi")], CallOptions())
            assert done.finish == "refused", (words, done.text)


async def test_a_match_longer_than_what_is_kept_is_found_at_the_end() -> None:
    scorer = PatternScorer([Pattern(name="span", regex="(?s)BEGIN.*END")])
    judge = Cascade([Judge(Rule(judge="p", reject_above=0.0), scorer)])
    text = "BEGIN " + "x " * 5000 + "END" + " y" * 3000
    for empty in (True, False):
        assert await vetoed(judge, text, [*range(300, len(text), 300)], f"c{empty}", empty)


@settings(max_examples=60)
@given(st.text(st.characters(codec=None), max_size=60), st.sampled_from([*FORBIDDEN.values()]))
def test_no_character_keeps_a_judge_from_judging(noise: str, forbidden: str) -> None:
    text = f"{noise}\ud800\n{forbidden}\n\udfff{noise}"
    assert any(scorer.find(text) for scorer in judges())


async def test_policies_load_these_judges() -> None:
    try:
        loaded = load_policy(policy(judges=[{"name": "p", "type": "pii"}]))
    except StarsGuardError as exc:  # pragma: no cover
        pytest.fail(str(exc))
    assert loaded.judges
