"""The text of an answer: whatever the cuts, what is released is what one pass over the whole text would give."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stars_guard.core.segments import Candidate, Token
from stars_guard.decoding import AnswerText, Piece, SegmentCutter
from stars_guard.decoding.spans import Span, begun_at_end, find_spans
from stars_guard.errors import ProtocolError

THOUGHT = Span("<t>", "</t>", leading=True, reasoning=True)
FORMS = {
    "none": (),
    "closed": (Span("<c>", "</c>"),),
    "to the end": (Span("[T]"),),
    "leading": (Span("<|p|>", leading=True), Span("{", leading=True)),
    "both": (Span("<c>", "</c>"), Span("{", leading=True)),
    "reasoning": (THOUGHT,),
    "reasoning, then calls": (THOUGHT, Span("<c>", "</c>"), Span("{", leading=True)),
}
PARTS = ("<t>", "</t>", "<c>", "</c>", "[T]", "<|p|>", "{", "<", "c>", "</", "[", "|", " ", "\n", "a", "b", "ab", "}")
TEXTS = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)
STOPS = st.lists(st.sampled_from(("ab", "b", "aba", "c>a", " \n", "</c> a", "<c>a", "\n\n", "b<")), max_size=3)


def up_to_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the stop string that is complete first."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


def one_pass(text: str, spans: Sequence[Span], inside: Span | None) -> list[tuple[str, str]]:
    """Plain text, marked parts and reasoning of a whole answer. White space alone beside a marked part is dropped, and
    so are the markers of reasoning, and the white space beside them on both sides."""
    pieces, at, follows = [], 0, False
    parts = find_spans(text, spans, at_start=True, inside=inside)
    for found in parts:
        pieces += between(text[at : found.start], follows)
        said = text[found.start : found.stop]
        if found.span.reasoning:
            said = said if inside and found.start == 0 else said.removeprefix("<t>")
            said = (said.removesuffix("</t>") if found.closed else said).strip()
        pieces += [(said, "reasoning" if found.span.reasoning else "marked")] if said else []
        at, follows = found.stop, found.span.reasoning
    rest = text[at:]
    return [*pieces, (rest, "text")] if rest and not parts else [*pieces, *between(rest, follows)]


def between(text: str, after_reasoning: bool) -> list[tuple[str, str]]:
    text = text.lstrip() if after_reasoning else text
    return [(text, "text")] if text.strip() else []


def joined(pieces: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """With plain text and reasoning in one piece, wherever they were cut."""
    found: list[tuple[str, str]] = []
    for text, kind in pieces:
        assert text
        if found and kind != "marked" and found[-1][1] == kind:
            found[-1] = (found[-1][0] + text, kind)
        else:
            found.append((text, kind))
    return found


def kind_of(piece: Piece) -> str:
    return "text" if piece.marked is None else "reasoning" if piece.marked.span.reasoning else "marked"


@settings(deadline=None, max_examples=500)
@given(
    text=TEXTS,
    stops=STOPS.map(tuple),
    form=st.sampled_from(sorted(FORMS)),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8),
    limit=st.integers(1, 5),
    stretch=st.sampled_from([0, 2, 50]),
    eos=st.booleans(),
    begun=st.booleans(),
    holds=st.lists(st.integers(0, 30), max_size=6),
)
@example("<c>a</c> \n<c>b</c> \n", (), "closed", [1], 1, 0, False, False, [])
@example("a<c>b</c>ab", ("</c> a", "ab"), "closed", [2], 2, 0, True, False, [])
def test_what_is_released_does_not_depend_on_the_cuts(
    text: str,
    stops: tuple[str, ...],
    form: str,
    sizes: list[int],
    limit: int,
    stretch: int,
    eos: bool,
    begun: bool,
    holds: list[int],
) -> None:
    spans = FORMS[form]
    inside = THOUGHT if begun and THOUGHT in spans else None
    tokens, at = [], 0
    while at < len(text):
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(Token(len(tokens), text[at : at + size]))
        at += size
    tokens += [Token(0, "", last=True)] if eos else []
    answer = AnswerText(stops, spans, inside=inside)
    pieces: list[Piece] = []
    used, finish = 0, None
    while used < len(tokens) and finish is None:
        cutter = SegmentCutter(
            limit,
            stops=stops,
            held=answer.held,
            spans=spans,
            stretch=stretch,
            at_start=answer.is_at_start,
            inside=answer.inside,
        )
        for token in tokens[used:]:
            if cutter.feed(token):
                break
        candidate = cutter.candidate()
        used, finish = used + len(candidate), candidate.finish
        before = answer.released
        hold = holds[used % len(holds)] if holds else None
        pieces += answer.accept(candidate, () if hold is None else (hold,))
        assert answer.released + answer.held == answer.accepted
        assert answer.released.startswith(before)
        assert THOUGHT in spans or answer.is_at_start == (not answer.released.strip())
        assert up_to_stop(text, stops).startswith(answer.released)
        if hold is not None and finish is None:
            assert len(answer.released) <= max(hold, len(before))
    pieces += answer.end()
    assert answer.held == ""
    assert answer.accepted == up_to_stop(text, stops)
    given = [(piece.text, kind_of(piece)) for piece in pieces]
    assert joined(given) == joined(one_pass(answer.accepted, spans, inside))
    assert not any(stop in answer.released for stop in stops)


def test_a_stop_string_is_taken_back_from_what_is_held() -> None:
    answer = AnswerText(("STOP",))
    assert [piece.text for piece in answer.accept(Candidate(tokens=(), text="well ST"))] == ["well "]
    assert (answer.released, answer.held) == ("well ", "ST")
    assert answer.accept(Candidate(tokens=(), text="", finish="stop", stop_overlap=2)) == []
    assert answer.accepted == "well "


def test_what_is_released_is_never_taken_back() -> None:
    answer = AnswerText(("STOP",))
    answer.accept(Candidate(tokens=(), text="well ST"))
    with pytest.raises(ProtocolError, match="3 characters"):
        answer.accept(Candidate(tokens=(), text="x", finish="stop", stop_overlap=3))
    assert (answer.released, answer.held) == ("well ", "ST")


def test_a_place_that_somebody_holds_is_not_passed() -> None:
    """As a judge will that has seen the beginning of a match."""
    answer = AnswerText(spans=FORMS["closed"])
    assert [p.text for p in answer.accept(Candidate(tokens=(), text="key sk-"), (4,))] == ["key "]
    assert [p.text for p in answer.accept(Candidate(tokens=(), text="12 <c>x</c>"), (12,))] == ["sk-12 "]
    # a marked part waits as a whole
    assert answer.held == "<c>x</c>"
    assert [p.text for p in answer.accept(Candidate(tokens=(), text="."))] == ["<c>x</c>", "."]
    # what is released already cannot be held
    assert [p.text for p in answer.accept(Candidate(tokens=(), text="!"), (0,))] == []
    assert [p.text for p in answer.end()] == ["!"]


def test_the_text_is_in_no_repr() -> None:
    answer = AnswerText()
    pieces = answer.accept(Candidate(tokens=(), text="secret"))
    assert "secret" not in repr((answer, pieces))


@given(text=TEXTS, words=st.lists(st.sampled_from(PARTS), max_size=3))
def test_what_has_begun_at_the_end(text: str, words: list[str]) -> None:
    size = begun_at_end(text, words)
    begun = [n for n in range(1, len(text) + 1) for word in words if len(word) > n and word[:n] == text[-n:]]
    assert size == max(begun, default=0)


@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3), min_size=1, max_size=6))
def test_a_copy_changes_nothing(segments: list[list[str]]) -> None:
    """Judges read what a candidate would become, and most candidates become nothing."""
    looked, plain = (AnswerText((), FORMS["both"], whole_tokens=True) for _ in range(2))
    for texts in segments:
        made = Candidate(tokens=tuple(Token(0, text) for text in texts), text="".join(texts))
        tried = Candidate(tokens=(Token(0, "<"), Token(0, "ab ")), text="<ab ")
        copy(looked).accept(tried)
        copy(looked).end()
        assert looked.accept(made) == plain.accept(made)
        copy(looked).take_back(len(looked.released))
        for place in range(len(plain.accepted)):
            assert looked.fault(place) == plain.fault(place)
