"""The stages around the answer: what the policy says of them, what a check does, and what its record tells."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, ScriptedBackend, words

from stars_guard.audit import MemoryStore
from stars_guard.auditing.replay import regenerate
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.calling.checks import Checked
from stars_guard.core.events import Drawing
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import AuditError, BackendError, PolicyError, ScorerError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy, resolve_policy
from stars_guard.policy.layers import loosened
from stars_guard.policy.show import annotated, differences
from stars_guard.prompting.call_rendering import render_call
from stars_guard.scorers.paths import PathScorer

SECRET = {"name": "secret", "type": "patterns", "patterns": [{"name": "code", "regex": "swordfish"}]}
MAIL = {"name": "mail", "type": "pii", "kinds": ["email"]}


def boom(passage: Passage) -> float:
    """A judge that fails."""
    raise RuntimeError(passage.answer)


BOOM = {"name": "boom", "type": "python", "call": "test_rails:boom", "reject_above": 0.5}


def policy(stage: str = "input", *judges: dict[str, Any], **more: Any) -> dict[str, Any]:
    rail = {"judges": list(judges or (SECRET,)), **({"action": more.pop("action")} if "action" in more else {})}
    return {"apiVersion": "stars-guard/v1", "name": "test", "rails": {stage: rail}, **more}


def make(*args: Any, **more: Any) -> tuple[Guard, MemoryStore]:
    store = MemoryStore()
    return Guard(policy(*args, **more), model=ScriptedBackend(words()), audit=store, allow_python=True), store


async def test_a_check_passes_or_rejects_and_leaves_a_record() -> None:
    guard, store = make()
    passed = await guard.check("input", "good day", messages=USER, run_id="r1")
    refused = guard.blocking.check("input", "the swordfish", messages=USER)
    assert (passed.allowed, passed.text, passed.reason) == (True, "good day", "")
    assert refused == Checked(
        stage="input",
        allowed=False,
        text="",
        reason="vetoed by secret: code",
        audit_id=store.records[1].call_id,
        refusal="I can't help with that.",
    )
    first, second = store.records
    assert (first.stage, first.finish, first.run_id, first.answer.content) == ("input", "passed", "r1", "good day")
    assert (first.segments[0].how, first.segments[0].attempts[0].verdict) == ("accepted", "accepted")
    assert (second.finish, second.reason, second.answer.content) == ("refused", "vetoed by secret: code", "")
    (attempt,) = second.segments[0].attempts
    assert (attempt.verdict, attempt.veto, attempt.text.content) == ("rejected", "secret: code", "the swordfish")
    assert second.segments[0].ended is not None
    assert second.totals["rejections"] == 1
    assert second.prompt[0].content.content == "tell me"


async def test_monitor_logs_and_lets_through_and_off_does_nothing() -> None:
    guard, store = make(mode="monitor")
    checked = await guard.check("input", "the swordfish")
    assert (checked.allowed, checked.text, checked.reason) == (True, "the swordfish", "vetoed by secret: code")
    assert (store.records[0].finish, store.records[0].segments[0].how) == ("passed", "monitored")
    guard, store = make(mode="off")
    assert (await guard.check("input", "the swordfish")).audit_id is None
    assert not store.records


async def test_a_stage_without_judges_is_not_looked_at() -> None:
    guard, store = make()
    assert await guard.check("output", "the swordfish") == Checked(stage="output", allowed=True, text="the swordfish")
    assert not store.records


@pytest.mark.parametrize(("on_error", "allowed"), [("reject", False), ("ignore", True)])
async def test_a_failing_judge_is_what_the_policy_says(on_error: str, allowed: bool) -> None:
    guard, store = make("tool_call", {**BOOM, "on_error": on_error})
    checked = await guard.check("tool_call", "private words")
    assert checked.allowed is allowed
    assert "private" not in checked.reason
    assert store.records[0].finish == ("passed" if allowed else "refused")


async def test_a_failing_judge_may_end_the_call() -> None:
    guard, store = make("tool_call", {**BOOM, "on_error": "raise"})
    with pytest.raises(ScorerError):
        await guard.check("tool_call", "private words")
    assert (store.records[0].finish, store.records[0].error) == ("failed", "ScorerError")
    guard = Guard(policy("input", BOOM), model=ScriptedBackend(words()), audit=store)
    with pytest.raises(PolicyError, match="python judges are off"):
        await guard.check("input", "hello")
    assert store.records[-1].error == "PolicyError"


async def test_redaction_takes_out_what_judges_point_at_and_judges_again() -> None:
    guard, store = make("tool_result", SECRET, MAIL, action="redact")
    checked = await guard.check("tool_result", "say swordfish to a@example.org, twice swordfish")
    assert not checked.allowed
    assert checked.text == "say [removed: code] to [removed: email], twice [removed: code]"
    (record,) = store.records
    assert (record.finish, record.answer.content) == ("redacted", checked.text)
    assert [attempt.verdict for attempt in record.segments[0].attempts] == ["rejected", "accepted"]
    assert record.segments[0].kept == 1
    # all judges are asked, so that one takes nothing out by which another would know the rest
    assert [score.judge for score in record.segments[0].attempts[0].scores] == ["secret", "mail"]


async def test_what_no_judge_can_point_at_is_not_redacted() -> None:
    guard, _ = make("tool_result", BOOM, action="redact")
    checked = await guard.check("tool_result", "words")
    assert (checked.allowed, checked.text) == (False, "")


async def test_the_output_rail_judges_answers_while_they_are_drawn() -> None:
    awful = {"name": "awful", "type": "patterns", "patterns": [{"name": "word", "regex": "awful"}]}
    guard, store = make("output", awful, decoding={"segment_tokens": 2, "max_tokens": 24, "attempts": 64})
    done = await guard.generate(USER)
    assert "awful" not in done.text
    assert store.records[0].stage == "answer"
    assert [rule.judge for rule in store.records[0].rules] == ["awful"]


# --- texts that are handed in


def hand_in(guard: Guard, *texts: str, **options: Any) -> tuple[str, list[Any]]:
    """Whole answers, one for each that the guard asks for."""
    engine, left, said = SuppliedBackend("other"), iter(texts), []
    for event in guard.blocking.stream(USER, CallOptions(**options), engine=engine):
        said.append(event)
        if isinstance(event, Drawing):
            for _ in range(event.count):
                engine.supply(next(left), tokens=7)
    return said[-1].text, said


def test_whole_answers_are_drawn_again_with_the_record_of_any_call() -> None:
    guard, store = make("output")
    text, _ = hand_in(guard, "a swordfish", "a bream")
    assert text == "a bream"
    (record,) = store.records
    assert (record.totals["rejected"], record.totals["kept"]) == (8, 8)
    assert record.backend == {"engine": "handed in", "model": "other"}
    assert (record.decoding["schedule"], record.decoding["parallel"]) == ("constant", 1)


def test_a_call_may_lower_the_attempts_and_not_raise_them() -> None:
    guard, _ = make("output", decoding={"attempts": 2, "on_exhausted": "refuse"})
    for asked, drawn in ((1, 1), (None, 2), (9, 2)):
        _, said = hand_in(guard, *["a swordfish"] * 3, attempts=asked)
        assert sum(isinstance(event, Drawing) for event in said) == drawn
        assert said[-1].finish == "refused"


def test_best_of_n_draws_all_and_keeps_one_that_passes() -> None:
    guard, store = make("output", decoding={"method": "best_of_n", "attempts": 3})
    text, _ = hand_in(guard, "a swordfish", "a bream", "a swordfish")
    assert text == "a bream"
    assert store.records[0].totals["proposals"] == 3


def test_what_was_not_handed_in_is_an_error() -> None:
    guard, store = make("output")
    with pytest.raises(BackendError, match="1 texts were asked for, 0 were supplied"):
        list(guard.blocking.stream(USER, engine=SuppliedBackend("other")))
    assert store.records[0].finish == "failed"


async def test_an_answer_of_another_model_cannot_be_drawn_again() -> None:
    guard, store = make("output")
    await asyncio.to_thread(hand_in, guard, "a bream")
    with pytest.raises(AuditError, match="another model wrote"):
        await regenerate(store.records[0], guard.policy)


# --- the policy


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ({**SECRET, "weight": 1.0}, "rails.input.judges: judge 'secret': judges of a rail only veto"),
        ({**SECRET, "every": 2}, "rails.input.judges: judge 'secret': a rail judges each text once and whole"),
        ({**SECRET, "patern": 1}, "rails.input.judges[0].patern: unknown key; did you mean `patterns`?"),
        ({"name": "a", "type": "pattern"}, "rails.input.judges[0]: unknown type 'pattern'; installed: guard_model, "),
        ({"name": "a", "type": "paths", "roots": ["here"]}, "rails.input.judges[0].roots: not an absolute path: here"),
    ],
)
def test_problems_are_told_with_their_place(judge: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(policy("input", judge))
    assert problem in str(caught.value)


def test_names_of_judges_of_answers_differ() -> None:
    with pytest.raises(PolicyError, match="two judges of answers have the same name: secret"):
        load_policy(policy("output", SECRET, judges=[SECRET]))
    assert load_policy(policy("input", SECRET, judges=[SECRET]))


def test_rails_are_part_of_the_digest() -> None:
    other = {**SECRET, "patterns": [{"name": "code", "regex": "sword"}]}
    assert load_policy(policy()).sha256 != load_policy(policy("input", other)).sha256


CHILD = """
extends: ./parent.yaml
name: child
rails:
  input:
    judges:
      - name: secret
        {change}
