"""Files that hold audit text are their owner's alone, whatever was there before; and URLs fail by name."""

from __future__ import annotations

import os
import sqlite3
import string
from contextlib import suppress
from pathlib import Path

import pytest
from audit_writers import small
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stars_guard.audit import open_store
from stars_guard.audit.export import export, harmless
from stars_guard.calling import portal
from stars_guard.cli.app import app
from stars_guard.errors import AuditError, StarsGuardError


def filled(url: str) -> None:
    store = open_store(url)
    portal.call(lambda: store.append(small("one")))
    portal.call(store.aclose)


def shared(folder: Path) -> dict[str, str]:
    """The files that others may read or write."""
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}
    return {name: mode for name, mode in found.items() if mode[-2:] != "00"}


@pytest.fixture(autouse=True)
def usual_umask() -> object:
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.mark.parametrize("mode", [0o644, 0o664, 0o604, 0o660])
@pytest.mark.parametrize("name", ["r.html", "x.csv", "x.jsonl", "x.parquet"])
def test_a_report_or_export_over_a_shared_file_is_private(tmp_path: Path, name: str, mode: int) -> None:
    filled(f"jsonl://{tmp_path}/log/a.jsonl")
    out = tmp_path / "out" / name
    out.parent.mkdir()
    out.write_text("what was there")
    out.chmod(mode)
    other = out.with_name("other-name")
    other.hardlink_to(out)
    command = "report" if name == "r.html" else "export"
    done = CliRunner().invoke(app, ["audit", command, f"jsonl://{tmp_path}/log/a.jsonl", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert out.stat().st_mode & 0o777 == 0o600
    assert other.read_text() == "what was there"
    assert b"what was there" not in out.read_bytes()
    assert [path.name for path in out.parent.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize("name", ["r.html", "x.csv", "x.jsonl"])
def test_a_link_is_not_followed(tmp_path: Path, name: str) -> None:
    filled(f"jsonl://{tmp_path}/a.jsonl")
    victim = tmp_path / "victim"
    victim.write_text("what was there")
    (tmp_path / name).symlink_to(victim)
    command = "report" if name == "r.html" else "export"
    done = CliRunner().invoke(app, ["audit", command, f"jsonl://{tmp_path}/a.jsonl", "-o", str(tmp_path / name)])
    assert done.exit_code == 2
    assert "it is a link" in done.output
    assert victim.read_text() == "what was there"


def test_logs_that_were_shared_are_taken_from_others(tmp_path: Path) -> None:
    jsonl, database = tmp_path / "a.jsonl", tmp_path / "a.db"
    for url in (f"jsonl://{jsonl}?max_bytes=400", f"sqlite://{database}"):
        filled(url)
        filled(url)
    assert len(list(tmp_path.glob("a.jsonl.*"))) == 1
    reader = sqlite3.connect(database)
    reader.execute("SELECT count(*) FROM calls").fetchone()
    assert {path.name for path in tmp_path.glob("a.db*")} >= {"a.db", "a.db-wal", "a.db-shm"}
    assert shared(tmp_path) == {}
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    for url in (f"jsonl://{jsonl}?max_bytes=400", f"sqlite://{database}"):
        filled(url)
    reader.close()
    assert shared(tmp_path) == {}


SHOWN = "=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻₌₊₋−"
UNSEEN = (
    " \t\r\n\x00\x0b\x0c\x1b\x85\xa0\xad\u034f\u115f\u1160\u180e\u2000\u2007\u200b\u200d\u200e\u2028\u2029"
    "\u202e\u2060\u2800\u3000\u3164\ufe0f\ufeff\uffa0"
)


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from(UNSEEN), max_size=4), st.sampled_from(SHOWN), st.text(max_size=5))
def test_what_begins_like_a_formula_is_not_run(unseen: str, sign: str, rest: str) -> None:
    assert harmless(unseen + sign + rest).startswith("'")
    assert harmless("'" + unseen + sign + rest) == "'" + unseen + sign + rest


@given(st.sampled_from("\t\r\n\x00"), st.text(max_size=5))
def test_a_cell_that_begins_with_a_control_character_is_not_taken_apart(control: str, rest: str) -> None:
    assert harmless(control + rest).startswith("'")


@given(st.sampled_from(string.ascii_letters + string.digits + "é|*#\"'("), st.text(max_size=5))
def test_other_text_stays_as_it_is(first: str, rest: str) -> None:
    assert harmless(first + rest) == first + rest
    assert harmless("") == ""


SCHEMES = ("jsonl", "sqlite", "postgresql+psycopg", "memory", "nothing", "", "http", "sqlite+pysqlite")
ODD = "/ // \0 %00 % %zz %ff ? # @ : [ ] ~ ~nobody-there . max_bytes= daily=1 & = \x7f :notaport :99999999 ?plugin=x"
HUGE = ("?max_bytes=" + "9" * 5000, "?max_bytes=²")
PARTS = (*ODD.split(), "?connect_timeout=x", "?client_encoding=none", "\n", "\ud800", "a" * 300, *HUGE)
PART = st.one_of(
    st.text(max_size=8),
    st.sampled_from(PARTS),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SCHEMES), st.lists(PART, max_size=5))
def test_no_url_fails_but_by_name(tmp_path_factory: pytest.TempPathFactory, scheme: str, parts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("urls")
    # nothing answers at that port, and no other host is asked
    rest = "u@127.0.0.1:1/" if scheme == "postgresql+psycopg" else f"{folder}/"
    url = f"{scheme}://{rest}" + "".join(parts).replace("@", "").replace("..", "")
    with suppress(StarsGuardError):
        open_store(url).search(limit=1)
    if scheme in ("jsonl", "sqlite"):
        with suppress(StarsGuardError):
            filled(url)


@pytest.mark.parametrize("command", ["verify", "list", "stats", "head", "show", "rebuild"])
@pytest.mark.parametrize(
    "url", ["jsonl:///a\0b", "jsonl:///a%00b", "sqlite:///a\0b", "sqlite:///\ud800", "a\0b", "jsonl://"]
)
def test_the_commands_say_what_is_wrong_with_a_url(command: str, url: str) -> None:
    done = CliRunner().invoke(app, ["audit", command, url])
    assert done.exit_code == 2, repr(done.exception)
    assert isinstance(done.exception, SystemExit)


def test_an_export_that_cannot_be_written_fails_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / ("a" * 300 + ".csv"), tmp_path / "a\0.csv", tmp_path, tmp_path / "file" / "x.csv"):
        (tmp_path / "file").touch()
        with pytest.raises(StarsGuardError):
            export([], path)
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(AuditError, match="no ordinary file"):
        export([], folder)
