"""The audit log at the terminal and in files."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from audit_records import RECORDS, call, tried, vetoed
from rich.console import Console
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, Text, open_store
from stars_guard.audit.export import export
from stars_guard.audit.record import Turn
from stars_guard.calling import portal
from stars_guard.cli._console import visible
from stars_guard.cli.app import app
from stars_guard.cli.audit import store_of
from stars_guard.errors import AuditError, InputError, MissingExtra

EVIL = "\x1b[31m[bold]red[/bold]\x9b2J \u202egnp.exe\x07"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return written(f"jsonl://{tmp_path}/audit.jsonl", *RECORDS)


def written(url: str, *records: CallRecord) -> str:
    store = open_store(url)
    for record in records:
        portal.call(lambda record=record: store.append(record))
    return url


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def audit(*arguments: str, width: int = 160, code: int = 0) -> str:
    done = CliRunner(env={"COLUMNS": str(width)}).invoke(app, ["audit", *arguments])
    assert done.exit_code == code, done.output
    return "\n".join(line.rstrip() for line in done.output.splitlines())


def test_list(url: str) -> None:
    tables = """\
call  started (UTC)     policy   stage   finish   rejected  kept    s  judges        prompt
a     2026-11-24 12:00  default  answer  eos           0/1   4/4  2.0                Tell me of rivers
b     2026-11-24 12:05  default  answer  eos           1/3  4/12  2.0  words         Tell me of rivers
c     2026-11-24 13:30  strict   answer  refused       1/2   4/8  7.5  kind, useful  Tell me of rivers
d     2026-11-24 13:30  default  answer  eos           0/0   0/0  0.5\
"""
    assert audit("list", url, width=120) == tables


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--policy", "strict"], "c"),
        (["--judge", "words"], "b"),
        (["--outcome", "refused"], "c"),
        (["--run-id", "run-a"], "a"),
        (["--text", "rhine"], "b"),
        (["--rejected"], "bc"),
        (["--stage", "answer", "--limit", "2"], "cd"),
        (["--since", "2026-11-24T12:05"], "bcd"),
        (["--until", "2026-11-24T12:05"], "a"),
        (["--since", "1s"], ""),
    ],
)
def test_filters_and_forms(url: str, options: list[str], ids: str) -> None:
    rows = [json.loads(line) for line in audit("list", url, "--json", *options).splitlines()]
    assert "".join(row["id"] for row in rows) == ids
    assert [row["id"] for row in csv.DictReader(audit("list", url, "--csv", *options).splitlines())] == list(ids)


def test_stats(url: str) -> None:
    tables = """\
Candidates, tokens and seconds
           calls  candidates  rejected  generated  kept  discarded  s/call  slowest
all calls      4           6         2         24    12         12    3.00     7.50

How answers ended
finish   calls
eos          3
refused      1

Rejected candidates by judge
judge   by its veto  by a low reward
kind              0                1
useful            0                1
words             1                0

By policy
policy   calls  candidates  rejected  generated  kept  discarded  s/call  slowest
default      3           4         1         16     8          8    1.50     2.00
strict       1           2         1          8     4          4    7.50     7.50

Over time
from (UTC)        calls  candidates  rejected  generated  kept  discarded  s/call  slowest
2026-11-24 12:00      1           1         0          4     4          0    2.00     2.00
2026-11-24 12:05      1           3         1         12     4          8    2.00     2.00
2026-11-24 13:30      2           2         1          8     4          4    4.00     7.50

