"""Which texts go into one pass of a model that keeps nothing of what it has read: those of like lengths.

A row of a pass is as long as its longest text, and what a shorter one lacks is padding that costs as much as text. Few
large passes have much of it, and many small ones have their start to pay. The division that costs least is found.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["passes"]


def passes(lengths: Sequence[int], most: int, start: int) -> list[list[int]]:
    """The indices of the texts of each pass, shorter texts first.

    Args:
        lengths: in tokens.
        most: texts of one pass.
        start: what a pass costs beside its texts, as the number of tokens that take as long.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    # of the first n texts: the least cost, and where their last pass begins
    costs, begins = [0], [0]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        options = [(costs[at] + start + (end - at) * longest, -at) for at in range(max(0, end - most), end)]
        cost, at = min(options)
        costs.append(cost)
        begins.append(-at)
    found, end = [], len(order)
    while end:
        found.append(order[begins[end] : end])
        end = begins[end]
    return found[::-1]
