"""`stars-guard run` with files and engines as they are: bad lines, odd encodings, models that are not there."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import policy, rewarding, words
from typer.testing import CliRunner

from stars_guard.cli.app import app
from stars_guard.cli.run import read_jobs
from stars_guard.errors import AuditError, BackendError, BackendUnavailable, InputError, ScorerError, StarsGuardError
from stars_guard.guard import Guard
from stars_guard.testing.scripted import ScriptedBackend

GOOD = ['{"prompt": "one é 😀"}', '{"prompt": "two"}', '{"messages": [{"role": "user", "content": "three"}]}']
BAD: dict[str, bytes] = {
    "no JSON": b"nothing",
    "half a line": b'{"prompt": "x',
    "another key": b'{"text": "x"}',
    "both keys": b'{"prompt": "x", "messages": []}',
    "a number": b'{"prompt": 3}',
    "null": b"null",
    "a list": b'["x"]',
    "a role": b'{"messages": [{"role": "tool", "content": "x"}]}',
    "no content": b'{"messages": [{"role": "user"}]}',
    "no messages": b'{"messages": []}',
    "half a character": b'{"prompt": "\\ud800"}',
    "no UTF-8": b'{"prompt": "caf\xe9"}',
    "a zero byte": b'{"prompt": "x\x00"}',
    "too long": json.dumps({"prompt": "word " * 400}).encode(),
    "too deep": b"[" * 5000 + b"]" * 5000,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on prompts with a scripted engine; the exit code, what it printed, and the lines of answers."""
    source, target = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"

    def go(prompts: bytes, script: Any = None, more: tuple[str, ...] = (), **judge: Any) -> Any:
        source.write_bytes(prompts)

        def made(*args: Any, **given: Any) -> Guard:
            backend = ScriptedBackend(script or words(), context=200)
            judges = [rewarding(**judge)]
            return Guard(policy(max_tokens=4), model=backend, judges=judges, audit=f"jsonl://{tmp_path}/log.jsonl")

        with monkeypatch.context() as patch:
            if not more:
                patch.setattr("stars_guard.guard.Guard", made)
            command = ["run", str(source), "-o", str(target), "--audit", f"jsonl://{tmp_path}/log.jsonl", *more]
            done = CliRunner(env={"COLUMNS": "300"}).invoke(app, command)
        rows = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
        return done.exit_code, done.output, {row["index"]: row for row in rows}

    return go


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("at", [0, 1, 3])
def test_one_bad_line_does_not_stop_a_file(run: Any, bad: bytes, at: int) -> None:
    lines = [line.encode() for line in GOOD]
    lines.insert(at, bad)
    code, output, rows = run(b"\n".join(lines) + b"\n")
    assert code == 1
    assert "1 of 4 could not be answered" in output
    assert ["error" in rows[index] for index in range(4)] == [index == at for index in range(4)]
    assert rows[at]["error"].startswith(("InputError", "ContextTooLong"))
    assert all(rows[index]["text"] for index in range(4) if index != at)
    again = run(b"\n".join(lines) + b"\n")
    assert (again[0], again[2]) == (1, rows)
    assert "4 of 4 are done already, 1 of them with an error" in again[1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n\r\n  \r\n", "\r"])
@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("last", [True, False])
def test_marks_line_ends_and_empty_lines_are_read(run: Any, end: str, start: bytes, last: bool) -> None:
    code, output, rows = run(start + (end.join(GOOD) + (end if last else "")).encode())
    assert code == 0, output
    assert len(rows) == 3


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"], ids=lambda name: str(name)
)
def test_wide_encodings_are_named(run: Any, encoding: str) -> None:
    code, output, rows = run("\n".join(GOOD).encode(encoding))
    assert code == 2
    assert "must be UTF-8" in output
    assert "iconv" in output
    assert not rows


def test_a_file_without_prompts_and_one_that_is_missing(run: Any, tmp_path: Path) -> None:
    assert run(b"")[0] == run(b"\n \n")[0] == 0
    with pytest.raises(InputError, match="cannot be read"):
        read_jobs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        read_jobs(tmp_path)


@pytest.mark.parametrize("kind", [BackendError, BackendUnavailable, AuditError, ScorerError, RuntimeError])
def test_a_failure_of_the_engine_ends_the_run_and_answers_nothing(run: Any, kind: type[Exception]) -> None:
    broken = True

    def script(messages: Any, prefix: Any, rng: Any) -> str:
        if broken and "two" in messages[-1].content:
            raise kind("the engine is gone")
        return "good "

    prompts = "\n".join(GOOD).encode()
    code, output, rows = run(prompts, script)
    assert code == 2 if issubclass(kind, StarsGuardError) else code != 0
    assert 1 not in rows
    assert not any("error" in row for row in rows.values())
    broken = False
    code, output, rows = run(prompts, script)
    assert code == 0, output
    assert len(rows) == 3


def test_a_judge_that_fails_under_raise_ends_the_run(run: Any) -> None:
    def broken(passage: Any) -> float:
        raise RuntimeError

    code, _, rows = run(GOOD[0].encode(), function=broken, on_error="raise")
    assert (code, rows) == (2, {})


@pytest.mark.parametrize(
    "more",
    [
        ("--model", "./nowhere", "--backend", "transformers"),
        ("--backend", "nope"),
        ("--backend", "vllm-server", "--base-url", "http://127.0.0.1:9"),
        ("--policy", "nope"),
    ],
    ids=lambda more: " ".join(more),
)
def test_a_wrong_model_or_engine_ends_the_run_before_any_line(run: Any, more: tuple[str, ...]) -> None:
    for _ in range(2):
        code, output, rows = run("\n".join(GOOD).encode(), more=more)
        assert code == 2, output
        assert "error:" in output
        assert rows == {}
        assert "done already" not in output
