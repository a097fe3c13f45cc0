"""The commands as people type them."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, rewarding, words
from typer.testing import CliRunner

import stars_guard
from stars_guard.audit import open_store
from stars_guard.audit.urls import default_url
from stars_guard.cli.app import app
from stars_guard.errors import AuditError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import shipped_policies
from stars_guard.testing.scripted import ScriptedBackend

ROOT = Path(__file__).parent.parent


def run(*arguments: str, given: str | None = None) -> Any:
    return CliRunner(env={"COLUMNS": "250"}).invoke(app, list(arguments), input=given)


def write(url: str, calls: int = 2) -> None:
    made = Guard(policy(max_tokens=2), model=ScriptedBackend(words()), judges=[rewarding()], audit=url)
    with made.blocking:
        for seed in range(calls):
            made.blocking.generate(USER, CallOptions(seed=seed))


def test_the_version_and_the_module_form() -> None:
    assert run("--version").output.split() == ["stars-guard", stars_guard.__version__]
    command = [sys.executable, "-m", "stars_guard"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'integrations'}", "COLUMNS": "120"}
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, env=env, cwd="/")
    assert stars_guard.__version__ in done.stdout
    done = subprocess.run([*command, "policy", "nope"], capture_output=True, text=True, check=False, env=env, cwd="/")
    assert done.returncode == 2
    assert "Usage: stars-guard policy" in done.stderr


def test_policies_are_listed_with_what_they_are_for() -> None:
    done = run("policy", "list")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    for name in shipped_policies():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert " For " in line
        assert line.isprintable()


def test_lazy_names_are_shown() -> None:
    import stars_guard.testing

    for module in (stars_guard, stars_guard.testing):
        assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("scheme", ["jsonl", "sqlite"])
def test_a_list_that_is_cut_says_so_and_how_to_get_all(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stars_guard.cli.audit._MOST", 4)
    url = f"{scheme}://{tmp_path}/log"
    write(url, 6)
    ids = {row.id for row in open_store(url).search(limit=None)}
    for form in ("--json", "--csv", ""):
        arguments = ["audit", "list", url, *([form] if form else [])]
        cut = run(*arguments)
        assert "the newest 4 of 6 calls: --all lists every one" in cut.stderr
        assert sum(one[:12] in cut.stdout for one in ids) == 4
        for more, count in (
            (["--all"], 6),
            (["--all", "--limit", "2"], 6),
            (["--limit", "5"], 5),
            (["--limit", "2"], 2),
        ):
            whole = run(*arguments, *more)
            assert whole.stderr == ""  # what you asked for
            assert sum(one[:12] in whole.stdout for one in ids) == count
    assert len([json.loads(line) for line in run("audit", "list", url, "--json").stdout.splitlines()]) == 4


@pytest.mark.parametrize("command", ["list", "tail", "stats", "export", "report"])
def test_a_word_that_no_call_can_have_is_an_error(command: str, tmp_path: Path) -> None:
    url = f"jsonl://{tmp_path}/log.jsonl"
    write(url)
    out = ["-o", str(tmp_path / "out.jsonl")] if command in ("export", "report") else []
    for option, wrong, near in (
        ("--outcome", "nope", "refused"),
        ("--outcome", "refuse", "did you mean 'refused'?"),
        ("--outcome", "EOS", "eos"),
        ("--stage", "awnser", "did you mean 'answer'?"),
        ("--stage", "", "tool_call"),
    ):
        done = run("audit", command, url, option, wrong, *out)
        assert done.exit_code == 2
        assert near in done.output
    if command == "list":
        for outcome in ("eos", "length", "passed", "redacted", "failed", "cancelled", "raised"):
            assert run("audit", command, url, "--outcome", outcome).exit_code == 0


@pytest.mark.parametrize(
    ("scheme", "name"),
    [("sqlite", "a.db"), ("sqlite", "a.sqlite"), ("sqlite", "log"), ("jsonl", "a.jsonl"), ("jsonl", "log")],
)
def test_the_path_of_a_log_is_a_log(scheme: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder #1"
    folder.mkdir()
    write(f"{scheme}://{folder}/{name}".replace(" ", "%20").replace("#", "%23"))
    monkeypatch.chdir(folder)
    for where in (str(folder / name), f"./{name}", name):
        assert len(run("audit", "list", where, "--json").stdout.splitlines()) == 2, where
        assert run("audit", "verify", where).exit_code == 0
    for where in ("no.db", "./no.sqlite3", "no.jsonl", str(folder / "no.db")):
        done = run("audit", "list", where)
        assert done.exit_code == 2
        assert "there is no audit log" in done.output
        assert not Path(where).exists()


def test_a_policy_is_still_a_policy(tmp_path: Path) -> None:
    write(f"jsonl://{tmp_path}/log.jsonl")
    path = tmp_path / "p.yaml"
    path.write_text(f"apiVersion: stars-guard/v1\nname: x\naudit: {{url: 'jsonl://{tmp_path}/log.jsonl'}}\n")
    assert len(run("audit", "list", str(path), "--json").stdout.splitlines()) == 2
    path.write_text(json.dumps({"apiVersion": "stars-guard/v1", "name": "x", "audit": {"url": "memory://"}}))
    assert run("audit", "list", str(path), "--json").exit_code == 0
    assert "there is no policy named 'nope'" in run("audit", "list", "nope").output
    write(f"sqlite://{tmp_path}/a.db")
    for command in (["policy", "show"], ["policy", "check"]):
        done = run(*command, str(tmp_path / "a.db"))
        assert done.exit_code in (1, 2)
        assert "Traceback" not in done.output
        assert "a.db" in done.output


@pytest.mark.parametrize("scheme", ["jsonl", "sqlite"])
@pytest.mark.parametrize("age", ["0d", "0s", "0w"])
def test_a_purge_does_not_empty_the_log_unasked(scheme: str, age: str, tmp_path: Path) -> None:
    url = f"{scheme}://{tmp_path}/log"
    write(url)
    for given in (None, "", "y\n"):  # nobody is at a terminal
        done = run("audit", "purge", url, "--older-than", age, given=given)
        assert done.exit_code == 2
        assert "--yes" in done.output
    assert len(open_store(url).search()) == 2
    assert "0 records" in run("audit", "purge", url, "--older-than", "90d").output
    done = run("audit", "purge", url, "--older-than", age, "--yes")
    assert "2 records" in done.output
    assert run("audit", "purge", url, "--older-than", age).exit_code == 0  # there is nothing to lose


def test_at_a_terminal_a_purge_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"jsonl://{tmp_path}/log"
    write(url)
    monkeypatch.setattr("stars_guard.cli.audit_proof._at_terminal", lambda: True)
    assert run("audit", "purge", url, "--older-than", "0d", given="n\n").exit_code == 1
    assert len(open_store(url).search()) == 2
    assert run("audit", "purge", url, "--older-than", "0d", given="y\n").exit_code == 0
    assert open_store(url).search() == []


def test_the_apps_log_has_no_lines_of_alembic(tmp_path: Path) -> None:
    """In a process of its own, as alembic writes some of them while it is imported."""
    code = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG, stream=sys.stderr);"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'integrations')!r}, {str(ROOT / 'tests')!r}];"
        f"import test_everyday_commands as t; t.write('sqlite://{tmp_path}/a.db');"
        "print(logging.getLogger('alembic').level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "alembic" not in done.stderr
    assert done.stdout.split() == [str(logging.NOTSET)]


@pytest.mark.parametrize("scheme", ["sqlite", "jsonl", None])
def test_a_place_that_cannot_be_written_says_what_to_set(
    scheme: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the home directory of a container. Root may write everywhere, so a file stands where a folder should."""
    home = tmp_path / "home"
    home.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    with pytest.raises(AuditError, match=r"audit\.url.*XDG_STATE_HOME") as caught:
        write(default_url() if scheme is None else f"{scheme}://{home}/log")
    assert str(home) in caught.value.message
    (tmp_path / "log").mkdir()
    with pytest.raises(AuditError, match=r"audit\.url"):
        write(f"{scheme or 'sqlite'}://{tmp_path}/log")


def test_records_that_wait_elsewhere_say_it_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "home").write_text("")
    write(f"sqlite://{tmp_path}/home/log")
    assert "audit.url" in caplog.text


def test_the_readme_begins_with_how_to_get_it_and_needs_no_checkout() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(line for line in readme.splitlines() if line.startswith(("    ", "```")))
    assert code.strip().startswith("pip install")
    first = re.search(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert first is not None
    assert "import" in first[1]
    for block in re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE):
        assert "policies/" not in block  # which is here, and nowhere else
        assert ".yaml" not in block


def test_a_call_is_shown_by_its_id_alone() -> None:
    """In the log of the default policy, whole or by its beginning; a policy's name stays one."""
    write(default_url())
    ids = [record.call_id for record in open_store(default_url()).read()]
    for call in ids:
        for said in ((call,), (call[:12],), ("default", "--id", call), ("--id", call)):
            done = run("audit", "show", *said, "--json")
            assert (done.exit_code, json.loads(done.stdout)["call_id"]) == (0, call)
    assert json.loads(run("audit", "show", "default", "--json").stdout)["call_id"] == ids[-1]
    assert "no records fit the id" in run("audit", "show", "0" * 12).output
    assert "no policy named" in run("audit", "show", "strct").output
