"""From where on a match may have begun: every beginning of a match is seen, and nothing in text that begins none."""

from __future__ import annotations

import re
import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.policy import load_policy, shipped_policies
from stars_guard.scorers._unfinished_matches import UnfinishedMatches
from stars_guard.scorers.patterns import PatternsOptions

KINDS = (
    r"\bAKIA[0-9A-Z]{16}\b",
    r"(?i:ignore (all )?(previous|prior) instructions)",
    r"(?:rm|del)\s+-r?f\s+/",
    r"(?m:^\s*sudo\s+\S+$)",
    r"(?s:BEGIN.*END)",
    r"[a-z]{2,5}@(?:[a-z]+\.)+[a-z]{2,4}",
    r"(?:\d{4}[ -]?){3}\d{4}",
    r"a(?:bc|b)c+d?e",
    r"(?:x|xy)(?:z|yz)w",
    r"[^\n]{3}!",
    r"(a+)+b",
)
SHIPPED = sorted(
    {
        pattern.regex
        for name in shipped_policies()
        for judge in load_policy(name).every_judge
        if isinstance(judge, PatternsOptions)
        for pattern in judge.patterns
    }
)


@pytest.mark.parametrize("expression", [*KINDS, *SHIPPED])
@settings(max_examples=40)
@given(data=st.data())
def test_the_beginning_of_a_match_is_never_missed(expression: str, data: st.DataObject) -> None:
    compiled, unfinished = re2.compile(expression), UnfinishedMatches(expression)
    try:
        inside = st.from_regex(re.compile(expression, re.ASCII), fullmatch=True)
        text = data.draw(st.text(max_size=8)) + data.draw(inside) + data.draw(st.text(max_size=4))
    except re.error:
        pytest.skip("not an expression of Python's own")
    found = compiled.search(text)
    if found is None:
        return
    for cut in range(found.start() + 1, found.end()):
        before = text[:cut]
        if compiled.search(before) is None:  # otherwise a judge vetoes what is there already
            place = unfinished.open_from(before)
            assert place is not None
            assert place <= found.start()
            assert unfinished.open_from(before, found.start()) == found.start()


@pytest.mark.parametrize(
    ("expression", "text", "place"),
    [
        (r"AKIA[0-9A-Z]{16}", "the key is AKI", 11),
        (r"AKIA[0-9A-Z]{16}", "the key is AKIX", None),
        (r"AKIA[0-9A-Z]{16}", "", None),
        (r"\bfoo\b", "a foo b", None),
        (r"(?m:^sudo)", "I use su", None),
        (r"(?m:^sudo)", "I use\nsu", 6),
        (r"(?s:secret.*word)", "a secret, and then much more", 2),
        (r"secret.*word", "a secret\nand then much more", None),
        (r"a\C+b", "x", 0),  # not an expression that can be looked at: all is held
    ],
)
def test_what_is_open(expression: str, text: str, place: int | None) -> None:
    assert UnfinishedMatches(expression).open_from(text) == place


def test_text_before_the_start_is_context() -> None:
    unfinished = UnfinishedMatches(r"\bfoo")
    assert unfinished.open_from("xfo", 1) is None
    assert unfinished.open_from(" fo", 1) == 1
    assert unfinished.open_from("fo fo", 1) == 3


def test_a_look_is_bounded_in_time() -> None:
    unfinished = UnfinishedMatches(r"(a|a|aa)+(a|a|aa)+(a|a|aa)+$b")
    began = time.monotonic()
    assert unfinished.open_from("a" * 5000) == 0
    assert time.monotonic() - began < 5
