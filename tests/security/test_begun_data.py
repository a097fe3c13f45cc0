"""Personal data that has begun and not ended is seen from its first character on, in each of its forms."""

from __future__ import annotations

import pytest
from test_personal_data import forms

from stars_guard.scorers.pii import KINDS, PiiScorer


@pytest.mark.parametrize("kind", KINDS)
def test_no_beginning_is_missed(kind: str) -> None:
    scorer = PiiScorer([kind])
    missed = []
    for form in sorted(forms(kind))[::2]:
        for text in (form, f"It is {form}"):
            start = min((begin for begin, _, _ in scorer.find(text)), default=len(text))
            for cut in range(start + 1, len(text)):
                if scorer.find(text[:cut]):
                    break  # it is complete, and vetoed
                place = scorer.open_from(text[:cut])
                if place is None or place > start:
                    missed.append((text[:cut], place))
    assert missed == []


@pytest.mark.parametrize(
    "text",
    [
        "The lake is deep, and its water is",
        "We met at noon, and then we went",
        "Vor dem Haus steht ein großer",
        "東京都は大きい",
    ],
)
def test_little_waits_where_nothing_has_begun(text: str) -> None:
    place = PiiScorer(KINDS).open_from(text)
    assert place is None or len(text) - place <= 8
