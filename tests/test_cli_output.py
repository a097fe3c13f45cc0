"""What every command does alike: it prints text that is not ours as it is, and ends with the same exit codes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import typer
from conftest import USER, words
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from stars_guard.backends.base import Backend
from stars_guard.calling import portal
from stars_guard.cli import demo as demo_command
from stars_guard.cli import run as run_command
from stars_guard.cli._concurrently import concurrently
from stars_guard.cli._console import Terminal
from stars_guard.cli.app import app
from stars_guard.core.events import Decision
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.errors import BackendUnavailable, InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.testing.scripted import ScriptedBackend

MARKUP = ["[red]", "[/red]", "[/]", "[bold", "]", "[", "\\[", ":smile:", "[transformers]", "[link=x]", " ", "a", "é"]
CONTROL = ["\x1b[31m", "\x9b", "\u202e", "\x07"]
NAMES = st.lists(st.sampled_from(MARKUP), min_size=1, max_size=6).map("".join).map(lambda text: f"x{text}x")
CASE = "cases: [{name: NAME, prompt: p, answer: NAME, expect: vetoed}]\n"


def run(*arguments: str, code: int | None = None) -> str:
    done = CliRunner(env={"COLUMNS": "2000"}).invoke(app, list(arguments))
    assert code is None or done.exit_code == code, (arguments, done.output)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


class House:
    """A folder with a policy and its cases, prompts, and a log with one call. Everything in them is called ``name``."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder
        quoted = json.dumps(name, ensure_ascii=False)
        self.policy, self.other, self.broken, self.cases, self.prompts, self.ruled, self.tool_call = (
            str(folder / f"{kind}.yaml")
            for kind in ("policy", "other", "broken", "cases", "prompts", "ruled", "tool_call")
        )
        judge = f"- {{name: {quoted}, type: patterns, patterns: [{{name: {quoted}, regex: good}}]}}\n"
        loose = f"- {{name: {quoted}, override: true, reject_above: 7, on_error: ignore}}\n"
        head = "apiVersion: stars-guard/v1\n"
        shadow = f"shadow: [{{policy: {{apiVersion: stars-guard/v1, name: {quoted}}}}}]\n"
        Path(self.policy).write_text(f"{head}name: {quoted}\ndescription: {quoted}\n{shadow}judges:\n{judge}")
        Path(self.other).write_text(f"extends: {json.dumps(self.policy, ensure_ascii=False)}\njudges:\n{loose}")
        Path(self.broken).write_text(f"{head}name: {quoted}\nmode: {quoted}\n")
        rules = f"rails: {{tool_call: {{rules: [{{name: {quoted}, action: ask, message: {quoted}}}]}}}}\n"
        Path(self.ruled).write_text(f"{head}name: ruled\n{rules}")
        Path(self.tool_call).write_text(f"name: {quoted}\n")
        Path(self.cases).write_text(CASE.replace("NAME", quoted))
        Path(self.prompts).write_text('{"prompt": "fine"}\n{"messages": []}\n')
        self.log = f"jsonl://{folder}/log.jsonl"
        backend = ScriptedBackend(lambda messages, prefix, rng: None if len(prefix) > 2 else f"{name} ")
        guard = Guard(load_policy(self.policy), model=backend, audit=self.log)
        self.call = guard.blocking.generate(USER, CallOptions(seed=1)).call_id
        pattern = {"type": "patterns", "patterns": [{"name": "p", "regex": "nothing"}]}
        ask = {"when": f"{name}2", "above": 0.5, "sample": 0.0}
        judges = [{**pattern, "name": f"{name}2"}, {**pattern, "name": name, "ask": ask}]
        doubting = load_policy({"apiVersion": "stars-guard/v1", "name": name, "judges": judges})
        self.doubted = f"jsonl://{folder}/doubted.jsonl"
        Guard(doubting, model=backend, audit=self.doubted).blocking.generate(USER, CallOptions(seed=1))


