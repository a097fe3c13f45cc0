"""Rules about tool calls: what they see, which decides, what a policy says of them, and what a guard makes of them."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.redoing import redo
from stars_guard.cli.app import app
from stars_guard.core.messages import ToolCall
from stars_guard.core.tool_call_events import Approval
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import RuleAction
from stars_guard.errors import InputError, PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import load_policy, policy_schema, resolve_policy
from stars_guard.policy.show import annotated
from stars_guard.rules import Budget, PastCall, RuleSet, RunState, ToolRule

APPROVED = Approval(outcome="approved")
STRICTEST = ["reject", "ask", "allow"]
SECRET = {"name": "secret", "type": "patterns", "patterns": [{"name": "code", "regex": "swordfish"}]}


def call(name: str, **args: Any) -> ToolCall:
    return ToolCall(id="1", name=name, arguments=args)


def past(tool: str, result: str | None = "done", **more: Any) -> PastCall:
    return PastCall(tool=tool, args=more.pop("args", {}), result=result, **more)


def rule(when: str | None = None, action: str = "reject", name: str = "r", **more: Any) -> ToolRule:
    return ToolRule(name=name, when=when, action=action, **more)  # type: ignore[arg-type]


def holds(when: str, given: ToolCall, run: RunState | None = None, **more: Any) -> bool | None:
    """What a condition says of a call; None where it can't be evaluated."""
    variables = more.pop("variables", {})
    (step,) = RuleSet([rule(when)], variables=variables).explain(given, run, **more)
    return {"fires": True, "is false": False, "fails": None}[step.outcome]


def policy(**rail: Any) -> dict[str, Any]:
    return {"apiVersion": "stars-guard/v1", "name": "agents", "rails": {"tool_call": rail}}


# what conditions see


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("args.amount > 100", True),
        ("args.amount > 1000", False),
        ("args.note > 100", None),
        ("args.nothing == 1", None),
        ("has(args.nothing)", False),
        ('args.to.exists(one, one.endsWith("@evil.example"))', True),
        ('args["to"][0] == "a@ok.example"', True),
        ('args.who.name == "Eve"', True),
        ('tool == "send_money"', True),
        ('user.exists(text, text.contains("rent"))', True),
        ("args.amount > vars.limit", True),
        ("!(args.who.name in vars.known)", True),
        ('"admin" in context.roles', True),
        ('context.user_id == "u1"', True),
        ("context.nothing", None),
        ('run.read(["read_*", "web_get"])', True),
        ('run.read("search")', False),
        ('run.read("pending")', False),
        ('run.count(["*"]) == 2', True),
        ('run.count("read_inbox") == 1', True),
        ("run.tokens == 500 && run.seconds < 3.5", True),
        ('"read_inbox" in run.tools && !("delete_all" in run.tools)', True),
        ('run.calls.exists(c, c.tool == "read_inbox" && c.args.folder == "in")', True),
        ("run.calls.exists(c, c.rejected)", True),
        ("run.calls.size() == 3", True),
        ('origin(args.who.name) == "tool"', True),
        ('origin(args.amount) == "user"', True),
        ("args.flag", True),
        ("args.amount", None),
    ],
)
def test_a_condition_sees_the_call_and_its_run(when: str, expected: bool | None) -> None:
    given = call(
        "send_money", amount=250, note="hi", to=["a@ok.example", "b@evil.example"], who={"name": "Eve"}, flag=True
    )
    run = RunState(
        calls=(
            past("read_inbox", args={"folder": "in"}),
            past("pending", None),
            past("delete_all", None, rejected=True),
        ),
        tokens=500,
        seconds=3.25,
        user=("pay the rent",),
    )
    found = holds(
        when,
        given,
        run,
        variables={"limit": 200, "known": ["Ann"]},
        context={"roles": {"admin"}, "user_id": "u1"},
        origin=lambda value: "user" if value == 250 else "tool",
    )
    assert found is expected


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://Example.ORG/a?b#c", "example.org"),
        ("https://example.org:8443", "example.org"),
        ("http://example.org.", "example.org"),
        ("ftp://good.example@evil.example/", "evil.example"),
        ("https://good.example:80@evil.example", "evil.example"),
        ("https://evil.example#@good.example", "evil.example"),
        ("https://evil.example?@good.example", "evil.example"),
        ("www.example.org/path/@x", "www.example.org"),
        ("example.org:80", "example.org"),
        ("http://[::1]:80/", "::1"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://ｅｖｉｌ.example", "evil.example"),
        ("https://evil。example", "evil.example"),
        ("ann@example.org", "example.org"),
        ("mailto:ann@Example.org", "example.org"),
        # what programs would not agree on is no URL
        ("https://evil.example\\@good.example", None),
        ("https://evil.example\t.good.example", None),
        ("https:///evil.example", None),
        ("http:evil.example", None),
        ("javascript:alert(1)", None),
        ("a@evil.example,b@good.example", None),
        ("Ann <a@evil.example>", None),
        ("a@evil.example@good.example", None),
        ("https://evil.example,good.example", None),
        ("https://%65vil.example", None),
        ("", None),
        ("/etc/passwd", None),
    ],
)
def test_the_domain_of_what_is_called(text: str, host: str | None) -> None:
    expected = None if host is None else True
    assert holds(f'domain(args.url) == "{host}"', call("get", url=text)) is expected


