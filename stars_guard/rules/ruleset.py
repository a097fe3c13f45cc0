"""What the rules of a policy say about one tool call.

Every rule is looked at, and the strictest that applies decides: ``reject`` before ``ask`` before ``allow``. Among rules
of one action the first in the policy's order is named. Budgets count as rules that come after the rules. Where nothing
applies, the default decides. So the order of rules never changes what happens, and a rule that a child policy adds
can't undo one of its parent's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from stars_guard.core.messages import ToolCall
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import RuleAction
from stars_guard.rules._budgets import exceeded, spent
from stars_guard.rules._condition import Amount, Condition, Unknown, activation
from stars_guard.rules._functions import during
from stars_guard.rules._indexed_text import IndexedTexts
from stars_guard.rules._schemas import fitted, names_in
from stars_guard.rules._steps import Outcome, RuleDecision, Step, strictest
from stars_guard.rules._tool_check import check
from stars_guard.rules._values import UNREADABLE, TooLarge, plain_values, readable
from stars_guard.rules.globs import matches_any
from stars_guard.rules.model import Budget, ToolRule
from stars_guard.rules.origin import Origins
from stars_guard.rules.run import OriginOf, PastCall, RunState

__all__ = ["Circumstances", "RuleSet"]


class _Scope:
    """What the conditions of one call see."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self._unreadable = readable(values)
        self._activation = activation(self._values)

    def fulfils(self, condition: Condition) -> bool:
        """Whether the condition is true.

        Raises:
            Unknown: it can't be evaluated; the error says why.
        """
        if condition.reads(self._unreadable):
            raise Unknown("a value is out of range, not JSON, or of a type that the tool doesn't take")
        try:
            return condition.holds(self._activation)
        except Unknown as exc:
            raise Unknown(condition.missing_in(self._values) or str(exc)) from None


@dataclass(frozen=True, slots=True)
class _Ready:
    rule: ToolRule
    condition: Condition | None


class Circumstances(TypedDict, total=False):
    """What may be known of a call besides its run.

    Attributes:
        origin: tells where a value came from. Without it, a condition that asks can't be evaluated.
        context: what the app says about the run, such as the user's id and roles.
        tool: the tool that is called. Conditions then see its defaults for what the call leaves out, and can't be
            evaluated where they read a value of another type than the tool's schema says.
    """

    origin: OriginOf | None
    context: Mapping[str, Any] | None
    tool: Tool | None