EVERY: dict[str, Callable[[House], str]] = {
    "policy check": lambda h: run("policy", "check", h.policy, h.other) + run("policy", "check", h.broken, code=1),
    "policy show": lambda h: run("policy", "show", h.other, code=0),
    "policy diff": lambda h: run("policy", "diff", h.policy, h.other, code=1),
    "policy test": lambda h: run("policy", "test", h.cases, "--policy", h.policy, code=1),
    "policy explain": lambda h: run("policy", "explain", h.ruled, h.tool_call, code=0),
    "doctor": lambda h: run("doctor", "--policy", h.policy, "--model", f"./{h.name}/no", code=1),
    "serve-config": lambda h: run("serve-config", "--model", h.name, code=0).replace("'\"'\"'", "'"),
    "run": lambda h: run("run", h.prompts + h.name, "-o", str(h.folder / "out"), "--policy", h.policy, code=2),
    "calibrate": lambda h: run("calibrate", "--prompts", h.prompts, "--policy", h.policy, code=2),
    "probe check": lambda h: run("probe", "check", h.doubted, code=0),
    "audit list": lambda h: run("audit", "list", h.log, code=0),
    "audit show": lambda h: run("audit", "show", h.log, code=0),
    "audit compare": lambda h: run("audit", "compare", h.log, code=0),
    "audit stats": lambda h: run("audit", "stats", h.log, code=0),
    "audit replay": lambda h: run("audit", "replay", h.call, "--url", h.log, "--policy", h.other, code=0),
    "audit verify": lambda h: run("audit", "verify", h.log, "--head", f"/no/{h.name}", code=2),
    "audit export": lambda h: run("audit", "export", h.log, "-o", f"/proc/no/{h.name}.jsonl", code=2),
}
SILENT = {
    "demo": "prints its own prompts, and what the model writes: see below",
    "policy list": "prints the same for everybody",
    "probe train": "loads a real model; its errors are those of calibrate",
    "probe show": "prints numbers, and needs a probe",
    "probe install": "needs a model's checkpoint and a probe",
    "policy schema": "prints the same for everybody",
    "audit report": "writes a page",
    "audit ui": "serves a page",
    "audit head": "prints JSON",
    "audit purge": "prints a number and a time",
    "audit rebuild": "prints numbers",
    "audit tail": "runs until it is interrupted; prints the rows of audit list",
}


def squeezed(text: str) -> str:
    """Without white space, and with backslashes as they are where Python's repr doubles them."""
    return "".join(text.split()).replace("\\\\", "\\")


def commands(group: click.Group, before: str = "") -> set[str]:
    found: set[str] = set()
    for name, command in group.commands.items():
        inner = isinstance(command, click.Group) or hasattr(command, "commands")
        found |= commands(command, f"{name} ") if inner else {before + name}  # type: ignore[arg-type]
    return found


def test_every_command_is_here() -> None:
    assert commands(typer.main.get_command(app)) == {*EVERY, *SILENT}  # type: ignore[arg-type]


