"""Nothing of what a judge vetoes is released, wherever the segments cut it, and nothing else waits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.calling.holding import Holding
from stars_guard.core.events import Called, Finished, Released
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate, Passage, Token
from stars_guard.guard import Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "hi")]
SECRET = "AKIA0123456789ABCDEF"
KEY = Judge(Rule(judge="keys", reject_above=0.0), PatternScorer([Pattern(name="key", regex=r"\bAKIA[0-9A-Z]{16}\b")]))


def saying(text: str, size: int) -> ScriptedBackend:
    """Says a text in tokens of some characters, whatever the attempt."""
    tokens = [text[at : at + size] for at in range(0, len(text), size)]

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return tokens[len(so_far)] if len(so_far) < len(tokens) else None

    return ScriptedBackend(script, chunk=3)


def out_of(guard: Guard) -> tuple[str, Finished]:
    """What a stream gives, and its end. The text of the end is the same."""
    given, done = "", None
    for event in guard.blocking.stream(ASK):
        match event:
            case Released(text=text) | Called(text=text):
                given += text
            case Finished():
                done = event
            case _:
                pass
    assert done is not None
    assert done.text == given
    return given, done


def guarded(text: str, *judges: Judge, size: int = 1, **more: Any) -> Guard:
    settled = {"attempts": 2, "on_exhausted": "refuse", "max_tokens": 400, **more}
    return Guard(policy(**settled), model=saying(text, size), judges=judges or [KEY], audit=MemoryStore())


@settings(max_examples=60)
@given(
    before=st.text("ab AKI", max_size=12),
    size=st.integers(1, 4),
    segment=st.integers(1, 32),
    on_exhausted=st.sampled_from(["refuse", "stop", "best"]),
    optimistic=st.booleans(),
)
def test_no_character_of_a_secret_is_released(
    before: str, size: int, segment: int, on_exhausted: str, optimistic: bool
) -> None:
    guard = guarded(
        f"{before} {SECRET} after", size=size, segment_tokens=segment, on_exhausted=on_exhausted, optimistic=optimistic
    )
    given, done = out_of(guard)
    assert done.finish in ("refused", "stopped")
    assert f"{before} ".startswith(given)


@pytest.mark.parametrize("segment", [1, 3, 8])
def test_what_turns_out_to_be_harmless_is_released(segment: int) -> None:
    text = "The keys AKIA and AKIA012 are short, AKIA"
    given, done = out_of(guarded(text, segment_tokens=segment))
    assert (given, done.finish) == (text, "eos")


def test_text_comes_at_once_where_nothing_is_open() -> None:
    guard = guarded("one two three four", segment_tokens=2)
    pieces = [event.text for event in guard.blocking.stream(ASK) if isinstance(event, Released)]
    assert pieces == ["on", "e ", "tw", "o ", "th", "re", "e ", "fo", "ur"]


def test_a_fixed_tail_is_held_for_judges_that_cannot_tell() -> None:
    judge = Judge(Rule(judge="words", reject_above=0.5), FunctionScorer(lambda p: float("secret" in p.answer)))
    for segment in range(1, 9):
        given, done = out_of(guarded("my secret", judge, segment_tokens=segment, hold_tokens=5))
        assert done.finish == "refused"
        assert "my ".startswith(given)
    given, done = out_of(guarded("my sweet one", judge, segment_tokens=2, hold_tokens=5))
    assert given == "my sweet one"


@pytest.mark.parametrize("every", [0, 2, 3])
def test_what_a_judge_has_not_seen_waits(every: int) -> None:
    scorer = PatternScorer([Pattern(name="bad", regex="bad")])
    judge = Judge(Rule(judge="words", reject_above=0.5), scorer, every=every, final=True)
    for at in range(12):
        text = "-" * at + "bad" + "+" * 12
        given, done = out_of(guarded(text, judge, segment_tokens=1))
        assert done.finish == "refused"
        assert "b" not in given
    assert out_of(guarded("fine" * 5, judge, segment_tokens=1))[0] == "fine" * 5


def test_a_secret_that_begins_in_the_conversation_is_not_completed() -> None:
    judge = Judge(KEY.rule, KEY.scorer, conversation=True)
    guard = guarded("DEF", judge, segment_tokens=1)
    ask = [Message("user", "The key is AKIA0123456789ABC")]
    done = guard.blocking.generate(ask)
    assert done.finish in ("refused", "eos")


def test_escapes_hold_too() -> None:
    text = '{"key": "' + "".join(f"\\u{ord(letter):04x}" for letter in SECRET) + '"}'
    for segment in (1, 5, 16):
        given, done = out_of(guarded(text, segment_tokens=segment, max_tokens=4000))
        assert done.finish == "refused"
        assert "\\u0041" not in given


def test_monitoring_holds_nothing() -> None:
    guard = guarded(f"a {SECRET} b", segment_tokens=2, mode="monitor")
    pieces = [event.text for event in guard.blocking.stream(ASK) if isinstance(event, Released)]
    assert "".join(pieces) == f"a {SECRET} b"
    assert max(map(len, pieces)) == 2


def test_open_from_is_asked_of_what_is_not_released_only() -> None:
    asked: list[tuple[int, int]] = []

    class Counting(FunctionScorer):
        def open_from(self, text: str, start: int = 0) -> int | None:
            asked.append((len(text), start))
            return None

    judge = Judge(Rule(judge="words", reject_above=0.5), Counting(lambda p: 0.0))
    out_of(guarded("x" * 20, judge, segment_tokens=4))
    assert asked == [(4, 0), (8, 4), (12, 8), (16, 12), (20, 16)]


def test_what_was_known_of_a_reading_is_forgotten_where_the_answer_goes_back() -> None:
    """In "abcy" no "abcde" begins, but in "abcd" that comes in its place one does."""
    judge = Judge(KEY.rule, PatternScorer([Pattern(name="long", regex="abcde"), Pattern(name="short", regex="y z")]))
    holding = Holding([judge])

    def held(read: str) -> bool:
        text = '"\\u0061' + read[1:]
        made = Candidate(tokens=(Token(0, text),), text=text)
        seen = Passage(call_id="1", messages=(), accepted="", segment=text, readings=(('"', read),))
        return min(holding.after(made, seen, 0)) == 0

    assert not held("abcy")  # only the "y" may have begun something
    holding.go_back(0, 1)
    assert held("abcd")
    holding.go_back(0, 1)
    assert not held("abcq")