class RuleSet:
    """The rules of a policy, compiled. Safe for any number of threads. Of a call, only the index of its texts is kept.

    Args:
        rules: in the policy's order.
        budgets: limits on the run.
        default: what happens where no rule applies and no budget is exceeded.
        variables: the policy's ``vars``, which conditions read.
        cost: what a call of a tool costs, by globs; the highest that matches counts. A text is a number in CEL that
            reads the call's ``args``.
        trust: globs of tools whose results count as the user's own data.
    """

    def __init__(
        self,
        rules: Sequence[ToolRule] = (),
        *,
        budgets: Sequence[Budget] = (),
        default: RuleAction = "allow",
        variables: Mapping[str, Any] | None = None,
        cost: Mapping[str, float | str] | None = None,
        trust: Sequence[str] = (),
    ) -> None:
        self._rules = tuple(_Ready(rule, Condition(rule.when) if rule.when is not None else None) for rule in rules)
        self._budgets = tuple(budgets)
        self._default: RuleAction = default
        self._variables = dict(variables or {})
        self._cost = {glob: Amount(one) if isinstance(one, str) else one for glob, one in (cost or {}).items()}
        self._trust = tuple(trust)
        self._texts = IndexedTexts()
        conditions = [ready.condition for ready in self._rules if ready.condition is not None]
        self._reads_calls = any(path[:2] == ("run", "calls") for one in conditions for path in one.paths)

    def decide(self, call: ToolCall, run: RunState | None = None, **about: Unpack[Circumstances]) -> RuleDecision:
        """What happens to a call. The arguments are those of `explain`. It never raises for what the model wrote."""
        return strictest(self.explain(call, run, **about), self._default)

    def explain(self, call: ToolCall, run: RunState | None = None, **about: Unpack[Circumstances]) -> list[Step]:
        """What each rule and each budget says, in their order.

        Args:
            run: the run up to the call; None for one that begins with it.
        """
        run = run if run is not None else RunState()
        origin, context, tool = about.get("origin"), about.get("context"), about.get("tool")
        with during(run, origin):
            steps = list(self._of_rules(call, lambda: self._values(call, run, context, tool)))
        try:
            args = _args(call, tool) if self._cost else {}
        except TooLarge:
            args = {}  # of which no cost can be computed
        return [*steps, *exceeded(self._budgets, self._cost, PastCall(tool=call.name, args=args), run)]

    def origins(self, run: RunState, call: ToolCall | None = None, tool: Tool | None = None) -> Origins:
        """Where values of a call came from in a run, by what the policy says of its tools."""
        known = names_in(tool.parameters) if tool is not None else frozenset()
        names = known or (frozenset(map(str, call.arguments)) if call is not None else known)
        return Origins.of_run(run, trust=self._trust, texts=self._texts, names=names)

    def check_tools(self, tools: Sequence[Tool]) -> None:
        """Check the rules against an agent's tools, before its first call.

        Raises:
            PolicyError: a glob matches no tool and its rule is not ``optional``, or a condition reads an argument that
                no tool has that the rule is about. Every problem is listed, with the nearest name.
        """
        check([(ready.rule, ready.condition) for ready in self._rules], self._budgets, self._cost, tools)

    def _of_rules(self, call: ToolCall, seen: Callable[[], dict[str, Any]]) -> Iterator[Step]:
        scope: _Scope | None = None
        for ready in self._rules:
            rule, condition = ready.rule, ready.condition
            if not matches_any(call.name, rule.tools):
                yield _step(rule, "another tool")
            elif condition is None:
                yield _step(rule, "fires")
            else:
                try:
                    scope = scope if scope is not None else _Scope(seen())
                    yield _step(rule, "fires" if scope.fulfils(condition) else "is false")
                except Unknown as exc:
                    yield _step(rule, "fails", str(exc))
                except TooLarge:
                    yield _step(rule, "fails", "the arguments are too large, or aren't JSON")

    def _values(
        self, call: ToolCall, run: RunState, context: Mapping[str, Any] | None, tool: Tool | None
    ) -> dict[str, Any]:
        """What conditions see.

        Raises:
            TooLarge: the arguments, or the app's context.
        """
        about: dict[str, Any] = {
            "tokens": run.tokens,
            "seconds": float(run.seconds),
            "cost": float(spent(self._cost, run)),
            "tools": [one.tool for one in run.ran],
        }
        if self._reads_calls:
            about["calls"] = [
                {"tool": one.tool, "args": _past(one.args), "rejected": one.rejected} for one in run.calls
            ]
        return {
            "args": _args(call, tool),
            "tool": call.name,
            "user": list(run.user),
            "run": about,
            "vars": self._variables,
            "context": plain_values(context or {}),
        }


def _args(call: ToolCall, tool: Tool | None) -> Any:
    """The arguments as the tool gets them. Raises TooLarge."""
    args = plain_values(call.arguments)
    return args if tool is None else fitted(args, {**tool.parameters, "type": "object"}, tool.parameters)


def _past(args: Mapping[str, Any]) -> Any:
    try:
        return plain_values(args)
    except TooLarge:
        return UNREADABLE


def _step(rule: ToolRule, outcome: Outcome, why: str = "") -> Step:
    return Step(name=rule.name, action=rule.action, outcome=outcome, message=rule.message, why=why)
