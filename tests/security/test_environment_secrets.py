"""What a policy takes from the environment is shown nowhere: errors, tracebacks, commands, logs, repr, the record."""

from __future__ import annotations

import json
import logging
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_of_policies import models_of
from typer.testing import CliRunner

from stars_guard import Guard, MemoryStore, Policy, concealing, load_policy
from stars_guard.calling.judge_loading import load_judges
from stars_guard.cli.app import app
from stars_guard.concealing import conceal, concealed
from stars_guard.core.messages import Message
from stars_guard.errors import PolicyError, StarsGuardError
from stars_guard.policy import LivePolicy, resolve_policy
from stars_guard.policy.show import annotated
from stars_guard.scorers.options import JudgeOptions
from stars_guard.testing.scripted import ScriptedBackend

SECRETS = [
    "sk-5ecret-0f-the-env",
    'pa"ss\\w0rd é',
    "https://user:hunter2-long@host.test/p4th-of-secret?key=query-secret",
]

VETO = {"reject_above": 0.5}
PARSING: list[dict[str, Any]] = [
    {"name": "shell", "type": "shell", "arguments": ["cmd"], "allow": ["ls"], "ask": ["git push"], "forbid": ["rm"],
     "only": ["ls"], "unknown": "ask", "scripts": ["./*"], "hosts": ["host.test"], "by_value": True, "tools": ["sh"],
     "ask_above": 0.2, **VETO},
    {"name": "sql", "type": "sql", "arguments": ["sql"], "dialect": "sqlite", "allow": ["select"], "forbid": ["drop"],
     "otherwise": "ask", "tables": ["t"], "deny_tables": ["u"], "all_rows": "ask", "several": "ask",
     "functions": ["f"], **VETO},
    {"name": "urls", "type": "urls", "arguments": ["*"], "schemes": ["https"], "allow": ["host.test"],
     "deny": ["other.test"], "local": "ask", "private": "ask", "longest_value": 99, "entropy": 4.0, **VETO},
    {"name": "paths", "type": "paths", "roots": ["/srv"], "read_roots": ["/usr"], "outside": "ask",
     "arguments": ["path"], "commands": ["cmd"], "code": ["code"], "texts": ["content"], **VETO},
]  # fmt: skip
TOOL_CALL: dict[str, Any] = {
    "judges": PARSING,
    "default": "ask",
    "vars": {"allowed": ["host.test"]},
    "trust": ["read_*"],
    "approval": {"decisions": ["approve", "reject"], "within": 60},
    "cost": {"pay": "args.amount", "read_*": 0.1},
    "budgets": [
        {"name": "b", "tools": ["pay"], "calls": 9, "action": "ask", "message": "m", "optional": True},
        {"name": "c", "calls_each": 9}, {"name": "s", "seconds": 9},
        {"name": "t", "tokens": 9}, {"name": "m", "cost": 9},
    ],
    "rules": [{"name": "r", "tools": ["pay"], "when": "args.amount > 1", "action": "ask", "message": "m",
               "optional": True}],
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "apiVersion": "stars-guard/v1",
    "name": "whole",
    "description": "d",
    "mode": "enforce",
    "decoding": {"method": "stars", "segment_tokens": 16, "max_tokens": 64, "attempts": 2, "alpha": 0.5, "beta": 0.3,
                 "r_star": 1.0, "schedule": "learned", "thresholds": [{"tokens": 8, "base": 0.0, "carry": 0.5}],
                 "acceptance": "hard", "parallel": "auto", "on_exhausted": "refuse", "budget_tokens": 999,
                 "optimistic": True, "hold_tokens": 1, "rewinds": 1, "best_at_least": 0.5,
                 "recovery": {"after": 1, "instruction": "Be kind.", "attempts": 1}, "entropy_threshold": 1.0},
    "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
    "refusal": {"message": "no", "detect": False},
    "shadow": [{"policy": "default", "share": 0.5, "wait": 0.5, "at_once": 4}],
    "audit": {"url": "memory://", "content": {"prompt": "full", "accepted": "full", "rejected": "full"},
              "encrypt": False, "durability": "batch", "on_error": "drop"},
    "judges": [
        {"name": "patterns", "type": "patterns", "patterns": [{"name": "p", "regex": "bomb", "flags": "i"}],
         "on_error": "reject", "timeout": 1.0, "scope": {"tail": 9}, "every": 2, "final": True, **VETO},
        {"name": "pii", "type": "pii", "kinds": ["email"], "region": "US", **VETO},
        {"name": "probe", "type": "probe", "probe": "./none.safetensors", **VETO},
        {"name": "http", "type": "http", "url": "http://127.0.0.1:1/x", "body": {"a": ["{answer}", "b"]}, "score": "s",
         "headers": {"X-Key": "k"}, "retries": 0, "connections": 1, "scope": "segment", **VETO},
        {"name": "python", "type": "python", "call": "json:dumps", "options": {"a": ["b"]}, **VETO},
        {"name": "classifier", "type": "sequence_classifier", "model": "./none", "revision": "r", "label": "l",
         "template": "{answer}", "max_length": 64, "max_windows": 4, "batch_size": 1, "cache_tokens": 0, **VETO},
        {"name": "labels", "type": "vllm_pooling", "model": "./none", "labels": ["l"], "revision": "r",
         "max_length": 64,
         "base_url": "http://127.0.0.1:1/v1", "api_key_env": "NO_SUCH", "template": "{answer}", **VETO},
        {"name": "limits", "type": "vllm_pooling", "model": "./none", "labels": {"l": 0.5},
         "engine": {"dtype": "auto"}},
        {"name": "own", "type": "guard_model", "model": "./none", "template": "{{ prompt }} {{ answer }}",
         "harmful": ["y"], "safe": ["n"], "engine": {"dtype": "auto"}, **VETO},
        {"name": "preset", "type": "guard_model", "model": "./none", "revision": "r", "preset": "llama-guard-3",
         "categories": ["S1"], "controversial": "safe", "base_url": "http://127.0.0.1:1", "api_key_env": "NO_SUCH",
         "max_length": 64, "max_windows": 4, "batch_size": 1,
         "ask": {"when": "pii", "above": 0.1, "below": 0.5, "sample": 0.1}, **VETO},
        {"name": "writing", "type": "guard_model", "model": "./none", "preset": "gpt-oss-safeguard",
         "criteria": {"prices": "p"}, "effort": "low", "max_written": 64, "temperature": 0.5, **VETO},
        {"name": "stream", "type": "guard_stream", "model": "./none", "controversial": "safe", "max_length": 64,
         "cache_tokens": 64, **VETO},
        {"name": "injection", "type": "injection", "model": "embedded", **VETO},
        {"name": "hidden", "type": "hidden_text", "kinds": ["invisible"], **VETO},
        {"name": "reward", "type": "sequence_classifier", "model": "./none", "weight": 1.0},
    ],
    "rails": {
        stage: {"judges": [{"name": f"{stage}-p", "type": "patterns", "patterns": [{"name": "p", "regex": "bomb"}]}]}
        for stage in ("input", "output")
    } | {"tool_result": {"action": "replace", "judges": []}, "tool_call": TOOL_CALL},
}  # fmt: skip