@pytest.mark.parametrize("origin", [None, lambda value: "nobody", lambda value: 1 / 0])
def test_an_origin_that_nobody_knows_fails_the_condition(origin: Any) -> None:
    assert holds('origin(args.x) == "user"', call("t", x="a"), origin=origin) is None


# which rule decides

ACTIONS: st.SearchStrategy[Any] = st.sampled_from(STRICTEST)
CONDITIONS = st.sampled_from([None, "args.n > 0", "args.n < 0", "args.missing == 1"])


@given(
    st.lists(st.tuples(st.sampled_from(["*", "send", "s*", "?end", "other"]), CONDITIONS, ACTIONS), max_size=6),
    ACTIONS,
    st.randoms(),
)
@settings(max_examples=150)
def test_the_strictest_rule_that_applies_decides_in_any_order(
    parts: list[tuple[str, str | None, RuleAction]], default: RuleAction, shuffle: Any
) -> None:
    rules = [rule(when, action, f"r{i}", tools=(glob,)) for i, (glob, when, action) in enumerate(parts)]
    applying = [
        (action, f"r{i}")
        for i, (glob, when, action) in enumerate(parts)
        if glob != "other" and when != "args.n < 0" and not (when == "args.missing == 1" and action == "allow")
    ]
    expected = min((action for action, _ in applying), key=STRICTEST.index, default=default)
    found = RuleSet(rules, default=default).decide(call("send", n=1))
    assert found.action == expected
    assert found.rule == next((name for action, name in applying if action == expected), None)
    shuffle.shuffle(rules)
    assert RuleSet(rules, default=default).decide(call("send", n=1)).action == expected


@pytest.mark.parametrize(("action", "expected"), [("reject", "reject"), ("ask", "ask"), ("allow", "ask")])
def test_a_condition_that_fails_counts_against_the_call(action: str, expected: str) -> None:
    found = RuleSet([rule("args.x > 1", action, message="No.")], default="ask").decide(call("t"))
    assert found.action == expected
    assert (found.rule, found.failed, found.message) == (("r", True, "No.") if action != "allow" else (None, False, ""))


def test_names_of_tools_are_matched_as_globs_and_nothing_else() -> None:
    def matches(glob: str, name: str) -> bool:
        return RuleSet([rule(tools=(glob,))]).decide(call(name)).action == "reject"

    assert matches("send_*", "send_")
    assert matches("*_all", "delete_all")
    assert matches("a?c", "abc")
    assert matches("a.c", "a.c")
    assert not matches("a.c", "abc")
    assert not matches("send_*", "resend_x")
    assert not matches("send_*", "Send_x")
    assert not matches("[ab]", "a")
    assert matches("*a*b*", "xxaxxbxx")
    assert not matches("*a*b", "xxaxxbxx")
    assert matches("**", "")
    assert not matches("?*", "")


@given(st.text("ab*?", max_size=6), st.text("ab*", max_size=8))
def test_globs_match_as_those_of_files_do(glob: str, name: str) -> None:
    expected = fnmatchcase(name, glob)
    assert (RuleSet([rule(tools=(glob or "x",))]).decide(call(name)).action == "reject") is (expected and bool(glob))


# budgets


