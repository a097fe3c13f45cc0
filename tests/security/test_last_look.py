"""However an answer ends, what is delivered was judged whole as the last thing that was judged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.verification import redo
from stars_guard.core.events import Called, Released, Reviewed
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool, Toolset
from stars_guard.errors import BudgetExhausted
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "hi")]
TOOLS = Toolset((Tool(name="shell", description="", parameters={"type": "object"}),))
PIECES = ("AB", "C", "XY", "Z ", " ", "", "no", "<tool_call>", '{"name": "shell"}', "</tool_call>", None)
USUAL = ("AB", "C", "XY", "Z ", "")


class Watched:
    """Judges that look in different ways; the vetoing ones dislike nothing but what begins with ``no``."""

    def __init__(self, every: int) -> None:
        self.seen: list[tuple[str, Passage]] = []
        self.judges = [
            Judge(Rule(judge="reward", weight=1.0), FunctionScorer(lambda p: float(len(p.segment) % 3))),
            self._judge("each"),
            self._judge("some", every=every, final=True),
        ]

    def _judge(self, name: str, **more: Any) -> Judge:
        def score(passage: Passage) -> float:
            self.seen.append((name, passage))
            return float(passage.segment.startswith("no"))

        return Judge(Rule(judge=name, reject_above=0.5), FunctionScorer(score), **more)


def scripted(tokens: Sequence[str | None]) -> ScriptedBackend:
    """Says these tokens in order, with a chance of another, so that attempts differ."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        if len(so_far) >= len(tokens):
            return None
        return tokens[len(so_far)] if rng.random() < 0.7 else rng.choice(PIECES)

    return ScriptedBackend(script, chunk=2)


@settings(max_examples=250)
@given(
    st.lists(st.sampled_from(USUAL) | st.sampled_from(PIECES), min_size=1, max_size=10),
    st.integers(0, 4),
    st.fixed_dictionaries(
        {
            "segment_tokens": st.integers(1, 4),
            "max_tokens": st.integers(1, 16),
            "attempts": st.integers(1, 3),
            "on_exhausted": st.sampled_from(["best", "refuse", "stop", "raise"]),
            "budget_tokens": st.none() | st.integers(4, 30),
            "parallel": st.integers(1, 2),
            "optimistic": st.booleans(),
            "method": st.sampled_from(["stars", "cards", "blockwise_best_of_k", "best_of_n"]),
            "r_star": st.sampled_from([0.0, 2.0]),
        }
    ),
    st.lists(st.sampled_from(["XYZ", "BC", "ABXYZ", "BCAB"]), min_size=1, max_size=2),
    st.booleans(),
)
def test_what_is_delivered_was_judged_whole_last(
    tokens: list[str | None], every: int, decoding: dict[str, Any], stops: list[str], tools: bool
) -> None:
    watched, store = Watched(every), MemoryStore()
    decoding = {name: value for name, value in decoding.items() if value is not None}
    made = Guard(policy(**decoding), model=scripted(tokens), judges=watched.judges, audit=store)
    options = CallOptions(stop=tuple(stops), tools=TOOLS if tools else None, seed=len(tokens))
    given_out: list[Released | Called] = []
    finish = "raised"
    try:
        for event in made.blocking.stream(ASK, options):
            if isinstance(event, Released | Called):
                given_out.append(event)
        finish = event.finish  # type: ignore[union-attr]
    except BudgetExhausted:
        pass
    (record,) = store.records
    assert (redo(record), record.finish) == (None, finish)
    written = "".join(event.text for event in given_out)
    plain = "".join(event.text for event in given_out if isinstance(event, Released))
    if finish in ("refused", "raised"):
        return
    for name in ("each", "some"):
        asked = [passage for judge, passage in watched.seen if judge == name]
        if not record.segments or not any(segment.kept is not None for segment in record.segments):
            assert written == ""
            continue
        whole = [passage for passage in asked if passage.last]
        assert whole, name
        texts = {passage.answer for passage in whole}
        assert not plain or plain in texts
        # markers and all; white space beside a call is not delivered
        assert "".join(written.split()) in {"".join(text.split()) for text in texts}


def run(tokens: Sequence[str | None], word: str, **decoding: Any) -> tuple[Any, list[Any], MemoryStore]:
    """An answer of these tokens, one a segment, under a judge that is only asked about whole answers."""
    store = MemoryStore()
    final = Judge(
        Rule(judge="final", reject_above=0.5), FunctionScorer(lambda p: float(word in p.answer)), every=0, final=True
    )
    no = Judge(Rule(judge="no", reject_above=0.5), FunctionScorer(lambda p: float(p.segment == "no")))

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return tokens[len(so_far)] if len(so_far) < len(tokens) else None

    made = Guard(
        policy(**{"segment_tokens": 1, "attempts": 2, "optimistic": False, "parallel": 1, **decoding}),
        model=ScriptedBackend(script),
        judges=[no, final],
        audit=store,
    )
    events = list(made.blocking.stream(ASK, CallOptions(stop=("XYZ",), seed=1)))
    return events[-1], events, store


