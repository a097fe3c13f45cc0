"""Every beginning of a match is seen, whatever an expression is made of."""

from __future__ import annotations

import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.scorers._unfinished_matches import UnfinishedMatches

# an expression, and a text that it matches
LEAVES = (
    ("a", "a"),
    ("[a-c]", "b"),
    (r"\d", "7"),
    (r"\W", "é"),
    (r"\w", "x"),
    (r"\pL", "é"),
    (r"\p{Cyrillic}", "ж"),
    (r"[^\pL]", "-"),
    ("(?i:k)", "\u212a"),
    ("(?i:ſ)", "s"),
    ("[[:alpha:]]", "q"),
    ("[^[:digit:]]", "é"),
    (r"\x{41}", "A"),
    (r"\101", "A"),
    (r"\Qa.b\E", "a.b"),
    ("{,2}", "{,2}"),
    ("{e}", "{e}"),
    ("(?s:.)", "\n"),
    (".", "日"),
    (r"[]a\]]", "]"),
    (r"\s", " "),
)
Pair = tuple[str, str]


def combined(parts: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def row(pairs: list[Pair]) -> Pair:
        return "".join(one for one, _ in pairs), "".join(text for _, text in pairs)

    def choice(pairs: tuple[Pair, Pair]) -> Pair:
        return f"(?:{pairs[0][0]}|{pairs[1][0]})", pairs[1][1]

    def times(pair: Pair, sign: str, count: int) -> Pair:
        return f"(?:{pair[0]}){sign}", pair[1] * count

    return st.one_of(
        st.lists(parts, min_size=2, max_size=4).map(row),
        st.tuples(parts, parts).map(choice),
        parts.map(lambda pair: (f"({pair[0]})", pair[1])),
        parts.map(lambda pair: (f"(?i){pair[0]}", pair[1].upper() if pair[1].isascii() else pair[1])),
        parts.map(lambda pair: (rf"{pair[0]}\b", pair[1])),
        parts.map(lambda pair: (rf"{pair[0]}\B", pair[1])),
        st.builds(times, parts, st.sampled_from(["*", "+", "{2,}", "{2,3}?", "{3}"]), st.just(3)),
        st.builds(times, parts, st.sampled_from(["?", "*", "??"]), st.integers(0, 1)),
    )


@settings(max_examples=400, deadline=None)
@given(
    pair=st.recursive(st.sampled_from(LEAVES), combined, max_leaves=8),
    before=st.sampled_from(["", " ", "a", "é-", "7 "]),
    after=st.sampled_from(["", " ", "a", "-"]),
)
def test_no_beginning_is_missed(pair: Pair, before: str, after: str) -> None:
    expression, inside = pair
    options = re2.Options()
    options.log_errors = False
    compiled, unfinished = re2.compile(expression, options), UnfinishedMatches(expression)
    text = before + inside + after
    found = compiled.search(text)
    if found is None:
        return
    for cut in range(found.start() + 1, found.end()):
        if compiled.search(text[:cut]) is None:  # otherwise a judge vetoes what is there already
            place = unfinished.open_from(text[:cut])
            assert place is not None
            assert place <= found.start()
            assert unfinished.open_from(text[:cut], found.start()) == found.start()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"key\B.", "keys"),
        (r"key \bword", "key word"),
        (r"git [^\n]*\bmain", "git --force main"),
        (r"(?s)secret.\bword", "secret-word"),
        (r"secret\W\pL+\d", "secretéa1"),
        ("(?i)token", "to\u212aen"),
        ("pin{,2}x", "pin{,2}x"),
        (r"a(?i)b|c\b-d", "C-D"),
    ],
)
def test_where_another_engine_reads_an_expression_otherwise(expression: str, text: str) -> None:
    unfinished = UnfinishedMatches(expression)
    assert [unfinished.open_from(text[:cut]) for cut in range(1, len(text))] == [0] * (len(text) - 1)


@pytest.mark.parametrize("expression", [r"(a|a|aa)+(a|a|aa)+$b", "(a+)+b", r"(?:\w+\s?)*x", "((((a?){9}){9}){9})b"])
def test_a_look_takes_no_longer_than_the_text_is_long(expression: str) -> None:
    unfinished = UnfinishedMatches(expression)
    began = time.monotonic()
    for length in range(500, 5500, 500):
        assert unfinished.open_from("a" * length) is not None
    assert time.monotonic() - began < 3
