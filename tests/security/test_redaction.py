"""What is redacted leaves nothing of any kind in clear, whatever stands beside it, and wherever a segment ends."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from conftest import USER, guard
from hypothesis import given, settings
from hypothesis import strategies as st
from test_personal_data import forms

from stars_guard.audit import redact
from stars_guard.calling.checks import _redacted
from stars_guard.core.judging import Judgement, Rule, Score
from stars_guard.core.readings import readings
from stars_guard.scorers import Cascade, Judge
from stars_guard.scorers.pii import KINDS, PiiScorer
from stars_guard.testing import ScriptedBackend

SCORER = PiiScorer(KINDS)
FORMS = {kind: sorted(forms(kind)) for kind in KINDS}
FIRST = ["4111 1111 1111 1111", "4111111111111111", "+1 415 555 2671", "(415) 555-2671", "123-45-6789"]
KEYS = ["sk-abcdefghijklmnop1234", "AKIAIOSFODNN7EXAMPLE", "ghp_abcdefghijklmnopqrst"]
BETWEEN = [" ", ", ", "\n", "; ", " and ", "\t", " – ", " / ", ": ", ". ", "|", ",", "; tel ", "é", "\u200b "]


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    kinds = draw(st.lists(st.sampled_from([*KINDS]), min_size=1, max_size=4))
    parts = [draw(st.sampled_from(FORMS[kind])) for kind in kinds]
    text = draw(st.sampled_from(["", "My data: ", "é "]))
    for part in parts:
        text += part + draw(st.sampled_from(BETWEEN))
    return text, parts


@settings(max_examples=250)
@given(texts())
def test_after_redaction_no_kind_is_found(drawn: tuple[str, list[str]]) -> None:
    text, _ = drawn
    clean = redact(text)
    assert SCORER.find(clean) == []
    assert redact(clean) == clean
    for reading in readings(clean):
        assert SCORER.find(reading.text) == []


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("second", ["10.0.0.7", "192.168.1.1", "joe@corp.com", "2001:db8::1", "+44 20 7946 0958"])
@pytest.mark.parametrize("between", [" ", ", ", "-", "/", " (", "\n", ""])
def test_neither_of_two_stays_in_clear(first: str, second: str, between: str) -> None:
    # with nothing between, digits make another address of it
    orders = [(first, second), (second, first)] if between or ":" not in second else [(first, second)]
    for text in (one + between + other for one, other in orders):
        clean = redact(text)
        assert not any(char.isdigit() for char in clean), clean
        assert not any(word in clean for word in ("joe", "corp", "db8"))


@settings(max_examples=150)
@given(texts(), st.data())
def test_segments_that_are_redacted_one_by_one_show_no_more(drawn: tuple[str, list[str]], data: st.DataObject) -> None:
    text, _ = drawn
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    cuts = [0, *places, len(text)]
    shown = [redact(text[a:b], before=text[:a], after=text[b:]) for a, b in pairwise(cuts)]
    assert SCORER.find("".join(shown)) == []
    whole = redact(text)
    letters = sum(map(str.isalnum, _without_marks(whole)))
    assert sum(map(str.isalnum, _without_marks("".join(shown)))) <= letters + 2 * len(places)


@settings(max_examples=40)
@given(texts(), st.integers(1, 6), st.integers(1, 4))
def test_no_record_holds_what_segments_share(drawn: tuple[str, list[str]], size: int, tokens: int) -> None:
    text, _ = drawn
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    backend = ScriptedBackend(lambda _, prefix, rng: pieces[len(prefix)] if len(prefix) < len(pieces) else None)
    ours = guard(
        backend=backend, segment_tokens=tokens, max_tokens=500, method="vanilla", audit={"content": "redacted"}
    )
    assert ours.blocking.generate(USER).text == text
    (record,) = ours.audit.read()
    kept = [attempt.text.content or "" for segment in record.segments for attempt in segment.attempts]
    assert SCORER.find("".join(kept)) == []
    assert SCORER.find(record.answer.content or "") == []


def _without_marks(text: str) -> str:
    for mark in ("[KEY]", "[EMAIL]", "[IP]", "[IBAN]", "[CARD]", "[SSN]", "[PHONE]"):
        text = text.replace(mark, "")
    return text


@settings(max_examples=100)
@given(texts())
def test_a_tool_result_is_redacted_in_all_its_parts(drawn: tuple[str, list[str]]) -> None:
    text, _ = drawn
    cascade = Cascade([Judge(Rule(judge="p", reject_above=0.0), SCORER)])
    judgement = Judgement(reward=None, veto="p", scores=(Score(judge="p", value=1.0),))
    clean = text
    for _ in range(3):
        clean = _redacted(cascade, judgement, clean)
    assert SCORER.find(clean) == []


def test_time_is_linear() -> None:
    import time

    rng = random.Random(1)
    for part in ("joe@corp.com ", "1 ", "a", "4111 1111 1111 1111 ", "1-", "é ", rng.choice(KEYS) + " "):
        seconds = []
        for size in (200, 2_000):
            began = time.thread_time()
            redact(part * size)
            seconds.append(time.thread_time() - began)
        assert seconds[1] < 10 * 5 * max(seconds[0], 0.002), part
