"""Every table is readable in terminals of 80, 100 and 140 columns, and whole in a pipe."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from audit_records import RECORDS, call, tried, vetoed
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from test_cli_output import EVERY, House
from typer.testing import CliRunner

from stars_guard.audit import open_store
from stars_guard.calibration.probe_report import Forecast, Position, Report, Saving
from stars_guard.calibration.thresholds import Prediction, SegmentRewards
from stars_guard.calling import portal
from stars_guard.cli import audit, calibrate, demo, doctor, probe
from stars_guard.cli._console import Terminal
from stars_guard.cli._quiet import libraries_kept_quiet
from stars_guard.cli._tables import Column, fitting, show_table
from stars_guard.cli.app import app
from stars_guard.engines.probes import Card
from stars_guard.policy import shipped_policies

WIDTHS = (80, 100, 140)
PIPE = 0
LONG = "a0b1c2d3e4f5061728394a5b6c7d8e9f"
EXTREME = (
    call(
        LONG,
        200,
        ((vetoed(0, "Damn the Rhine", "personal-data-in-many-countries"), tried(1, "The Rhine", 0.2)),),
        policy="customer-support-of-a-large-shop",
        stage="tool_call",
        finish="cancelled",
        seconds=1234.5,
        totals={"proposals": 12345, "rejections": 6789, "drawn": 1234567, "kept": 234567, "rejected": 1000000},
    ),
)
"""Names and numbers that are as long as they get."""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


LAYOUT_IS_KNOWN = tuple(map(int, version("rich").split(".")[:2])) >= (14, 3)
"""Older versions give another width to some columns."""


def shown(width: int, command: list[str]) -> str:
    env = {"COLUMNS": str(width or 80), "FORCE_COLOR": "1" if width else None}
    done = CliRunner(env=env).invoke(app, command)
    assert done.exit_code in (0, 1), done.output
    return "\n".join(line.rstrip() for line in plain(done.output).splitlines())


def printed(width: int, show: Callable[[Terminal], Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width or 80))
    monkeypatch.setenv("FORCE_COLOR", "1") if width else monkeypatch.delenv("FORCE_COLOR", raising=False)
    console = Terminal()
    with console.capture() as capture:
        show(console)
    return "\n".join(line.rstrip() for line in plain(capture.get()).splitlines())


@pytest.fixture
def log(tmp_path: Path) -> str:
    url = f"jsonl://{tmp_path}/audit.jsonl"
    store = open_store(url)
    for record in (*RECORDS, *EXTREME):
        portal.call(lambda record=record: store.append(record))
    return url


def readable(text: str, width: int) -> None:
    """No line is wider than the terminal, and no name of a column is cut."""
    lines = text.splitlines()
    if width == PIPE:
        assert not set("─━│┃…") & set(text)
        return
    assert max(map(cell_len, lines)) <= width
    heads = [lines[at - 1] for at, line in enumerate(lines) if set(line) == {"─"}]
    assert heads
    assert "…" not in "".join(heads)


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
@pytest.mark.parametrize("command", [["audit", "list"], ["audit", "stats"]], ids="-".join)
def test_tables_of_commands(command: list[str], width: int, log: str, snapshot: Any) -> None:
    text = shown(width, [*command, log])
    readable(text, width)
    assert not LAYOUT_IS_KNOWN or text == snapshot


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_the_list_of_policies(width: int) -> None:
    """Not compared as a whole, because it grows with the policies."""
    text = shown(width, ["policy", "list"])
    readable(text, width)
    assert all(name in text for name in shipped_policies())


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_differences_of_policies(width: int, snapshot: Any) -> None:
    text = shown(width, ["policy", "diff", "default", "strict"])
    readable(text, width)
    assert not LAYOUT_IS_KNOWN or text == snapshot


FINDINGS = [
    doctor._Finding("Python", "ok", "3.11.2 on x86_64"),
    doctor._Finding("vllm", "note", "not installed: transformers is used", 'pip install "stars-guard[vllm]"'),
    doctor._Finding("judge harmlessness", "wrong", "http://127.0.0.1:8001 cannot be reached: ConnectError", "start it"),
    doctor._Finding("audit log", "ok", "sqlite:////home/somebody/.local/state/stars-guard/audit.db"),
]


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_what_doctor_finds(width: int, snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(width, lambda console: doctor._show(console, FINDINGS), monkeypatch)
    readable(text, width)
    assert not LAYOUT_IS_KNOWN or text == snapshot


def seen(index: int) -> Any:
    rewards = SegmentRewards(
        index=index, count=40 - index, quantiles=(-1.0, -0.4, 0.1, 0.5, 1.2), correlation=None if index else 0.71
    )
    return calibrate._Row(
        rewards,
        Prediction(index=index, tau=0.4, acceptance=0.2, candidates=3.4),
        Prediction(index=index, tau=0.3, acceptance=0.5, candidates=1.9),
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_what_calibrate_sees(width: int, snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(width, lambda console: calibrate._show_rows(console, [seen(0), seen(1)]), monkeypatch)
    readable(text, width)
    assert not LAYOUT_IS_KNOWN or text == snapshot


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_what_a_probe_is_worth(width: int, snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = {"prompts": 120, "texts": 4800, "held_out_prompts": 30}
    teacher = {"judge": "harmlessness", "rejects_at": "below 0.4"}
    card = Card(model="embedded", model_sha256="0" * 64, width=8, notes=notes, teacher=teacher)
    found = Report(
        positions=(
            Position(segments=None, texts=1200, rejected=0.31, spearman=0.71, auc=0.88, bias=-0.02),
            Position(segments=0, texts=30, rejected=0.0, spearman=None, auc=None, bias=0.4),
        ),
        savings=(Saving(miss=0.01, saved=0.42, side="above", limit=1.234),),
        rejections=(Saving(miss=0.05, saved=0.21, side="below", limit=0.4),),
        even=0.7,
        forecasts=(Forecast(segments=2, answers=30, probe=0.5, teacher=None),),
    )
    text = printed(width, lambda console: probe._show(console, found, card, 16), monkeypatch)
    readable(text, width)
    assert not LAYOUT_IS_KNOWN or text == snapshot


@pytest.mark.parametrize("width", WIDTHS)
def test_no_command_prints_a_line_wider_than_the_terminal_in_its_tables(width: int, tmp_path: Path) -> None:
    """What is printed outside of tables is not cut, and the terminal itself goes on in the next line."""
    house = House(tmp_path, "a policy")
    for command in (
        ["audit", "list", house.log],
        ["audit", "stats", house.log],
        ["audit", "replay", house.call, "--url", house.log, "--policy", house.other],
        ["policy", "diff", house.policy, house.other],
        ["doctor", "--policy", house.policy, "--model", "./no"],
    ):
        text = shown(width, command)
        rules = [cell_len(line) for line in text.splitlines() if set(line) == {"─"}]
        assert rules, command
        assert max(rules) <= width, command
    assert len(EVERY) >= 14  # a new command with a table belongs into the list above


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_rows_of_tail(width: int, log: str, snapshot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come one by one, and stand below one another all the same."""

    def show(console: Terminal) -> None:
        for row in open_store(log).search()[::-1]:
            console.print(audit._tail_line(console, row), soft_wrap=True)

    text = printed(width, show, monkeypatch)
    assert width == PIPE or max(map(cell_len, text.splitlines())) <= width
    assert not LAYOUT_IS_KNOWN or text == snapshot