Path_ = tuple[int | str, ...]


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values that are no mapping and no list, and of these too."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


HEAD = {key: WHOLE[key] for key in ("apiVersion", "name")}


def placed(path: Path_, text: str) -> dict[str, Any]:
    """The sample with a text at a path. What stands beside it is left out: other parts of the policy, other judges."""

    def put(value: Any, rest: Path_) -> Any:
        if not rest:
            return text
        part, *further = rest
        inner = put(value[part], tuple(further))
        if isinstance(value, list):
            return [inner] if isinstance(value[part], dict) else [*value[:part], inner, *value[part + 1 :]]  # type: ignore[operator]
        if value is WHOLE or value is WHOLE["rails"]:
            return {**(HEAD if value is WHOLE else {}), part: inner}
        return {**value, part: inner}

    made: dict[str, Any] = put(WHOLE, path)
    return made


def forms(secret: str) -> set[str]:
    parts = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]}
    if "://" in secret:
        parts |= {"hunter2-long", "p4th-of-secret", "query-secret"}
    return parts


def everything_of(exc: BaseException) -> str:
    """All that a traceback, a logger or a debugger shows of an exception and of those behind it."""
    found, queue, seen = [], [exc], set()
    while queue:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found += [str(one), repr(one), *traceback.format_exception(one)]
        queue += [other for other in (one.__cause__, one.__context__) if other is not None]
    return "\n".join(found)