@pytest.mark.parametrize("decoding", [{"on_exhausted": "stop"}, {"budget_tokens": 3, "on_exhausted": "best"}])
async def test_an_answer_that_ends_early_is_judged_as_a_whole(decoding: dict[str, Any]) -> None:
    tokens = ("bad", " word X", "no") if "budget_tokens" not in decoding else ("bad", " word", " X", " more")
    done, events, store = run(tokens, "bad word", **decoding)
    (review,) = [event for event in events if isinstance(event, Reviewed)]
    assert (done.finish, review.verdict, done.reason) == ("refused", "rejected", "vetoed by final")
    assert done.text == ""
    assert not any("X" in event.text for event in events if isinstance(event, Released)), (
        "what was held is not given out"
    )
    (record,) = store.records
    assert record.review is not None
    assert record.review.veto == "final"
    assert redo(record) is None
    for changed in (
        {"finish": "stopped", "reason": ""},
        {"finish": "stopped", "review": None},
        {"review": record.review.model_copy(update={"veto": None})},
    ):
        assert redo(record.model_copy(update=changed)) is not None
    done, events, store = run(tokens, "other", **decoding)
    assert done.finish in ("stopped", "budget")
    assert done.text.endswith("X")
    (record,) = store.records
    assert record.review is not None
    assert (record.review.verdict, redo(record)) == ("accepted", None)
    judges = [
        {"name": "no", "type": "patterns", "patterns": [{"name": "n", "regex": "^no$"}], "scope": "segment"},
        {"name": "late", "type": "patterns", "patterns": [{"name": "n", "regex": "bad word"}], "every": 0},
    ]
    other = load_policy({**policy(attempts=2, segment_tokens=1, **decoding), "judges": judges})
    parting = (await what_if(record, other)).parting
    assert parting is not None
    assert parting.outcome == "refuse"


def test_monitor_lets_an_early_end_through_and_says_so() -> None:
    done, _, store = run(("bad", " word", " X", " a"), "bad word", budget_tokens=3, mode="monitor")
    assert (done.finish, done.text) == ("budget", "bad word X")
    assert store.records[0].review is not None
    assert store.records[0].review.verdict == "rejected"
    assert redo(store.records[0]) is None


def test_the_beginning_of_a_stop_string_is_not_judged_with_the_answer() -> None:
    """``bad`` ends where the text ends, which the stop string hid: its first characters were in earlier segments."""
    store = MemoryStore()
    seen: list[str] = []

    def ends_badly(passage: Passage) -> float:
        seen.append(passage.answer)
        return float(passage.last and passage.answer.endswith("bad"))

    tokens = ("ba", "dX", "Y", "Z")
    made = Guard(
        policy(segment_tokens=1, attempts=1, on_exhausted="refuse"),
        model=ScriptedBackend(lambda m, so_far, r: tokens[len(so_far)] if len(so_far) < 4 else None),
        judges=[Judge(Rule(judge="end", reject_above=0.5), FunctionScorer(ends_badly))],
        audit=store,
    )
    done = made.blocking.generate(ASK, CallOptions(stop=("XYZ",)))
    assert (done.finish, seen[-1]) == ("refused", "bad")
    (record,) = store.records
    assert record.segments[-1].attempts[0].stop_overlap == len("XY")
    assert redo(record) is None


@pytest.mark.parametrize(
    "tokens", [("ba", "dX", "YZ"), ("bad", "X", "Y", "Z"), ("ba", "d", "XY", "Z"), ("b", "adXY", "Z")]
)
def test_what_a_stop_string_uncovers_is_not_released(tokens: tuple[str, ...]) -> None:
    """The text before the beginning of a stop string is what a stream gives out, so it is judged as that."""
    made = Guard(
        policy(segment_tokens=1, attempts=1, on_exhausted="refuse"),
        model=ScriptedBackend(lambda m, so_far, r: tokens[len(so_far)] if len(so_far) < len(tokens) else None),
        judges=[
            Judge(Rule(judge="end", reject_above=0.5), FunctionScorer(lambda one: float(one.answer.endswith("bad"))))
        ],
        audit="memory://",
    )
    events = made.blocking.stream(ASK, CallOptions(stop=("XYZ",)))
    assert "bad" not in "".join(event.text for event in events if isinstance(event, Released))
