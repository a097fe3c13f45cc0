"""The events of an answer's decisions show no secret that is split over segments where texts are redacted."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import guard, rewarding
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler

from langchain_stars import ChatStars
from langchain_stars._settled_text import SettledText
from stars_guard.audit import redact
from stars_guard.testing import ScriptedBackend

SECRETS = {
    "joe.doe@example.com": ["joe", "doe@", "example"],
    "4111 1111 1111 1111": ["4111", "1111"],
    "4111-1111-1111-1111": ["4111", "1111"],
    "+49 170 1234567": ["170", "1234567"],
    "(030) 1234 5678": ["1234", "5678"],
    "192.168.17.254": ["192.168", "17.254"],
    "2001:db8:0:0:0:ff00:42:8329": ["ff00:42", "2001:db8"],
    "AKIAABCDEFGHIJKLMNOP": ["AKIAABC", "MNOP"],
    "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.SflKxwRJSM": ["eyJhbGci", "SflKxw"],
}
PROSE = st.sampled_from(["", "Write to ", "My number is ", "well, ", "see (", "a, b; ", "on 3 May 2024 "])
AFTER = st.sampled_from(["", " or so.", ", and more", ") then", "\nThe end."])


@st.composite
def texts_cut(draw: st.DrawFn) -> tuple[str, list[str]]:
    secret = draw(st.sampled_from(sorted(SECRETS)))
    text = draw(PROSE) + secret + draw(AFTER)
    cuts = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=8)))
    return secret, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(texts_cut())
@example(("joe.doe@example.com", ["joe.", "doe", "@example.com", " ok"]))
@example(("4111 1111 1111 1111", ["4111 ", "1111 1111", " 1111"]))
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_split_secret_is_shown(case: tuple[str, list[str]]) -> None:
    secret, segments = case
    if any(part in redact("".join(segments)) for part in SECRETS[secret]):
        return  # `redact` itself does not find it
    settled = SettledText()
    shown = [settled.accepted(one, last=at == len(segments)) for at, one in enumerate(segments, 1)]
    for part in SECRETS[secret]:
        assert part not in "".join(shown)


@given(texts_cut())
@settings(max_examples=100, deadline=None)
def test_a_rejected_segment_shows_no_part_of_a_secret_that_goes_on(case: tuple[str, list[str]]) -> None:
    secret, segments = case
    if any(part in redact("".join(segments)) for part in SECRETS[secret]):
        return
    settled = SettledText()
    for one in segments:
        rejected = settled.rejected(one)
        shown = settled.accepted(one, last=False)
        assert all(part not in shown + rejected for part in SECRETS[secret])


@given(st.lists(st.text("ab 1.@\n", min_size=1, max_size=6), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_all_that_is_shown_is_the_redacted_answer(segments: list[str]) -> None:
    settled = SettledText()
    shown = [settled.accepted(one, last=False) for one in segments[:-1]]
    shown.append(settled.accepted(segments[-1], last=True))
    assert len("".join(shown)) <= len("".join(segments)) + 7 * len(segments)
    if "@" not in "".join(segments):
        return
    assert "a@b.a" not in "".join(shown)


class Listener(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.told.append(data)


@pytest.mark.parametrize("content", ["redacted", "hash", "none"])
def test_events_of_a_model_hold_nothing_of_a_split_address(content: str) -> None:
    words = ["write ", "to joe", ".doe@ex", "ample.com", " or call 4111 1111 ", "1111 1111", " now", "."]
    backend = ScriptedBackend(lambda m, prefix, r: words[len(prefix)] if len(prefix) < len(words) else None)
    made = guard(rewarding(lambda p: 9.0), backend=backend, segment_tokens=1, audit={"content": content})
    listener = Listener()
    message = ChatStars(guard=made).invoke("x", {"callbacks": [listener]})
    assert message.text == "".join(words)
    assert len(listener.told) >= len(words)
    told = repr([{k: v for k, v in one.items() if k in ("content", "reason")} for one in listener.told])
    assert not [part for part in ("joe", "doe", "ample", "4111", "1111") if part in told]
    if content == "redacted":
        assert "".join(one["content"] for one in listener.told) == "write to [EMAIL] or call [CARD] now."
    else:
        assert not any("content" in one for one in listener.told)
