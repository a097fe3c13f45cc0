"""A record that no chain seals proves nothing, wherever it stands: verify counts it, and a key or head forbids it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from audit_writers import small
from typer.testing import CliRunner

from stars_guard.audit import JsonlStore
from stars_guard.audit.entries import UNSEALED, Head, Kind, canonical, new_writer, seal
from stars_guard.auditing.findings import Report
from stars_guard.auditing.verification import verify
from stars_guard.calling import portal
from stars_guard.cli.app import app
from stars_guard.errors import AuditError

KEY = "STARS_GUARD_AUDIT_KEY"


def old_line(call_id: str, version: int = 1) -> bytes:
    """A record as it was written before there was a chain."""
    data = small(call_id).model_dump(mode="json") | {"schema_version": version}
    return json.dumps(data).encode() + b"\n"


def filled(path: Path, count: int = 4) -> JsonlStore:
    store = JsonlStore(path)
    for number in range(count):
        portal.call(lambda number=number: store.append(small(f"c{number}")))
    portal.call(store.aclose)
    return JsonlStore(path)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def checked(path: Path, heads: list[Head], unsealed: int = 0) -> Report:
    return verify(JsonlStore(path), heads, unsealed=unsealed)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("proof", ["key", "head", "key and head"])
def test_a_forged_record_outside_of_the_chain_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, place: int, proof: str
) -> None:
    if "key" in proof:
        monkeypatch.setenv(KEY, "secret")
    path = tmp_path / "a.jsonl"
    heads = filled(path).heads() if "head" in proof else []
    filled(path, 0)
    if not path.exists():
        filled(path)
    assert checked(path, heads).problem is None
    there = lines(path)
    path.write_bytes(b"".join([*there[:place], old_line("forged", version), *there[place:]]))
    report = checked(path, heads)
    assert report.problem is not None
    assert report.unsealed == 1
    assert "not sealed" in str(report.problem)
    if place or version > 1:
        assert checked(path, heads, unsealed=9).problem is not None, "no such log was ever written"


def test_records_that_are_older_than_the_chain_are_allowed_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(old_line("old") + old_line("older"))
    store = filled(path)
    assert (verify(store).problem, verify(store).unsealed) == (None, 2), "nothing is there that could prove anything"
    sealed = [head for head in store.heads() if head.writer != UNSEALED]
    assert checked(path, sealed).problem is not None
    assert checked(path, sealed, unsealed=1).problem is not None
    assert checked(path, sealed, unsealed=2).problem is None
    monkeypatch.setenv(KEY, "secret")
    report = verify(store, unsigned=True)
    assert "--allow-unsealed 2" in str(report.problem)
    assert verify(store, unsigned=True, unsealed=2).problem is None


def test_a_head_stands_for_the_records_before_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(old_line("old") + old_line("older"))
    heads = filled(path).heads()
    assert checked(path, heads).problem is None
    first, second, *rest = lines(path)
    for changed in (
        [second, first],
        [first],
        [first, second, old_line("more")],
        [first.replace(b'"seconds": 0.5', b'"seconds": 0.6'), second],
        [],
    ):
        path.write_bytes(b"".join([*changed, *rest]))
        assert checked(path, heads).problem is not None
    path.write_bytes(b"".join([first, second, *rest]))
    assert checked(path, heads).problem is None


def test_at_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    path = tmp_path / "a.jsonl"
    filled(path)
    path.write_bytes(old_line("forged") + path.read_bytes())
    done = CliRunner().invoke(app, ["audit", "verify", f"jsonl://{path}"])
    assert done.exit_code == 1
    assert "1 records are not sealed" in done.output
    done = CliRunner().invoke(app, ["audit", "verify", f"jsonl://{path}", "--allow-unsealed", "1"])
    assert done.exit_code == 0
    assert "1 records are not sealed" in done.output


def test_a_purge_that_another_contradicts_is_forged(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    filled(path)
    writer, now = new_writer(), small("x").started_at
    said = [{"writer": "ab" * 8, "seq": 9, "hash": digit * 64} for digit in "12"]
    made = seal(
        Head(writer=writer), [("purge", canonical({"at": now, "before": now, "purged": [each]})) for each in said]
    )
    path.write_bytes(path.read_bytes() + b"".join(entry.line() + b"\n" for entry in made))
    assert "contradicts" in str(checked(path, []).problem)


@pytest.mark.parametrize("field", ["started_at", "ended_at", "at"])
@pytest.mark.parametrize("time", ["", "soon", "2026-01-01", "0001-01-01T00:00:00+00:00", "9999-12-31T23:00:00-14:00"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_time_that_is_none_is_an_error_and_nothing_else(tmp_path: Path, field: str, time: str, sealed: bool) -> None:
    path = tmp_path / "a.jsonl"
    store = filled(path, 1)
    if field == "at":
        body: tuple[Kind, str] = "purge", canonical({"at": time, "before": time, "purged": []})
        sealed = True
    else:
        body = "record", canonical(small("odd").model_dump(mode="json") | {field: time})
    (entry,) = seal(store.heads()[0], [body])
    line = entry.line() if sealed else body[1].encode()
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert verify(JsonlStore(path)).problem is not None
    reads: list[Callable[[], object]] = [JsonlStore(path).stats, JsonlStore(path).search] if field != "at" else []
    if sealed:
        reads.append(lambda: JsonlStore(path).purge(datetime.now(UTC)))
    for read in reads:
        with pytest.raises(AuditError):
            read()
    assert len(lines(path)) == 2
