"""Half a character in a call's arguments rejects that call, and the run goes on."""

from __future__ import annotations

from typing import Any

import pytest
from approval_agents import DOORS, Run, calling, ran, results
from hypothesis import given, settings
from hypothesis import strategies as st

_HALVES = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)


@pytest.mark.parametrize("is_async", DOORS)
@given(half=_HALVES, place=st.integers(0, 3))
@settings(max_examples=6, deadline=None)
def test_half_a_character_rejects_the_call_and_the_run_goes_on(is_async: bool, half: str, place: int) -> None:
    shapes: list[dict[str, Any]] = [
        {"to": f"a{half}", "amount": 1},
        {"to": "a", "amount": 1, "more": [{"x": half}]},
        {"to": "a", "amount": 1, half: 1},
        {"to": "a", "amount": half},
    ]
    run = Run([calling(("send", shapes[place])), "Done."], is_async=is_async, saver=None)
    state = run.begin()
    assert not ran
    assert "half a character" in results(state)[0]
    assert state["messages"][-1].text.strip() == "Done."