TEXTS = st.text(st.sampled_from("abcdé 語ﬀ\n\t"), max_size=30)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], list[list[str]]]:
    count = draw(st.integers(1, 7))
    columns = [
        Column(
            draw(st.text("abc", min_size=1, max_size=12)),
            rank=draw(st.integers(0, 3)),
            least=draw(st.none() | st.integers(4, 12)),
            wraps=draw(st.booleans()),
            right=draw(st.booleans()),
        )
        for _ in range(count)
    ]
    rows = draw(st.lists(st.lists(TEXTS, min_size=count, max_size=count), max_size=4))
    return columns, rows


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(20, 160))
def test_every_table_fits(table: tuple[list[Column], list[list[str]]], width: int) -> None:
    columns, rows = table
    console = Terminal()
    console._force_terminal, console._width, console._color_system = True, width, None
    console.file = io.StringIO()
    show_table(console, columns, rows)
    assert max((cell_len(line) for line in console.file.getvalue().splitlines()), default=0) <= width


@given(tables(), st.integers(1, 200))
def test_columns_are_left_out_by_rank(table: tuple[list[Column], list[list[str]]], width: int) -> None:
    columns, rows = table
    natural = [max(len(column.name), *(len(row[at]) for row in rows), 1) for at, column in enumerate(columns)]
    widths = fitting(columns, natural, width)
    if widths is None:
        return
    there = [wide for wide in widths if wide is not None]
    assert sum(there) + 2 * (len(there) - 1) <= width
    left_out = [column.rank for column, wide in zip(columns, widths, strict=True) if wide is None]
    kept = [column.rank for column, wide in zip(columns, widths, strict=True) if wide is not None]
    assert 0 not in left_out
    assert not left_out or min(left_out) >= max(kept, default=0)
    for column, wide, whole in zip(columns, widths, natural, strict=True):
        assert wide is None or wide == whole or (column.least is not None and wide < whole)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_a_pipe_gets_a_line_for_each_row_and_all_of_it(table: tuple[list[Column], list[list[str]]]) -> None:
    columns, rows = table
    console = Terminal()
    console._force_terminal, console.file = False, io.StringIO()
    show_table(console, columns, rows)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + len(rows)
    for line, row in zip(lines[1:], rows, strict=True):
        at = 0
        for cell in row:
            flat = cell.replace("\n", " ").replace("\t", " ").rstrip()
            found = line.find(flat, at)
            assert found >= 0
            at = found + len(flat)