@settings(max_examples=6, deadline=None)
@given(NAMES)
def test_commands_print_names_as_they_are(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        house = House(Path(folder), name)
        for command, output in EVERY.items():
            assert squeezed(name) in squeezed(output(house)), command


@given(st.lists(st.sampled_from([*MARKUP, *CONTROL]), max_size=8).map("".join))
def test_the_terminal_shows_text_as_it_is(text: str) -> None:
    console = Terminal()
    with console.capture() as capture:
        console.print(text, soft_wrap=True)
    shown = capture.get()
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(shown)
    assert shown.rstrip("\n") == text.translate({0x1B: "␛", 0x07: "␇", 0x9B: "\ufffd", 0x202E: "\ufffd"})


def test_the_demo_prints_model_text_as_it_is() -> None:
    text = "[red]x[/] :smile: \x1b[31m"
    decision = Decision(
        segment=0,
        attempt=0,
        candidate=Candidate(tokens=(), text=text),
        judgement=Judgement(),
        verdict="rejected",
        reason="",
    )
    console = Terminal()
    with console.capture() as capture:
        console.print(demo_command._line(decision, "rejected"))
    assert "[red]x[/] :smile: ␛[31m" in capture.get()


def test_doctor_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stars_guard.cli.doctor._version", lambda package: None)
    assert 'pip install "stars-guard[transformers]"' in run("doctor", code=1)


CODES: list[tuple[int, list[str]]] = [
    (0, ["--help"]),
    (0, ["policy", "check", "default"]),
    (1, ["policy", "check", "default", "nothing"]),
    (1, ["policy", "diff", "default", "strict"]),
    (2, ["policy", "diff", "default", "nothing"]),
    (2, ["policy", "show", "nothing"]),
    (2, ["policy", "test", "no-such-file.yaml"]),
    (2, ["policy", "chekc", "default"]),
    (2, ["policy", "show", "--polcy", "default"]),
    (2, ["run", "no-such-file.jsonl", "-o", "out.jsonl"]),
    (2, ["run", "no-such-file.jsonl"]),
    (2, ["calibrate", "--prompts", "no-such-file.jsonl"]),
    (2, ["calibrate", "--prompts", "x", "--acceptance", "7"]),
    (2, ["serve-config", "--policy", "nothing"]),
    (1, ["doctor", "--policy", "nothing"]),
    (2, ["audit", "list", "ftp://x"]),
    (2, ["audit", "show", "jsonl:///nowhere/log.jsonl"]),
    (2, ["audit", "replay", "nothing"]),
    (2, ["audit", "list", "--since", "tomorrow"]),
    (2, ["audit", "report", "-o", "/proc/no/report.html"]),
    (2, ["demo", "--audit", "ftp://x", "--max-tokens", "0"]),
]


@pytest.mark.parametrize(("code", "arguments"), CODES, ids=lambda value: value if isinstance(value, int) else value[-1])
def test_exit_codes(code: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run(*arguments, code=code)


def test_an_option_that_is_misspelt_gets_a_hint() -> None:
    assert "--policy" in run("doctor", "--polcy", "default", code=2)


def test_python_judges_run_only_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "apiVersion: stars-guard/v1\nname: x\njudges:\n"
        "- {name: long, type: python, call: 'test_cli_output:length', reject_above: 5}\n"
    )
    (tmp_path / "cases.yaml").write_text(
        "cases:\n- {prompt: p, answer: short, expect: allowed}\n- {prompt: p, answer: longer, expect: vetoed}\n"
    )
    arguments = ["policy", "test", str(tmp_path / "cases.yaml"), "--policy", str(tmp_path / "p.yaml")]
    assert "--allow-python" in run(*arguments, code=2)
    assert "2 passed, 0 failed" in run(*arguments, "--allow-python", code=0)


def length(passage: object) -> float:
    return float(len(passage.answer))  # type: ignore[attr-defined]


def test_a_run_says_whether_all_prompts_have_answers(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "fine"}\n{"messages": []}\n')

    def answers(backend: Backend) -> bool:
        guard = Guard("monitor", model=backend, judges=[], audit=f"jsonl://{tmp_path}/log.jsonl")
        target, options = tmp_path / "out.jsonl", CallOptions(max_tokens=4)
        return run_command.run_file(Console(quiet=True), guard, source, target, options, concurrency=2)

    assert not answers(ScriptedBackend(words()))
    assert not answers(ScriptedBackend(words()))
    (tmp_path / "out.jsonl").unlink()
    source.write_text('{"prompt": "fine"}\n')
    assert answers(ScriptedBackend(words()))


class Gone(ScriptedBackend):
    async def open(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
        raise BackendUnavailable("the engine is gone")


def test_a_lost_engine_ends_a_run_with_its_own_error(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "fine"}\n' * 5)
    guard = Guard("monitor", model=Gone(words()), judges=[], audit=f"jsonl://{tmp_path}/log.jsonl")
    with pytest.raises(BackendUnavailable, match="gone"):
        run_command.run_file(Console(quiet=True), guard, source, tmp_path / "out.jsonl", CallOptions(), concurrency=3)


@given(st.integers(0, 20), st.integers(1, 6), st.integers(0, 30))
def test_jobs_are_done_once_each_so_many_at_once(count: int, limit: int, failing: int) -> None:
    done: list[int] = []
    running = most = 0

    async def work(job: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if job == failing:
            raise InputError(f"job {job}")
        done.append(job)

    if failing < count:
        with pytest.raises(InputError, match=f"job {failing}"):
            portal.call(lambda: concurrently(work, range(count), limit))
        assert set(done) >= set(range(max(0, failing - limit + 1)))
    else:
        portal.call(lambda: concurrently(work, range(count), limit))
        assert sorted(done) == list(range(count))
    assert most <= limit