@pytest.mark.parametrize(
    ("budget", "within", "beyond"),
    [
        ({"calls": 2}, [past("a")], [past("a"), past("b")]),
        ({"calls": 2}, [past("a"), past("b", None, rejected=True)], [past("a"), past("b", None)]),
        ({"calls": 1, "tools": ["send"]}, [past("a"), past("b")], [past("send")]),
        ({"calls_each": 1}, [past("a"), past("b")], [past("send")]),
        ({"calls": 0}, None, []),
        ({"cost": 0.3}, [past("send")] * 2, [past("send")] * 3),
        ({"cost": 0.3}, [past("free")] * 9, [past("dear")]),
    ],
)
def test_a_call_beyond_a_budget_is_rejected(
    budget: dict[str, Any], within: list[PastCall] | None, beyond: list[PastCall]
) -> None:
    rules = RuleSet(
        budgets=[Budget.model_validate({"name": "b", **budget})], cost={"send": 0.1, "d*": 0.25, "dear": 0.1}
    )
    if within is not None:
        assert rules.decide(call("send"), RunState(calls=tuple(within))).action == "allow"
    found = rules.decide(call("send"), RunState(calls=tuple(beyond)))
    assert (found.action, found.rule, found.because) == ("reject", "b", "budget")


def paid(*amounts: Any) -> RunState:
    return RunState(calls=tuple(past("pay", args={"amount": amount}) for amount in amounts))


@pytest.mark.parametrize(
    ("before", "amount", "within"),
    [
        ((), 100, True),
        ((), 100.5, False),
        ((40, 30), 30, True),
        ((40, 30), 30.1, False),
        ((0.1, 0.2), 99.7, True),
        # what can't be told is too much, and nothing is earned
        ((), "1", False),
        ((), -1, False),
        ((), None, False),
        ((), float("nan"), False),
        ((), 10**30, False),
        (("1",), 1, False),
        ((60, -50), 50, False),
    ],
)
def test_money_that_calls_move_is_added_up(before: tuple[Any, ...], amount: Any, within: bool) -> None:
    rules = RuleSet(budgets=[Budget(name="b", cost=100, action="ask")], cost={"pay": "args.amount"})
    assert rules.decide(call("pay", amount=amount), paid(*before)).action == ("allow" if within else "ask")
    assert rules.decide(call("other")).action == "allow"
    assert rules.decide(call("pay")).action == "ask"


def test_the_cost_of_a_call_sees_the_tool_s_defaults() -> None:
    rules = RuleSet(budgets=[Budget(name="b", cost=100)], cost={"pay": "args.amount * args.times"})
    schema = {"properties": {"amount": {"type": "number"}, "times": {"type": "number", "default": 3.0}}}
    pay = Tool(name="pay", description="", parameters=schema)
    assert rules.decide(call("pay", amount=30.0), tool=pay).action == "allow"
    assert rules.decide(call("pay", amount=40.0), tool=pay).action == "reject"
    assert rules.decide(call("pay", amount="1"), tool=pay).action == "reject"
    with pytest.raises(PolicyError, match=r"args\.amount"):
        RuleSet(budgets=[Budget(name="b", cost=1)], cost={"pay": "args.amont"}).check_tools([pay])


@pytest.mark.parametrize("kind", ["tokens", "seconds"])
def test_a_run_that_used_up_its_tokens_or_seconds_is_asked_about(kind: str) -> None:
    rules = RuleSet(budgets=[Budget.model_validate({"name": "b", kind: 100, "action": "ask", "tools": ["send"]})])
    assert rules.decide(call("send"), RunState(**{kind: 99})).action == "allow"  # type: ignore[arg-type]
    assert rules.decide(call("send"), RunState(**{kind: 100})).action == "ask"  # type: ignore[arg-type]
    assert rules.decide(call("other"), RunState(**{kind: 100})).action == "allow"  # type: ignore[arg-type]
    assert rules.decide(call("send"), RunState(**{kind: float("nan")})).action == "ask"  # type: ignore[arg-type]


# tools and their schemas

SEND = Tool(
    name="send_money",
    description="",
    parameters={
        "type": "object",
        "properties": {
            "amount": {"type": "number"},
            "recipient": {"$ref": "#/$defs/Person"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "urgent": {"type": "boolean", "default": False},
            "memo": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "extra": {"type": "object", "additionalProperties": True},
        },
        "required": ["amount", "recipient"],
        "$defs": {
            "Person": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "boss": {"$ref": "#/$defs/Person"}},
            }
        },
    },
)
LIST = Tool(
    name="list_files", description="", parameters={"type": "object", "properties": {"path": {"type": "string"}}}
)
FREE = Tool(name="free_form", description="", parameters={"type": "object"})