def test_a_terminal_too_narrow_for_any_table_gets_each_row_as_lines(log: str) -> None:
    text = shown(40, ["audit", "list", log])
    assert "• call: a0b1c2d3e4f5" in text
    assert "finish: cancelled" in text


def test_a_real_terminal(log: str) -> None:
    """As typed: the width is that of the terminal, and the table has its line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "stars_guard", "audit", "list", log]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**env, "TERM": "xterm"}) as process:
        os.close(theirs)
        out = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            out += part
        assert process.wait() == 0
    os.close(ours)
    text = plain(out.decode()).replace("\r", "")
    readable(text, 80)
    assert "Tell me" in text


def test_the_demo_shows_what_becomes_of_an_agents_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a model, because the calls are scripted. The policy and its judges are real."""
    text = printed(80, lambda console: demo._agent(console, "memory://"), monkeypatch)
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    outcomes = [line.split("  ")[1].strip() for line in text.splitlines() if line.startswith(("  ✓", "  ✗", "  ?"))]
    assert outcomes == ["✓ the tool runs", "✗ the tool never runs", "? a person is asked"]
    assert "vetoed by commands" in text
    assert "mail-leaves-the-house" in text


def test_what_libraries_print_is_kept_back_and_shown_if_something_fails(capfd: pytest.CaptureFixture[str]) -> None:
    def noise() -> None:
        print("a bar", file=sys.stderr)  # noqa: T201
        os.write(2, b"native words\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('of a child')"], check=True)

    def fail() -> None:
        noise()
        raise ValueError("broken")

    with libraries_kept_quiet():
        noise()
        print("ours")  # noqa: T201
    print("afterwards", file=sys.stderr)  # noqa: T201
    assert capfd.readouterr() == ("ours\n", "afterwards\n")
    with pytest.raises(ValueError, match="broken"), libraries_kept_quiet():
        fail()
    told = capfd.readouterr().err
    assert all(words in told for words in ("a bar", "native words", "of a child"))
