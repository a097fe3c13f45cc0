"""Whether a call goes beyond what a run may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from stars_guard.rules._condition import Amount
from stars_guard.rules._steps import Outcome, Step
from stars_guard.rules.globs import matches_any
from stars_guard.rules.model import Budget
from stars_guard.rules.run import PastCall, RunState

__all__ = ["Cost", "cost_of", "exceeded", "spent"]


Cost = Mapping[str, "float | Amount"]
"""What a call of a tool costs, by globs."""


def exceeded(budgets: Sequence[Budget], cost: Cost, call: PastCall, run: RunState) -> Iterator[Step]:
    """What each budget says about the next call."""
    for budget in budgets:
        outcome: Outcome = "another tool"
        why = ""
        if matches_any(call.tool, budget.tools):
            why = "; ".join(_beyond(budget, cost, call, run))
            outcome = "fires" if why else "within"
        yield Step(
            name=budget.name,
            action=budget.action,
            outcome=outcome,
            because="budget",
            message=budget.message,
            why=why,
        )


def _beyond(budget: Budget, cost: Cost, call: PastCall, run: RunState) -> Iterator[str]:
    """Each limit that the call goes beyond, in words."""
    calls = [past for past in run.ran if matches_any(past.tool, budget.tools)]
    if budget.calls is not None and len(calls) >= budget.calls:
        yield f"{len(calls)} of {budget.calls} calls are used"
    if budget.calls_each is not None and (used := sum(past.tool == call.tool for past in calls)) >= budget.calls_each:
        yield f"{used} of {budget.calls_each} calls of the tool are used"
    # what is no number is beyond every limit
    if budget.tokens is not None and not run.tokens < budget.tokens:
        yield f"{budget.tokens} tokens are used"
    if budget.seconds is not None and not run.seconds < budget.seconds:
        yield f"{budget.seconds:g} seconds are used"
    if budget.cost is not None:
        total = sum((cost_of(one, cost) for one in (*calls, call)), Decimal())
        if total > _exact(budget.cost):
            said = f"the calls would cost {total}" if total.is_finite() else "what a call costs can't be computed"
            yield f"{said}, and {budget.cost:g} is allowed"


def cost_of(call: PastCall, cost: Cost) -> Decimal:
    """What a call costs: the highest price whose glob matches; nothing where none does."""
    prices = [price for glob, price in cost.items() if matches_any(call.tool, [glob])]
    return max((one.of(call.args) if isinstance(one, Amount) else _exact(one) for one in prices), default=Decimal())


def spent(cost: Cost, run: RunState) -> Decimal:
    """What all calls of a run have cost."""
    return sum((cost_of(call, cost) for call in run.ran), Decimal())


def _exact(number: float) -> Decimal:
    return Decimal(repr(number))  # so that three times 0.1 are 0.3
