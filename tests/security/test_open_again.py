"""Nothing is out that is open again once the answer has gone back: it was harmless because of text that is gone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from conftest import policy
from test_rewinding import ASK, answered

from stars_guard.audit import MemoryStore
from stars_guard.auditing.verification import redo
from stars_guard.core.events import Decision, Rewound
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend


def following(*answers: str) -> ScriptedBackend:
    """A model that writes one of the answers, in letters, and any of their words that goes on."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        said = "".join(so_far)
        after = sorted({answer[len(said)] for answer in answers if answer.startswith(said) and answer != said})
        return rng.choice(after) if after else None

    return ScriptedBackend(script)


DEAD_END = Judge(Rule(judge="dead end", reject_above=0.5), FunctionScorer(lambda p: float("ax" in p.accepted)))


def found(regex: str) -> Judge:
    return Judge(Rule(judge="match", reject_above=0.0), PatternScorer([Pattern(name="it", regex=regex)]))


def test_what_has_begun_again_after_a_dead_end_was_not_released() -> None:
    """After "ax" the "a" would be harmless, but the answer goes back over the "x", and "ab" is vetoed."""
    common = {"segment_tokens": 1, "attempts": 3, "hold_tokens": 1, "on_exhausted": "refuse", "parallel": 1}
    vetoes = 0
    for seed in range(20):
        events, record = answered([found("ab"), DEAD_END], following("axy", "ab"), seed, **common, rewinds=4)
        assert redo(record) is None
        went_back = any(isinstance(event, Rewound) for event in events)
        vetoes += went_back and any(isinstance(e, Decision) and e.judgement.veto == "match: it" for e in events)
        assert not went_back or record.answer.content == ""
    assert vetoes


def test_an_answer_does_not_go_back_to_where_what_is_out_is_open_again() -> None:
    """The "a" of "ax" is out when "xyz" is vetoed. An answer that began with "a" again could become "ab"."""
    common = {"segment_tokens": 2, "attempts": 3, "on_exhausted": "refuse", "parallel": 1, "max_tokens": 4}
    for seed in range(20):
        events, record = answered([found("ab|xyz")], following("axyz", "axq", "ab"), seed, **common, rewinds=4)
        assert redo(record) is None
        assert not any(isinstance(event, Rewound) and event.place == 1 for event in events)
        assert record.answer.content in ("", "a", "axq", "ax")


@pytest.mark.parametrize(("marks", "rest"), [(("<think>", "</think>"), "think>"), (None, "/")])
def test_marks_that_went_back_cuts_are_still_found(marks: tuple[str, str] | None, rest: str) -> None:
    """A stop string or a marker whose beginning was no marker until the answer went back."""
    begun = "<" if marks is None else "</"
    texts = (f"{begun}x", f"{begun}{rest}yes")
    made = ScriptedBackend(following(*texts).script, reasoning=Reasoning(begun=True) if marks else None)
    dead = Judge(Rule(judge="dead end", reject_above=0.5), FunctionScorer(lambda p: float("x" in p.accepted)))
    spec = policy(segment_tokens=1, attempts=3, hold_tokens=1, rewinds=9, parallel=1, on_exhausted="refuse")
    went_back = 0
    for seed in range(20):
        store = MemoryStore()
        guard = Guard(spec, model=following_end(made), judges=[dead], audit=store)
        done = guard.blocking.generate(ASK, CallOptions(seed=seed, stop=() if marks else ("</",)))
        (record,) = store.records
        assert redo(record) is None
        if record.totals["rewinds"] and done.finish != "refused":
            went_back += 1
            assert (done.text, done.reasoning) == (("yes" if marks else ""), "")
    assert went_back


def following_end(made: ScriptedBackend) -> ScriptedBackend:
    """The same, that never ends after an "x"."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return "z" if "x" in so_far else made.script(messages, so_far, rng)

    return ScriptedBackend(script, reasoning=made.reasoning)
