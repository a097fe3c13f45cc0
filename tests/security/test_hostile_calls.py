"""Rules under arguments that an attacker chose: they are bounded, never crash, and fail against the call."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.audit import MemoryStore
from stars_guard.auditing.redoing import redo
from stars_guard.core.messages import ToolCall
from stars_guard.core.tool_call_events import Approval
from stars_guard.guard import Guard
from stars_guard.rules import PastCall, RuleSet, RunState, ToolRule

APPROVED = Approval(outcome="approved")
CONDITIONS = [
    "args.x > 100",
    "args.x == 5",
    'args.x == "5"',
    'args.x.contains("a")',
    'args.x.matches("(a+)+$")',
    'args.x.exists(y, y == "a")',
    "args.x.all(y, args.x.all(z, y == z))",
    'domain(args.x) == "evil.example"',
    'origin(args.x) == "user"',
    "args.x.y.z == 1",
    "args.x[0] == 1",
    "args.x in vars.known",
    "size(args.x) > 3",
    "int(args.x) > 3",
    'timestamp(args.x) > timestamp("2020-01-01T00:00:00Z")',
    "args.x + args.x == args.x",
    "run.calls.exists(c, c.args.x == args.x)",
    'context.x == "a"',
]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Odd:
    """A value that JSON does not have, and that must not be shown."""

    def __repr__(self) -> str:
        raise AssertionError("an argument was shown")


HOSTILE: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "huge int": lambda: 10**5000,
    "just too large": lambda: 2**64,
    "just too small": lambda: -(2**63) - 1,
    "long text": lambda: "a" * 3_000_000,
    "long list": lambda: ["a"] * 20_000,
    "deep": lambda: deep(60),
    "decimal": lambda: Decimal("1e999"),
    "bytes": lambda: b"abc",
    "object": Odd,
    "set": lambda: {Odd()},
    "tuple": lambda: (1, Odd()),
    "key": lambda: {1: "a"},
    "nul": lambda: "a\0b",
}


def call(value: Any) -> ToolCall:
    return ToolCall(id="1", name="t", arguments={"x": value})


def rules(when: str, action: str = "reject") -> RuleSet:
    return RuleSet([ToolRule(name="r", when=when, action=action)], variables={"known": ["a", 1]})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arguments_neither_crash_a_condition_nor_take_long(name: str) -> None:
    given = call(HOSTILE[name]())
    for when in CONDITIONS:
        for action in ("reject", "ask", "allow"):
            found = rules(when, action).decide(given, origin=lambda value: "user")
            assert found.action in ("reject", "ask", "allow")


UNREADABLE = ["nan", "inf", "-inf", "huge int", "just too large", "just too small", "long text", "long list", "object"]


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize(
    "when", ["args.x > 100", "args.x < 100", "args.x == 5", "args.x != 5", "!(args.x in vars.known)"]
)
def test_what_no_condition_can_read_counts_against_the_call(name: str, when: str) -> None:
    value = HOSTILE[name]()
    assert rules(when).decide(call(value)).action == "reject"
    assert rules(when, "ask").decide(call(value)).action == "ask"
    assert rules(when, "allow").decide(call(value)).rule is None
    # and also where it is one of many
    assert rules(f"args.x.exists(y, {when.replace('args.x', 'y')})").decide(call([1, value])).action == "reject"


def test_a_value_that_can_t_be_read_disturbs_no_condition_about_another() -> None:
    given = ToolCall(id="1", name="t", arguments={"x": 1, "y": math.nan, "z": Odd()})
    assert rules("args.x > 5").decide(given).action == "allow"
    assert rules("args.y > 5 || args.x == 5").decide(given).failed


@pytest.mark.parametrize("levels", [65, 500, 100_000])
async def test_calls_that_nest_too_deep_or_hold_half_a_character_are_rejected(levels: int) -> None:
    store = MemoryStore()
    policy = {
        "apiVersion": "stars-guard/v1",
        "name": "p",
        "rails": {"tool_call": {"rules": [{"name": "fine", "action": "allow"}]}},
    }
    async with Guard(policy, audit=store) as guard:
        for value in (deep(levels), "half \ud800", {"\udfff": 1}):
            found = await guard.check_call("t", {"x": value}, approval=APPROVED)
            assert found.action == "reject"
            assert found.audit_id is not None
            record = store.get(found.audit_id)
            assert record.ruling is not None
            assert (record.ruling.because, record.finish) == ("arguments", "refused")
            assert redo(record) is None


async def test_arguments_that_hold_themselves_are_rejected() -> None:
    args: dict[str, Any] = {}
    args["x"] = args
    policy = {"apiVersion": "stars-guard/v1", "name": "p", "rails": {"tool_call": {"default": "ask"}}}
    async with Guard(policy, audit=MemoryStore()) as guard:
        assert (await guard.check_call("t", args)).action == "reject"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["x", "y"]) | st.text(max_size=5), VALUES, max_size=4), st.sampled_from(CONDITIONS)
)
@settings(max_examples=100)
def test_no_json_value_crashes_a_condition(args: dict[str, Any], when: str) -> None:
    given = ToolCall(id="1", name="t", arguments=args)
    run = RunState(calls=(PastCall(tool="t", args=args, result="x"),), user=("a",))
    (step,) = rules(when).explain(given, run, origin=lambda value: "user", context=args)
    assert step.outcome in ("fires", "fails", "is false")
    allowed = rules(when, "allow").decide(given, run, origin=lambda value: "user", context=args)
    assert (allowed.rule == "r") == (step.outcome == "fires")


@given(st.text(min_size=8, max_size=30, alphabet=st.characters(min_codepoint=0x3000, max_codepoint=0xD7FF)))
@settings(max_examples=15)
def test_no_argument_is_in_a_decision_or_an_explanation(secret: str) -> None:
    for value in (secret, [secret], {secret: secret}):
        for when in CONDITIONS:
            made = rules(when)
            shown = repr(made.decide(call(value))) + repr(made.explain(call(value)))
            assert secret not in shown


def test_a_past_call_that_no_condition_can_read_counts_against_the_next() -> None:
    past = RunState(calls=(PastCall(tool="a", args={"x": "a" * 300_000}, result=""),))
    assert rules('run.calls.exists(c, c.args.x == "b")').decide(call("a"), past).action == "reject"
    assert rules("args.x == 1").decide(call("a"), past).action == "allow"


def test_functions_see_the_run_of_their_own_call_alone() -> None:
    made = rules('run.read("inbox") || origin(args.x) == "tool"')

    def nested(value: Any) -> str:
        other = made.decide(call("b"), RunState(calls=(PastCall(tool="inbox", args={}, result=""),)))
        assert other.action == "reject"
        return "user"

    assert made.decide(call("a"), RunState(), origin=nested).action == "allow"