@pytest.mark.parametrize(
    ("when", "near"),
    [
        ("args.amuont > 1", "args.amount"),
        ('args["amuont"] > 1', "args.amount"),
        ("has(args.amuont)", "args.amount"),
        ('args.recipient.nmae == "x"', "args.recipient.name"),
        ('args.recipient.boss.boss.nam == "x"', "args.recipient.boss.boss.name"),
        ('origin(args.recipent) == "tool"', "args.recipient"),
        ('args.tagz.exists(t, t == "x")', "args.tags"),
        ("[1].exists(x, args.urgnt)", "args.urgent"),
        ("args.amount.cents > 1", "no fields"),
        ("args.path.size() > 1 || args.zzz", "amount, recipient"),
    ],
)
def test_a_misspelt_argument_is_found_when_the_agent_is_built(when: str, near: str) -> None:
    rules = RuleSet([rule(when, tools=("send_*",))])
    with pytest.raises(PolicyError, match="rules: 'r': when") as found:
        rules.check_tools([SEND, LIST])
    assert near in str(found.value)


@pytest.mark.parametrize(
    "when",
    [
        "args.amount > 1 && args.urgent",
        'args.recipient.boss.boss.name == "x"',
        'args.tags[0] == "x"',
        'args.tags.exists(args, args.anything == "x")',
        "args.extra.whatever.deep == 1",
        'args.memo == "x" && vars.anything && context.anything',
        "args.size() > 3",
    ],
)
def test_arguments_that_a_tool_has_are_no_problem(when: str) -> None:
    RuleSet([rule(when, tools=("send_*",))]).check_tools([SEND, LIST])


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ('args.amount == "100"', "its type is number"),
        ("args.urgent != 1", "its type is boolean"),
        ("args.memo == 3", "its type is null or string"),
        ('args.recipient == "Eve"', "its type is object"),
        ("args.tags[0] == 1", "its type is string"),
        ('true || args.kind == "privat"', "did you mean `private`?"),
        ('args.kind in ["wrk", "work"]', "did you mean `work`?"),
        ('"other" == args.kind', "it is one of private, work"),
    ],
)
def test_a_comparison_that_is_never_true_is_found_when_the_agent_is_built(when: str, why: str) -> None:
    kinds = {**SEND.parameters["properties"], "kind": {"enum": ["private", "work"]}}
    tool = Tool(name="send_money", description="", parameters={**SEND.parameters, "properties": kinds})
    rules = RuleSet([rule(when)])
    with pytest.raises(PolicyError, match="which no tool takes") as found:
        rules.check_tools([tool])
    assert why in str(found.value)
    rules.check_tools([tool, FREE])  # which takes anything


@pytest.mark.parametrize("when", ["args.amount > 1", "args.amount > 1.5", "args.memo == null", "args.urgent == true"])
def test_comparisons_with_what_a_tool_takes_are_no_problem(when: str) -> None:
    RuleSet([rule(when)]).check_tools([SEND, LIST])


def test_an_argument_is_right_if_one_of_the_rule_s_tools_has_it() -> None:
    RuleSet([rule("args.amount > 1")]).check_tools([SEND, LIST])
    RuleSet([rule("args.anything > 1", tools=("free_*",))]).check_tools([SEND, FREE])
    with pytest.raises(PolicyError, match=r"args\.amount"):
        RuleSet([rule("args.amount > 1", tools=("list_*",))]).check_tools([SEND, LIST])


