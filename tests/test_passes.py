"""How texts are put into passes: nothing is left out, and no other cut costs less."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.scorers._passes import passes

LENGTHS = st.lists(st.integers(1, 40), max_size=9)


def cost(lengths: Sequence[int], cut: Sequence[Sequence[int]], start: int) -> int:
    return sum(start + len(one) * max(lengths[i] for i in one) for one in cut)


@settings(max_examples=60)
@given(lengths=LENGTHS, most=st.integers(1, 5), start=st.integers(0, 60), data=st.data())
def test_no_other_division_costs_less(lengths: list[int], most: int, start: int, data: st.DataObject) -> None:
    found = passes(lengths, most, start)
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    assert all(0 < len(one) <= most for one in found)
    # any division of any order, so that sorting is shown to be right too
    left, other = data.draw(st.permutations(range(len(lengths)))), []
    while left:
        size = data.draw(st.integers(1, min(most, len(left))))
        other.append(left[:size])
        left = left[size:]
    assert cost(lengths, found, start) <= cost(lengths, other, start)


@settings(max_examples=60)
@given(lengths=LENGTHS, most=st.integers(1, 5), start=st.integers(0, 60))
def test_every_cut_of_the_sorted_texts_is_weighed(lengths: list[int], most: int, start: int) -> None:
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    costs = []
    for count in range(len(order)):
        for inner in itertools.combinations(range(1, len(order)), count):
            cut = [order[a:b] for a, b in itertools.pairwise((0, *inner, len(order)))]
            if all(len(one) <= most for one in cut):
                costs.append(cost(lengths, cut, start))
    assert cost(lengths, passes(lengths, most, start), start) == min(costs, default=0)


def test_texts_of_one_length_fill_their_passes() -> None:
    assert [len(one) for one in passes([50] * 64, 32, 64)] == [32, 32]


def test_an_expensive_pass_is_not_divided() -> None:
    assert len(passes(list(range(1, 33)), 32, 8192)) == 1
    assert len(passes(list(range(1, 33)), 32, 8)) > 2