@pytest.fixture(autouse=True)
def _a_fresh_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test conceals is shown again in the next."""
    monkeypatch.setattr(concealing, "_forms", OrderedDict())
    monkeypatch.setattr(concealing, "_pattern", None)


def test_the_sample_has_every_field() -> None:
    """A field that is added later has to be added to the sample, and so is tried too."""
    named = {str(part) for path in leaves(WHOLE) for part in path}
    for model in models_of(Policy):
        for name, field in model.model_fields.items():
            if model is not JudgeOptions or name not in ("weight",):
                assert (field.alias or name) in named, f"{model.__name__}.{name}"
    load_policy(WHOLE)


@pytest.mark.parametrize("secret", SECRETS, ids=["key", "quotes", "url"])
def test_a_secret_at_any_key_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, secret: str
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MARK", secret)
    (tmp_path / "plain.yaml").write_text(json.dumps(WHOLE))
    run, valid = CliRunner().invoke, 0
    for number, path in enumerate(leaves(WHOLE)):
        quick = number % 12  # the commands take longer, so each is tried at some of the places
        for text in ("${MARK}", "x ${MARK} y")[: 1 + (number % 3 == 0)]:
            file = tmp_path / "p.yaml"
            file.write_text(json.dumps(placed(path, text)))
            shown = []
            try:
                policy = load_policy(file)
            except PolicyError as exc:
                shown.append(everything_of(exc))
            else:
                valid += 1
                shown += [repr(policy), str(policy), repr(policy.every_judge), f"{list(policy.__rich_repr__())}"]
                shown.append(annotated(resolve_policy(file)))
                if quick == 0:
                    shown.append(run(app, ["policy", "show", str(file)]).output)
                if quick == 8:
                    shown.append(run(app, ["policy", "diff", str(tmp_path / "plain.yaml"), str(file)]).output)
            if quick == 4:
                shown.append(run(app, ["policy", "check", str(file)]).output)
            for form in forms(secret):
                assert form not in "\n".join(shown).replace("\n", "") + "\n".join(shown), (path, text)
    assert valid > 10
    assert not any(form in caplog.text for form in forms(secret))


@pytest.mark.parametrize("secret", [*SECRETS, "7", "true"])
def test_what_a_child_loosens_is_shown_without_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("MARK", secret)
    judge = {"name": "t", "type": "sequence_classifier", "model": "${MARK}", "revision": "${MARK}", "reject_above": 0.1}
    parent = {"apiVersion": "stars-guard/v1", "name": "${MARK}x", "audit": {"url": "${MARK}://"}, "judges": [judge]}
    (tmp_path / "parent.yaml").write_text(json.dumps(parent))
    child = "extends: ./parent.yaml\naudit: {url: 'jsonl://${MARK}'}\n"
    child += "judges: [{name: t, model: other, revision: '${MARK}y'}]\n"
    (tmp_path / "child.yaml").write_text(child)
    with pytest.raises(PolicyError) as info:
        load_policy(tmp_path / "child.yaml")
    text = everything_of(info.value).replace(str(tmp_path), "")
    assert f"{secret}x" not in text and f"{secret}y" not in text and f"{secret}://" not in text  # noqa: PT018
    if len(secret) > 4:
        assert secret not in text


async def test_a_judge_that_cannot_be_loaded_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", SECRETS[0])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails = {"name": "p", "type": "python", "reject_above": 0, "call": "tests_of_policies:fails"}
    for judge in (
        {"name": "m", "type": "sequence_classifier", "model": "./${MARK}", "reject_above": 0.1},
        {
            "name": "m",
            "type": "sequence_classifier",
            "model": "embedded:reward",
            "label": "${MARK}",
            "reject_above": 0.1,
        },
        {"name": "g", "type": "guard_model", "model": "./${MARK}", "preset": "llama-guard-3", "reject_above": 0.1},
        {"name": "v", "type": "vllm_pooling", "model": "./${MARK}", "reject_above": 0.1},
        {"name": "p", "type": "python", "call": "json:${MARK}", "reject_above": 0},
        {**fails, "options": {"a": "${MARK}"}},
    ):
        (tmp_path / "p.yaml").write_text(json.dumps({"apiVersion": "stars-guard/v1", "name": "n", "judges": [judge]}))
        with pytest.raises(StarsGuardError) as info:
            await load_judges(load_policy(tmp_path / "p.yaml").judges, allow_python=True)
        assert SECRETS[0] not in everything_of(info.value), judge


class Failing(JudgeOptions):
    """A judge of another package, which fails with errors of all kinds."""

    how: str
    where: str

    async def load(self) -> Any:
        kinds: dict[str, BaseException] = {
            "os": FileNotFoundError(2, "no such file", self.where),
            "plain": ValueError(self.where),
            "key": KeyError({self.where: self.where}),
            "group": ExceptionGroup("several", [ValueError(self.where)]),
            "bytes": UnicodeDecodeError("ascii", self.where.encode(), 0, 1, "x"),
        }
        try:
            raise ValueError(self.where)
        except ValueError:
            raise kinds[self.how] from KeyError(self.where)


@pytest.mark.parametrize("how", ["os", "plain", "key", "group", "bytes"])
async def test_a_plugin_that_fails_shows_no_secret(how: str) -> None:
    conceal(SECRETS[0], "${MARK}")
    judge = Failing(type="f", name="f", weight=1.0, how=how, where=SECRETS[0])
    assert SECRETS[0] not in repr(judge)
    with pytest.raises(Exception) as info:  # noqa: PT011 - of any kind
        await load_judges([judge])
    assert SECRETS[0] not in everything_of(info.value)


async def test_the_record_shows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "bomb-of-the-env")
    monkeypatch.setenv("URL", SECRETS[2])
    data = {
        "apiVersion": "stars-guard/v1",
        "name": "${MARK}",
        "judges": [
            {"name": "j-${MARK}", "type": "patterns", "patterns": [{"name": "p-${MARK}", "regex": "${MARK}"}]},
            {"name": "h", "type": "http", "url": "${URL}", "body": "{answer}", "score": "a.\"${MARK}\"", "retries": 0,
             "reject_above": 1, "on_error": "ignore", "timeout": 0.2},
        ],
        "decoding": {"on_exhausted": "refuse", "attempts": 1},
        "audit": {"content": "none"},
    }  # fmt: skip
    (tmp_path / "p.yaml").write_text(json.dumps(data))
    store = MemoryStore()
    says = ScriptedBackend(lambda messages, prefix, rng: "bomb-of-the-env" if not prefix else None)
    made = Guard(load_policy(tmp_path / "p.yaml"), model=says, audit=store)
    await made.generate([Message("user", "?")])
    await made.aclose()
    record = "".join(f"{record!r}{record.model_dump_json()}" for record in store.records)
    assert "${MARK}" in record
    for form in (*forms("bomb-of-the-env"), *forms(SECRETS[2])):
        assert form not in record


def test_the_log_of_a_policy_that_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MARK", SECRETS[0])
    path = tmp_path / "p.yaml"
    path.write_text("apiVersion: stars-guard/v1\nname: one\n")
    live = LivePolicy(path, interval=0)
    path.write_text("apiVersion: stars-guard/v1\nname: '${MARK}'\n")
    assert live.current.name == SECRETS[0]
    path.write_text("apiVersion: stars-guard/v1\nname: two\nmode: '${MARK}'\nextends: '${MARK}'\n")
    assert live.current.name == SECRETS[0]
    assert caplog.text
    assert SECRETS[0] not in caplog.text


def test_short_values_are_not_looked_for_in_other_texts() -> None:
    conceal("7", "${N}")
    conceal("some-long-secret", "${S}")
    conceal("some-long-secret-that-goes-on", "${T}")
    assert concealed("7 of some-long-secret-that-goes-on, some-long-secret") == "7 of ${T}, ${S}"