"""


def write(folder: Path, child: str) -> Path:
    (folder / "parent.yaml").write_text(
        "apiVersion: stars-guard/v1\nname: parent\nrails:\n  input:\n    judges:\n"
        "      - {name: secret, type: patterns, patterns: [{name: code, regex: swordfish}]}\n"
    )
    (folder / "child.yaml").write_text(child)
    return folder / "child.yaml"


def test_a_child_changes_a_judge_of_a_rail_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, CHILD.replace("{change}", "patterns: [{name: other, regex: perch}]"))
    (judge,) = load_policy(path).rails.input.judges
    assert [pattern.name for pattern in judge.patterns] == ["code", "other"]  # type: ignore[union-attr]
    assert "child.yaml:8" in annotated(resolve_policy(path))


@pytest.mark.parametrize("change", ["reject_above: 1.0", "on_error: ignore", "patterns: [{name: code, regex: x}]"])
def test_a_child_must_say_that_it_loosens_a_rail(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, CHILD.replace("{change}", change))
    with pytest.raises(PolicyError, match=r"rails\.input\.judges\[0\].*looser than 'parent'"):
        load_policy(path)
    path = write(tmp_path, CHILD.replace("{change}", f"{change}\n        override: true"))
    assert len(resolve_policy(path).loosened) == 1


def test_an_override_counts_only_where_it_is_written(tmp_path: Path) -> None:
    child = CHILD.replace("{change}", "on_error: ignore") + (
        "  output:\n    judges:\n"
        "      - {name: secret, override: true, type: patterns, patterns: [{name: a, regex: b}]}\n"
    )
    with pytest.raises(PolicyError, match="looser"):
        load_policy(write(tmp_path, child))


def test_what_a_policy_lets_through_of_another() -> None:
    strict, loose = load_policy(policy("tool_result")), load_policy(policy("tool_result", action="redact"))
    assert [change for _, _, change in loosened(strict, loose)] == ["replace -> redact"]
    bare = load_policy({"apiVersion": "stars-guard/v1", "name": "test"})
    assert [loc for _, loc, _ in loosened(strict, bare)] == [("rails", "tool_result", "judges")]
    assert ("rails.tool_result.action", "replace", "redact") in differences(strict, loose)


# --- what judges read of a tool call


def test_a_call_is_rendered_with_the_strings_that_the_tool_gets() -> None:
    text = render_call("run", {"command": "echo 'a'\nrm", "n": 3, "deep": [{"x": True}, None]})
    assert text.splitlines() == [
        "run",
        "command: echo 'a'",
        "rm",
        "n: 3",
        "deep[0].x: true",
        "deep[1]: null",
        "command: echo a",
        "rm",
    ]


@pytest.mark.parametrize(
    "args",
    [
        {"command": "r''m -rf /"},
        {"command": 'rm "-rf" /'},
        {"command": "rm${IFS}-rf${IFS}/"},
        {"command": "rm \\\n-rf /"},
        {"argv": ["rm", "-rf", "/"]},
        {"input": '{"a": "rm\\u0020-rf /"}'},
        {"a": {"b": [{"c": "rm -rf /"}]}},
    ],
)
def test_disguises_are_rendered_plainly(args: dict[str, Any]) -> None:
    assert "rm -rf /" in " ".join(render_call("shell", args).split())


def test_a_deep_or_odd_argument_is_rendered_all_the_same() -> None:
    deep: Any = "rm -rf /"
    for _ in range(200):
        deep = {"a": deep}
    assert "rm -rf /" in render_call("x", deep)
    assert "[" * 5000 in render_call("x", {"a": "[" * 5000})


def test_paths_outside_the_roots_are_found() -> None:
    scorer = PathScorer(["/work", "/tmp"])
    for text in ("cat /etc/passwd", "a: /data/x", "ls ~", "cat ../x", 'open("/etc/x")', "cp a /", "/workers/x"):
        assert scorer.find(text), text
    for text in ("cat /work/a", "a/b", "https://x.org/etc/a", "s/a/b/", "/tmp", "HEAD~1", "a..b", "a/../b", "1 / 2"):
        assert not scorer.find(text), text


async def test_a_context_message_is_seen_by_the_judges() -> None:
    seen: list[Passage] = []
    globals()["look"] = lambda passage: seen.append(passage) or 0.0
    guard, _ = make("output", {**BOOM, "call": "test_rails:look"})
    await guard.check("output", "text", messages=[Message("user", "before")])
    assert [(p.messages[0].content, p.answer, p.last) for p in seen] == [("before", "text", True)]
