"""The command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, rewarding, vetoing, words
from typer.testing import CliRunner

from stars_guard.audit import open_store
from stars_guard.backends.scripted import ScriptedBackend
from stars_guard.cli.app import app, main
from stars_guard.guard import CallOptions, Guard


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
        (["audit", "list", "ftp://x"], "use jsonl:///path"),
    ):
        monkeypatch.setattr(sys, "argv", ["stars-guard", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert expected in " ".join(capsys.readouterr().err.split())


def test_demo_runs_for_real(tmp_path: Path) -> None:
    env: dict[str, Any] = {**os.environ, "COLUMNS": "140"}
    command = [sys.executable, "-c", "from stars_guard.cli import main; main()", "demo", "--max-tokens", "16"]
    done = subprocess.run([*command, "--audit", f"jsonl://{tmp_path}/a.jsonl"], capture_output=True, text=True,
                          check=True, env=env)  # fmt: skip
    records = open_store(f"jsonl://{tmp_path}/a.jsonl").read()
    assert [record.mode for record in records] == ["off", "enforce"] * 5
    assert "The audit log" in done.stdout
    assert "Loading weights" not in done.stderr
    for record in records:
        assert record.answer.text is not None
        assert " ".join(record.answer.text.split())[:20] in " ".join(done.stdout.split())