Acceptance by segment
segment  accepted  rejected  acceptance  mean threshold
0               2         2         50%            0.50
1               1         0        100%            0.50
"""
    assert audit("stats", url, width=110) == tables
    stats = json.loads(audit("stats", url, "--json", "--policy", "strict"))
    assert (stats["total"]["calls"], stats["judges"][0]) == (1, {"judge": "kind", "vetoes": 0, "low_reward": 1})
    assert "all calls      0 " in audit("stats", url, "--policy", "none")


def test_show(url: str) -> None:
    shown = audit("show", url, "--id", "b")
    assert "- 0.0 rejected" in shown
    assert "Damn the Rhine" in shown
    assert json.loads(audit("show", url, "--id", "run-a", "--json"))["call_id"] == "a"
    assert "call d" in audit("show", url)


def test_nothing_of_a_models_text_commands_the_terminal(tmp_path: Path) -> None:
    prompt = (Turn(role="user", content=Text(content=EVIL, chars=len(EVIL))),)
    evil = call("evil", attempts=((vetoed(0, EVIL), tried(1, EVIL)),), prompt=prompt, policy=EVIL, run_id=EVIL)
    where = written(f"jsonl://{tmp_path}/evil.jsonl", evil)
    outputs = [
        audit("list", where),
        audit("show", where),
        audit("stats", where),
        audit("list", where, "--csv"),
        audit("list", where, "--json"),
        audit("show", where, "--json"),
    ]
    for output in outputs:
        assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(output)
    assert "[bold]red[/bold]" in outputs[1]
    assert visible("a\tb\nc\x1b") == "a\tb\nc␛"


def test_the_place_of_the_log_may_be_said_by_a_policy(url: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"apiVersion: stars-guard/v1\nname: mine\naudit: {{url: '{url}'}}\n")
    assert len(audit("list", str(path), "--json").splitlines()) == 4
    assert store_of(None).read() == []


def test_times_that_are_none(url: str) -> None:
    done = CliRunner().invoke(app, ["audit", "list", url, "--since", "tomorrow"])
    assert (done.exit_code, done.output.startswith("error: ")) == (2, True)


def test_tail_follows(url: str) -> None:
    code = "from stars_guard.cli import main; main()"
    command = [sys.executable, "-c", code, "audit", "tail", url, "--limit", "1", "--every", "0.05", "--json"]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # who started the tests may have switched the interrupt off, and children inherit that
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=heed) as worker:
        assert worker.stdout is not None
        assert json.loads(worker.stdout.readline())["id"] == "d"
        written(url, call("new", -90))
        assert json.loads(worker.stdout.readline())["id"] == "new"
        worker.send_signal(signal.SIGINT)
        assert worker.wait(10) == 0


def test_tail_shows_lines_for_people(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from stars_guard.audit import Filter
    from stars_guard.cli.audit import follow

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    follow(Console(width=100), open_store(url), Filter(rejected=True), 10, 1.0)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["b", "c"]


def test_export(url: str, tmp_path: Path) -> None:
    files = {name: tmp_path / "out" / name for name in ("all.jsonl", "all.csv", "calls.csv", "all.parquet")}
    for name, path in files.items():
        audit("export", url, "-o", str(path), *(["--rows", "calls"] if name == "calls.csv" else []))
    lines = files["all.jsonl"].read_text().splitlines()
    assert [CallRecord.model_validate_json(line) for line in lines] == list(RECORDS)
    rows = rows_of(files["all.csv"])
    assert [(row["call_id"], row["verdict"], row["judges"]) for row in rows] == [
        ("a", "accepted", ""),
        ("b", "rejected", "words"),
        ("b", "accepted", ""),
        ("b", "surplus", ""),
        ("c", "rejected", "kind useful"),
        ("c", "accepted", ""),
    ]
    assert [row["answer"] for row in rows_of(files["calls.csv"])] == ["The Élbe."] * 3 + [""]
    table = pyarrow.parquet.read_table(files["all.parquet"])
    assert table.column("text").to_pylist()[1] == "Damn the Rhine"
    assert table.column("reward").to_pylist() == [0.9, None, 0.2, None, -0.3, 0.62]
    assert {path.name for path in files["all.csv"].parent.iterdir()} == set(files)
    assert files["all.csv"].stat().st_mode & 0o077 == 0
    assert "1 calls written" in audit(
        "export", url, "-o", str(tmp_path / "one.parquet"), "--rows", "calls", "--run-id", "run-a"
    )


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    formula = '=HYPERLINK("http://x","y")'
    export([call("a", attempts=((tried(0, formula),),))], tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv")[0]["text"] == f"'{formula}"
    export([call("a", attempts=((tried(0, formula),),))], tmp_path / "a.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").column("text").to_pylist() == [formula]


def test_a_file_that_cannot_be_written_is_not_left_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn() -> Any:
        yield call("a")
        raise AuditError("the log cannot be read")

    with pytest.raises(InputError, match=r"the format .xlsx is not known"):
        export([], tmp_path / "a.xlsx")
    with pytest.raises(AuditError, match="cannot be read"):
        export(torn(), tmp_path / "a.jsonl")
    with pytest.raises(AuditError, match="cannot write"):
        export([], Path("/proc/nothing/a.jsonl"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match="parquet"):
        export([call("a")], tmp_path / "a.parquet")
    assert list(tmp_path.iterdir()) == []
