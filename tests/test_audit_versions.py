"""Records of every version stay readable, and one of a newer version is never passed over."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from audit_writers import small
from record_fields import fields_of
from sqlalchemy import text
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, Filter, JsonlStore, MemoryStore, open_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Head, canonical, new_writer, seal
from stars_guard.audit.sql import SqlStore
from stars_guard.audit.versions import NEWEST, VERSIONS, SchemaVersion
from stars_guard.auditing.verification import redo, verify
from stars_guard.cli.app import app
from stars_guard.errors import AuditError

RECORDS = Path(__file__).parent / "records"
LOGS = sorted(path for path in RECORDS.glob("v*/*") if path.suffix in (".jsonl", ".db"))
KEYS = {"2e06a02.jsonl": "frozen corpus"}
"""Logs that are signed, and with what."""


def test_the_table_has_every_version() -> None:
    assert tuple(VERSIONS) == get_args(SchemaVersion) == tuple(range(1, NEWEST + 1))
    assert CallRecord.model_fields["schema_version"].default == NEWEST
    for version, summary in VERSIONS.items():
        assert summary.endswith(".")
        assert (RECORDS / f"v{version}").is_dir(), f"there is no frozen log of version {version}"


def test_a_field_does_not_change_without_a_new_version() -> None:
    frozen = (RECORDS / f"v{NEWEST}" / "fields.txt").read_text().splitlines()
    assert fields_of(CallRecord.model_json_schema()) == frozen, (
        f"the fields of a record are no longer those of version {NEWEST}: add a version to "
        "stars_guard/audit/versions.py, and freeze its fields and a log beside those of the other versions "
        "(tests/record_fields.py and tests/records/make.py make them)"
    )


def test_whatever_a_record_could_say_it_still_can() -> None:
    def kinds_by_field(version: int) -> dict[str, set[str]]:
        lines = (RECORDS / f"v{version}" / "fields.txt").read_text().splitlines()
        return {name: set(kinds.split(" | ")) for name, _, kinds in (line.partition(": ") for line in lines)}

    newest = kinds_by_field(NEWEST)
    for version in VERSIONS:
        for name, kinds in kinds_by_field(version).items():
            assert kinds <= newest[name], f"{name} of version {version}"


@pytest.fixture(params=LOGS, ids=[f"{path.parent.name}-{path.name}" for path in LOGS])
def old_log(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The version of a frozen log, and the URL of a copy."""
    path: Path = request.param
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", KEYS.get(path.name, ""))
    for each in path.parent.glob(f"{path.name}*"):
        shutil.copy(each, tmp_path / each.name)
    scheme = "sqlite" if path.suffix == ".db" else "jsonl"
    return int(path.parent.name[1:]), f"{scheme}://{tmp_path / path.name}"


def opened(url: str) -> ChainedStore:
    store = open_store(url)
    assert isinstance(store, ChainedStore)
    return store


async def test_an_old_log_is_read_searched_verified_and_goes_on(old_log: tuple[int, str]) -> None:
    version, url = old_log
    async with opened(url) as store:
        records = store.read()
        assert len(records) > 10
        assert {record.schema_version for record in records} == {version}
        assert [redo(record) for record in records] == [None] * len(records)
        assert {record.seed for record in records} >= {2**62 + 1}
        reference = MemoryStore()
        reference.records = list(records)
        for wanted in (Filter(), Filter(judge="words"), Filter(finish="refused"), Filter(text="awful")):
            assert store.search(wanted, limit=None) == reference.search(wanted, limit=None)
            assert list(store.select(wanted)) == list(reference.select(wanted))
        assert store.stats().total.drawn == reference.stats().total.drawn
        assert [store.get(record.call_id) for record in records] == records
        report = verify(store)
        assert report.problem is None
        assert report.records + report.unsealed == len(records)
        await store.append(small("new"))
        assert [record.call_id for record in store.read()] == [*(record.call_id for record in records), "new"]
        assert verify(store, store.heads()).problem is None
        assert store.purge(datetime.now(UTC) + timedelta(days=999)) == len(records) + 1
        assert verify(store).problem is None


def test_an_old_log_is_verified_at_the_terminal(old_log: tuple[int, str]) -> None:
    done = CliRunner().invoke(app, ["audit", "verify", old_log[1]])
    assert done.exit_code == 0, done.output
    assert "decisions" in done.output


def newer(**more: object) -> str:
    return canonical({**small("next").model_dump(mode="json"), "schema_version": NEWEST + 1, "mood": "secret", **more})


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("sealed", [True, False])
async def test_a_newer_record_in_a_file_is_an_error_that_says_so(
    tmp_path: Path, sealed: bool, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    await store.append(small("one"))
    await store.aclose()
    line = seal(store.heads()[0], [("record", newer())])[0].line().decode() if sealed else newer()
    with store.path.open("a") as file:
        file.write(line + end)
    says_so(store)
    await store.append(small("two"))
    assert line in store.path.read_text(), "the next write has taken it for a torn line"
    says_so(store)
    assert "torn" not in caplog.text
    await store.aclose()


async def test_a_newer_record_in_a_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with opened(f"sqlite://{tmp_path}/a.db") as store:
        assert isinstance(store, SqlStore)
        await store.append(small("one"))
        (entry,) = seal(Head(writer=new_writer()), [("record", newer())])
        with store._engine.begin() as connection:
            connection.execute(
                text("UPDATE entries SET writer = :writer, payload = :payload, hash = :hash"),
                {"writer": entry.writer, "payload": entry.payload, "hash": entry.hash},
            )
            connection.execute(text("UPDATE calls SET writer = :writer"), {"writer": entry.writer})
        says_so(store)
        with pytest.raises(AuditError, match="upgrade stars-guard"):
            store.get("one")


def says_so(store: ChainedStore) -> None:
    said = rf"is a record of version {NEWEST + 1}, and .* up to {NEWEST} \(upgrade stars-guard"
    with pytest.raises(AuditError, match=said) as info:
        store.read()
    assert "secret" not in str(info.value)
    with pytest.raises(AuditError, match=said):
        list(store.select())
    problem = str(verify(store).problem)
    assert f"record of version {NEWEST + 1}" in problem
    assert "upgrade stars-guard" in problem
    assert "secret" not in problem


async def test_what_is_no_record_of_any_version_is_named_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    for version in (-1, 0, "4", None, True, 4.0):
        store.path.write_text(json.dumps({"schema_version": version, "prompt": "secret"}) + "\n")
        with pytest.raises(AuditError, match=r"a\.jsonl:1 is not a record that this version") as info:
            store.read()
        assert "secret" not in str(info.value)
    await store.append(small("one"))
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"\x00\xffgarbage\n" + lines[1])
    with caplog.at_level(logging.WARNING):
        assert [record.call_id for record in store.read()] == ["one"]
    assert "a.jsonl:1: a damaged line was skipped" in caplog.text
    await store.aclose()
