"""Who reads a rewind: the audit page, the command line, exports, redaction, counts and LangChain's events."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from rich.console import Console

from langchain_stars import ChatStars
from stars_guard.audit import CallRecord, Filter, MemoryStore, open_store
from stars_guard.audit.export import candidates
from stars_guard.audit.viewer.report import report
from stars_guard.auditing.verification import verify
from stars_guard.cli.audit import show_record, show_stats
from stars_guard.core.events import Event, Finished, Released
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.pii import PiiScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "hi")]
SECRET = "AKIA0123456789ABCDEF"
KEY = Judge(Rule(judge="keys", reject_above=0.0), PatternScorer([Pattern(name="key", regex=r"\bAKIA[0-9A-Z]{16}\b")]))


def leaking(secret: str, size: int, after: str = " fine") -> ScriptedBackend:
    """Begins the answer, and then says the secret or something harmless, in tokens of some characters."""
    texts = (f"Your key: {secret}{after}", f"Your key: none{after}")
    split = [[text[at : at + size] for at in range(0, len(text), size)] for text in texts]

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        fitting = [one for one in split if tuple(one[: len(so_far)]) == so_far]
        one = rng.choice(fitting)
        return one[len(so_far)] if len(so_far) < len(one) else None

    return ScriptedBackend(script, chunk=2)


def rewound(store: Any = None, judge: Judge = KEY, secret: str = SECRET, size: int = 3, **spec: Any) -> CallRecord:
    """A call that went back."""
    decoding = {"segment_tokens": 4, "attempts": 2, "rewinds": 20, "max_tokens": 60, "on_exhausted": "refuse"}
    for seed in range(60):
        memory = MemoryStore()
        made = Guard(policy(**{**decoding, **spec}), model=leaking(secret, size), judges=[judge], audit=memory)
        made.blocking.generate(ASK, CallOptions(seed=seed))
        if any(s.rewound for s in memory.records[0].segments) and memory.records[0].finish == "eos":
            if store is not None:
                Guard(
                    policy(**{**decoding, **spec}), model=leaking(secret, size), judges=[judge], audit=store
                ).blocking.generate(ASK, CallOptions(seed=seed))
            return memory.records[0]
    raise AssertionError("no call went back")


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**40),
    size=st.integers(1, 7),
    segment=st.integers(1, 12),
    rewinds=st.integers(1, 5),
    on_exhausted=st.sampled_from(["refuse", "stop", "best"]),
)
def test_no_character_of_a_secret_is_out(seed: int, size: int, segment: int, rewinds: int, on_exhausted: str) -> None:
    decoding = {"segment_tokens": segment, "attempts": 2, "rewinds": rewinds, "max_tokens": 80}
    made = Guard(
        policy(**decoding, on_exhausted=on_exhausted), model=leaking(SECRET, size), judges=[KEY], audit=MemoryStore()
    )
    events: list[Event] = list(made.blocking.stream(ASK, CallOptions(seed=seed)))
    given = "".join(event.text for event in events if isinstance(event, Released))
    done = events[-1]
    assert isinstance(done, Finished)
    assert given == done.text
    assert "Your key: none fine".startswith(given)
    assert done.finish != "eos" or given == "Your key: none fine"


def test_without_rewinds_such_answers_are_refused_and_with_them_they_go_on() -> None:
    def finishes(rewinds: int) -> list[str]:
        decoding = {"segment_tokens": 4, "attempts": 3, "rewinds": rewinds, "max_tokens": 60, "on_exhausted": "refuse"}
        made = Guard(policy(**decoding), model=leaking(SECRET, 3), judges=[KEY], audit=MemoryStore())
        return [made.blocking.generate(ASK, CallOptions(seed=seed)).finish for seed in range(30)]

    assert finishes(0).count("refused") > 5
    assert finishes(20).count("eos") == 30


def test_the_page_strikes_out_what_was_taken_back(tmp_path: Any) -> None:
    store = open_store(f"sqlite:///{tmp_path}/audit.db")
    record = rewound(store)
    back = next(s for s in record.segments if s.rewound)
    html = report(store)
    struck = "".join(re.findall(r"<del[^>]*>([^<]*)</del>", html.partition('aria-label="Segments"')[0]))
    assert "AKIA" in struck
    assert SECRET not in struck
    assert f"#{store.search()[0].id}-{back.rewound.to}" in html  # type: ignore[union-attr]
    kept = re.findall(r'<span class="kept"[^>]*>([^<]*)</span>', html)
    assert "".join(kept) == record.answer.content
    console = Console(record=True, width=200)
    show_record(console, store, None)
    assert "the answer went back to" in console.export_text()
    assert verify(store).problem is None
    cost = store.stats(Filter()).total
    assert cost.rewound == record.totals["rewound"] > 0
    show_stats(console, store, Filter())
    (row,) = [line.split() for line in console.export_text().splitlines() if line.startswith("all calls")]
    assert int(row[7]) == record.totals["drawn"] - record.totals["kept"]
    assert "taken back" in html


def test_rows_of_candidates_say_what_is_in_the_answer() -> None:
    record = rewound()
    rows = list(candidates(record))
    assert {row["segment"] for row in rows if row["is_kept"]} == set(record.standing)
    assert any(s.kept is not None and s.index not in record.standing for s in record.segments)


@pytest.mark.parametrize("content", ["redacted", {"accepted": "full", "rejected": "none"}])
def test_what_was_taken_back_is_kept_as_rejected_text_is(content: Any) -> None:
    judge = Judge(Rule(judge="pii", reject_above=0.0), PiiScorer(["email"]))
    record = rewound(judge=judge, secret="jane@example.com", audit={"content": content})
    texts = [a.text.content or "" for s in record.segments for a in s.attempts]
    assert record.answer.content == "Your key: none fine"
    for part in ("jan", "example", "@"):
        assert not any(part in text for text in texts)


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.told.append((name, data))


@pytest.mark.parametrize("content", ["full", "redacted"])
def test_langchain_is_told(content: str) -> None:
    judge = Judge(Rule(judge="pii", reject_above=0.0), PiiScorer(["email"]))
    decoding = {"segment_tokens": 4, "attempts": 2, "rewinds": 20, "max_tokens": 60}
    store = MemoryStore()
    made = Guard(
        policy(**decoding, audit={"content": content}),
        model=leaking("jane@example.com", 3),
        judges=[judge],
        audit=store,
    )
    model = ChatStars(guard=made)
    told = []
    for _ in range(40):
        listener = Listener()
        assert model.invoke("hello", {"callbacks": [listener]}).text == "Your key: none fine"
        told += [data for name, data in listener.told if name == "stars_guard.segment.rewound"]
        shown = "".join(data["content"] for name, data in listener.told if name.endswith("accepted"))
        assert content == "full" or "example" not in shown
    backs = [s.rewound for record in store.records for s in record.segments if s.rewound]
    assert backs
    assert [(data["to"], data["left"], data["why"]) for data in told] == [(b.to, b.left, b.why) for b in backs]