@pytest.mark.parametrize(
    ("glob", "near"), [("send_mony", "send_money"), ("lst_*", "list_files"), ("x", "send_money, list")]
)
def test_a_misspelt_tool_is_found_when_the_agent_is_built(glob: str, near: str) -> None:
    for rules in (
        RuleSet([rule(tools=("send_money", glob))]),
        RuleSet(budgets=[Budget(name="b", calls=1, tools=(glob,))]),
    ):
        with pytest.raises(PolicyError, match="no tool matches") as found:
            rules.check_tools([SEND, LIST])
        assert near in str(found.value)
    RuleSet([rule(tools=("send_money", glob), optional=True)]).check_tools([SEND, LIST])
    RuleSet(budgets=[Budget(name="b", calls=1, tools=(glob,), optional=True)]).check_tools([SEND, LIST])


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(PolicyError) as found:
        RuleSet([rule("args.a && args.b", name="one", tools=("send_*",)), rule(name="two", tools=("x",))]).check_tools(
            [SEND]
        )
    assert len(str(found.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("when", "args", "expected"),
    [
        ("args.urgent", {}, False),
        ("args.memo == null", {}, True),
        ("args.amount == 100", {"amount": 100}, True),
        ("args.amount == 100", {"amount": 100.0}, True),
        # a tool would convert these, and the condition would have compared something else
        ("args.amount == 100", {"amount": "100"}, None),
        ("args.urgent == true", {"urgent": "yes"}, None),
        ("args.urgent == true", {"urgent": 1}, None),
        ('args.recipient.name == "Eve"', {"recipient": {"name": ["Eve"]}}, None),
        ('args.memo == "x"', {"memo": 1}, None),
        ('args.tags.exists(t, t == "x")', {"tags": ["a", 1]}, None),
        ('args.tags.exists(t, t == "x")', {"tags": "x"}, None),
        ("args.amount == 1", {"amount": 1, "tags": 3}, True),
    ],
)
def test_conditions_see_arguments_as_the_tool_gets_them(when: str, args: dict[str, Any], expected: bool | None) -> None:
    assert holds(when, call("send_money", **args), tool=SEND) is expected


@pytest.mark.parametrize("ref", ["#/$defs/A~1mount", "#/%24defs/A~1mount", "#/properties/first/anyOf/1", "#amount"])
def test_a_reference_leads_to_its_part_however_it_is_written(ref: str) -> None:
    amount = {"$anchor": "amount", "type": "object", "properties": {"cents": {"type": "integer", "default": 5}}}
    fields = {"first": {"anyOf": [{"type": "null"}, amount]}, "amount": {"$ref": ref}}
    pay = Tool(name="pay", description="", parameters={"properties": fields, "$defs": {"A/mount": amount}})
    assert holds("args.amount.cents == 5", call("pay", amount={}), tool=pay) is True
    assert holds("args.amount.cents == 5", call("pay", amount=5), tool=pay) is None
    with pytest.raises(PolicyError, match=r"did you mean `args\.amount\.cents`"):
        RuleSet([rule("args.amount.cent == 5")]).check_tools([pay])


# what a policy says of them


@pytest.mark.parametrize(
    ("when", "near"),
    [
        ("args.amount >", "not a condition in CEL"),
        ("arg.amount > 1", "`args`"),
        ("orgin(args.x) == 'tool'", "`origin`"),
        ("args.x.startWith('a')", "`startsWith`"),
        ("run.tokns > 1", "`run.tokens`"),
        ("vars.alowed == 1", "`vars.allowed`"),
        ("args.amount + 1", "int"),
        ("'yes'", "string"),
        ("tool > 3", "overload"),
        ("read(['x'])", "run.read"),
        ("args.x.count(['x']) == 1", "run.count"),
        ("(" * 100 + "true" + ")" * 100, "recursion"),
        ("true ||" * 2000 + "true", "4096"),
    ],
)
def test_a_bad_condition_is_found_with_its_line(tmp_path: Path, when: str, near: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "apiVersion: stars-guard/v1\nname: p\nrails:\n  tool_call:\n    vars: {allowed: 1}\n    rules:\n"
        f"      - name: r\n        action: ask\n        when: {json.dumps(when)}\n"
    )
    with pytest.raises(PolicyError) as found:
        load_policy(path)
    assert f"{path}:9: rails.tool_call.rules[0].when: " in str(found.value)
    assert near in str(found.value)
    done = CliRunner().invoke(app, ["policy", "check", str(path)])
    assert done.exit_code == 1
    assert near in done.output


@pytest.mark.parametrize(
    ("rail", "problem"),
    [
        ({"rules": [{"name": "r", "action": "asc"}]}, "`ask`"),
        ({"rules": [{"name": "r", "action": "ask", "tool": ["x"]}]}, "`tools`"),
        ({"rules": [{"name": "r", "action": "ask", "tools": []}]}, "empty"),
        ({"rules": [{"action": "ask"}]}, "required"),
        ({"rules": [{"name": "r", "action": "ask"}] * 2}, "same name: r"),
        ({"rules": [{"name": "r", "action": "ask"}], "budgets": [{"name": "r", "calls": 1}]}, "same name: r"),
        ({"budgets": [{"name": "b"}]}, "calls_each"),
        ({"budgets": [{"name": "b", "calls": -1}]}, "calls"),
        ({"budgets": [{"name": "b", "calls": 1, "action": "allow"}]}, "reject"),
        ({"cost": {"x": -1}}, "cost"),
        ({"cost": {"x": "args.a > 1"}}, "a cost is a number"),
        ({"cost": {"x": "args.a +"}}, "not a condition in CEL"),
        ({"cost": {"x": "run.tokens"}}, "`args` alone"),
        ({"vars": {"a-b": 1}}, "vars"),
        ({"default": "deny"}, "default"),
    ],
)
def test_a_policy_with_a_mistake_in_its_rules_is_not_valid(rail: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as found:
        load_policy(policy(**rail))
    assert problem in str(found.value)


BASE = """\
apiVersion: stars-guard/v1
name: base
rails:
  tool_call:
    default: ask
    vars: {allowed: [a.example]}
    cost: {send: 1.5, pay: args.amount}
    rules:
      - {name: never, tools: ["delete_*"], action: reject}
      - {name: big, tools: [send, pay], when: args.amount > 100, action: ask}
      - {name: reads, tools: ["get_*", "list_*"], when: args.ok, action: allow}
    budgets:
      - {name: calls, tools: [send, pay], calls: 3, tokens: 100}
"""


@pytest.mark.parametrize(
    ("layer", "where"),
    [
        ("default: allow", ""),
        ("vars: {allowed: [a.example, b.example]}", ""),
        ("cost: {send: 1.0}", ""),
        ("cost: {send: args.amount}", ""),
        ("cost: {pay: 1000}", ""),
        ("cost: {pay: args.amount * 2}", ""),
        ("rules: [{name: never, action: ask}]", "rule"),
        ("rules: [{name: never, when: args.x > 1}]", "rule"),
        ('rules: [{name: never, tools: ["delete_all"]}]', "rule"),
        ("rules: [{name: never, optional: true}]", "rule"),
        ("rules: [{name: big, when: args.amount > 200}]", "rule"),
        ("rules: [{name: big, tools: [send]}]", "rule"),
        ("rules: [{name: big, action: allow}]", "rule"),
        ("rules: [{name: more, action: allow}]", "rule"),
        ('rules: [{name: reads, tools: ["*"]}]', "rule"),
        ("rules: [{name: reads, when: args.fine}]", "rule"),
        ("budgets: [{name: calls, calls: 4}]", "budget"),
        ("budgets: [{name: calls, calls: null}]", "budget"),
        ("budgets: [{name: calls, tokens: 101}]", "budget"),
        ("budgets: [{name: calls, action: ask}]", "budget"),
        ("budgets: [{name: calls, tools: [send]}]", "budget"),
    ],
)
def test_a_child_cannot_loosen_rules_without_saying_so(tmp_path: Path, layer: str, where: str) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "child.yaml"
    path.write_text(f"extends: ./base.yaml\nrails:\n  tool_call:\n    {layer}\n")
    with pytest.raises(PolicyError, match=r"child.yaml:4: .*looser than 'base'") as found:
        load_policy(path)
    assert f"in the {where}" in str(found.value) if where else "at the top" in str(found.value)
    if where:
        text = path.read_text().replace("[{name", "[{override: true, name")
    else:
        text = f"override: true\n{path.read_text()}"
    path.write_text(text)
    assert len(resolve_policy(path).loosened) == 1


@pytest.mark.parametrize(
    "layer",
    [
        "default: reject",
        "vars: {other: 1}",
        "cost: {send: 2, wire: 1}",
        "rules: [{name: never, message: Never.}]",
        'rules: [{name: never, tools: ["*"]}]',
        "rules: [{name: big, when: null}]",
        "rules: [{name: big, action: reject, tools: [send, pay, wire]}]",
        "rules: [{name: reads, tools: [list_*]}]",
        "rules: [{name: reads, action: ask}]",
        "rules: [{name: more, action: reject}, {name: even, action: ask}]",
        "budgets: [{name: calls, calls: 2, action: reject, seconds: 9}]",
        "budgets: [{name: more, calls: 2}]",
    ],
)
def test_a_child_may_tighten_rules(tmp_path: Path, layer: str) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "child.yaml"
    path.write_text(f"extends: ./base.yaml\nrails:\n  tool_call:\n    {layer}\n")
    found = resolve_policy(path)
    assert found.loosened == ()
    assert [one.name for one in found.policy.rails.tool_call.rules][:3] == ["never", "big", "reads"]


def test_the_schema_and_the_digest_know_rules(tmp_path: Path) -> None:
    rules = [
        {"name": "r", "tools": ["x"], "when": "args.a > vars.b", "action": "ask", "message": "m", "optional": True}
    ]
    given = policy(rules=rules, default="reject", vars={"b": 1}, budgets=[{"name": "c", "cost": 2}], cost={"x": 1})
    validator = jsonschema.Draft202012Validator(policy_schema(["patterns"]))
    assert list(validator.iter_errors(given)) == []
    assert list(validator.iter_errors(policy(default="no")))
    assert list(validator.iter_errors(policy(rules=[{"action": "ask"}])))
    layer = {"extends": "base", "rails": {"tool_call": {"rules": [{"name": "r", "override": True}]}}}
    assert list(validator.iter_errors(layer)) == []
    other = policy(**{**given["rails"]["tool_call"], "rules": [{**rules[0], "when": "args.a > vars.b + 1"}]})
    assert load_policy(given).sha256 != load_policy(other).sha256


def test_a_policy_shows_in_which_order_its_rules_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOOL", "hidden_tool")
    path = tmp_path / "base.yaml"
    path.write_text(BASE.replace("tools: [send, pay], when", 'tools: ["${THE_TOOL}"], when'))
    lines = annotated(resolve_policy(path)).splitlines()
    assert lines[:7] == [
        "# tool calls: every rule is looked at, and the strictest that applies decides:",
        "#   reject: rule never (delete_*)",
        "#   reject: budget calls (send, pay)",
        "#   ask: rule big (${THE_TOOL}), under its condition",
        "#   allow: rule reads (get_*, list_*), under its condition",
        "#   otherwise: ask (default)",
        f"apiVersion: stars-guard/v1  # {path}:1",
    ]
    assert "hidden_tool" not in "\n".join(lines)
    assert not annotated(resolve_policy("default")).startswith("#")


CASES = """\
cases:
  - stage: tool_call
    call: {name: send, args: {amount: 5}}
    action: ask
  - stage: tool_call
    call: {name: send, args: {amount: 500}}
    rule: big
    action: ask
  - stage: tool_call
    call: {name: send, args: {amount: 5}}
    run: {calls: [{tool: send}, {tool: pay}, {tool: send}], tokens: 3, user: [hi]}
    action: reject
    rule: calls
  - stage: tool_call
    call: {name: get_x, args: {}}
    parameters: {properties: {ok: {type: boolean, default: true}}}
    action: allow
"""


def test_cases_of_a_policy_cover_rules_with_a_run_so_far(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    cases = tmp_path / "cases.yaml"
    command = ["policy", "test", str(cases), "--policy", str(tmp_path / "base.yaml")]
    cases.write_text(CASES)
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "4 passed, 0 failed" in done.output) == (0, True), done.output
    cases.write_text(CASES.replace("action: reject", "action: allow").replace("rule: big", "rule: never"))
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "expected rule 'never' to decide, but rule 'big' does" in done.output
    assert "expected allow, but reject: budget 'calls'" in done.output
    cases.write_text("cases: [{prompt: x, answer: y, run: {}, expect: allowed}]")
    assert CliRunner().invoke(app, command).exit_code != 0


def test_explain_says_which_rule_decides_and_why(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    given = tmp_path / "call.json"

    def explain(**about: Any) -> str:
        given.write_text(json.dumps(about))
        done = CliRunner(env={"COLUMNS": "200"}).invoke(
            app, ["policy", "explain", str(tmp_path / "base.yaml"), str(given)]
        )
        assert done.exit_code == 0, done.output
        return done.output

    text = explain(name="send", args={"amount": 500})
    assert "ask: rule 'big'" in text
    assert "another tool" in text
    assert "there is no `args.amount`" in explain(name="send", args={})
    assert "3 of 3 calls are used" in explain(name="send", args={"amount": 1}, run={"calls": [{"tool": "send"}] * 3})
    assert "ask: the default is ask" in explain(name="other")
    given.write_text('{"nam": "x"}')
    assert CliRunner().invoke(app, ["policy", "explain", str(tmp_path / "base.yaml"), str(given)]).exit_code == 2


# what a guard makes of them


def guard(**rail: Any) -> tuple[Guard, MemoryStore]:
    store = MemoryStore()
    mode = rail.pop("mode", "enforce")
    return Guard({**policy(**rail), "mode": mode}, audit=store), store


def record(store: MemoryStore, call_id: str | None) -> CallRecord:
    assert call_id is not None
    found = store.get(call_id)
    assert redo(found) is None
    return found


RULES = [
    {"name": "never", "tools": ["delete_*"], "action": "reject", "message": "Nothing is deleted."},
    {"name": "big", "tools": ["send"], "when": "args.amount > 100", "action": "ask", "message": "Much money."},
]


@pytest.mark.parametrize(
    ("name", "args", "action", "rule", "finish"),
    [
        ("send", {"amount": 1}, "allow", None, "passed"),
        ("send", {"amount": 101}, "ask", "big", "asked"),
        ("send", {}, "ask", "big", "asked"),
        ("delete_all", {}, "reject", "never", "refused"),
        ("send", {"amount": 101, "note": "swordfish"}, "reject", "big", "refused"),
        ("send", {"amount": 1, "note": "swordfish"}, "reject", None, "refused"),
    ],
)
async def test_rules_and_judges_decide_together_with_one_record(
    name: str, args: dict[str, Any], action: str, rule: str | None, finish: str
) -> None:
    made, store = guard(rules=RULES, judges=[SECRET])
    async with made:
        checked = await made.check_call(name, args, run_id="run-1")
        assert (checked.action, checked.rule, checked.allowed) == (action, rule, action == "allow")
        assert (checked.text == "") is (action != "allow")
        found = record(store, checked.audit_id)
        assert len(store.read()) == 1
    assert (found.stage, found.finish, found.run_id, found.reason) == ("tool_call", finish, "run-1", checked.reason)
    assert found.ruling is not None
    assert (found.ruling.rule, found.ruling.because) == (rule, "rule" if rule else "default")
    if action != "allow":
        assert ("swordfish" in str(args)) == ("vetoed by secret" in checked.reason)
        assert checked.message == ("" if rule is None else next(r["message"] for r in RULES if r["name"] == rule))


async def test_a_person_s_word_settles_a_question_and_nothing_else() -> None:
    made, store = guard(rules=RULES, judges=[SECRET])
    async with made:
        asked = await made.check_call("send", {"amount": 500}, approval=APPROVED)
        assert asked.allowed
        found = record(store, asked.audit_id)
        assert found.ruling is not None
        assert (found.ruling.action, found.ruling.approved, found.finish) == ("ask", True, "passed")
        assert not (await made.check_call("delete_x", {}, approval=APPROVED)).allowed
        assert not (await made.check_call("send", {"amount": 500, "note": "swordfish"}, approval=APPROVED)).allowed


@pytest.mark.parametrize("action", get_args(RuleAction))
async def test_monitor_decides_and_logs_the_same_and_lets_everything_through(action: str) -> None:
    made, store = guard(rules=[{"name": "r", "action": action}], mode="monitor")
    async with made:
        checked = await made.check_call("x", {})
        assert checked.allowed
        found = record(store, checked.audit_id)
        assert found.ruling is not None
        assert (found.ruling.action, found.mode) == (action, "monitor")
        assert bool(checked.reason) is (action != "allow")


async def test_what_has_no_rules_and_no_judges_is_not_looked_at() -> None:
    for made, store in (guard(), guard(rules=RULES, mode="off")):
        async with made:
            assert (await made.check_call("delete_x", {})).audit_id is None
            assert store.read() == []


async def test_a_guard_sees_run_context_origin_and_tool() -> None:
    rules = [
        {"name": "read", "when": 'run.read("inbox")', "action": "reject"},
        {"name": "role", "when": '!("admin" in context.roles)', "action": "reject"},
        {"name": "from", "when": 'origin(args.to) != "user"', "action": "reject"},
        {"name": "fast", "when": "args.urgent", "action": "reject"},
    ]
    made, _ = guard(rules=rules)
    urgent = Tool(name="t", description="", parameters={"properties": {"to": {}, "urgent": {"default": False}}})
    fine: dict[str, Any] = {"context": {"roles": ["admin"]}, "origin": lambda value: "user", "tool": urgent}
    async with made:
        assert (await made.check_call("t", {"to": "a"}, **fine)).action == "allow"
        for name, changed in {
            "read": {"run": RunState(calls=(past("inbox"),))},
            "role": {"context": {"roles": []}},
            "from": {"origin": lambda value: "tool"},
            "fast": {"tool": None},
        }.items():
            assert (await made.check_call("t", {"to": "a"}, **{**fine, **changed})).rule == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"run": {}},
        {"context": 3},
        {"origin": "user"},
        {"tool": "t"},
        {"approval": True},
        {"judged": 1},
        {"forms": "a"},
        {"messages": "a"},
    ],
)
async def test_what_a_caller_gets_wrong_is_an_error(wrong: dict[str, Any]) -> None:
    made, _ = guard(rules=RULES)
    async with made:
        with pytest.raises(InputError):
            await made.check_call("t", {}, **wrong)
        with pytest.raises(TypeError, match="contxt"):
            await made.check_call("t", {}, contxt={})  # type: ignore[call-arg]
        with pytest.raises(InputError):
            await made.check_call("t", [])  # type: ignore[arg-type]


def test_a_guard_checks_an_agent_s_tools() -> None:
    made, _ = guard(rules=RULES)
    with pytest.raises(PolicyError, match="no tool matches `delete_"):
        made.check_tools([SEND])


def test_the_sync_door_decides_too() -> None:
    made, _ = guard(rules=RULES)
    with made.blocking as blocking:
        assert blocking.check_call("delete_x", {}).action == "reject"
