"""The public values: a new field breaks nobody, and what cannot be true cannot be made."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass

import pytest

import stars_guard
import stars_guard.core
import stars_guard.decoding
from stars_guard.core.events import Called, Decision, Drawing, Finished, Overrun, Released, Totals
from stars_guard.core.judging import Judgement, Score
from stars_guard.core.segments import Candidate
from stars_guard.errors import ProtocolError, ScorerError


def values() -> dict[str, type]:
    """Every dataclass that is exported at the top, or lives in the rooms of values and decisions."""
    found: dict[str, type] = {}
    for package in (stars_guard.core, stars_guard.decoding):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            found |= {name: getattr(module, name) for name in module.__all__}
    found |= {name: getattr(stars_guard, name) for name in stars_guard.__all__}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and is_dataclass(kind)}


def test_public_values_take_at_most_two_arguments_by_position() -> None:
    found = values()
    assert {"CallOptions", "Candidate", "Finished", "Judge", "Outcome", "Rating", "Token"} <= found.keys()
    positional = {
        name: [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        for name, kind in found.items()
    }
    assert {name: fields for name, fields in positional.items() if len(fields) > 2} == {}


NOTHING = Judgement()
VETOED = Judgement(veto="toxic")
EMPTY = Candidate(tokens=(), text="")


def decision(**changes: object) -> Decision:
    usual = {"segment": 0, "attempt": 0, "candidate": EMPTY, "judgement": NOTHING, "verdict": "rejected", "reason": "r"}
    return Decision(**(usual | changes))  # type: ignore[arg-type]


def finished(**changes: object) -> Finished:
    usual: dict[str, object] = {
        "text": "",
        "finish": "eos",
        "reason": "",
        "totals": Totals(),
        "call_id": "c",
        "seed": 1,
    }
    usual |= {"policy": "p", "policy_sha256": "s", "seconds": 0.0}
    return Finished(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Drawing(segment=0, attempt=0, count=0),
        lambda: Overrun(segment=0, attempt=0, tokens=0),
        lambda: Released(segment=0, text=""),
        lambda: decision(judgement=VETOED, verdict="accepted"),
        lambda: decision(probability=0.5),
        lambda: decision(u=0.5),
        lambda: decision(verdict="surplus", threshold=1.0),
        lambda: decision(verdict="surplus", probability=1.0, u=0.5),
        lambda: finished(finish="raised", reason="attempts ran out"),
        lambda: finished(finish="refused"),
        lambda: finished(reason="attempts ran out"),
    ],
)
def test_an_event_that_cannot_happen_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError, match="cannot be made"):
        make()


def test_events_that_can_happen_can_be_made() -> None:
    assert decision(judgement=VETOED, threshold=1.0, probability=0.0, u=0.5).verdict == "rejected"
    assert decision(verdict="surplus").u is None
    assert finished(finish="refused", reason="attempts ran out").reason == "attempts ran out"
    assert Called(segment=0, text="<tool_call></tool_call>", index=0).tool_calls == ()


def test_a_score_has_a_value_or_an_error() -> None:
    for value, error in ((None, None), (1.0, "Broken"), (float("nan"), None)):
        with pytest.raises(ScorerError):
            Score(judge="toxic", value=value, error=error)
