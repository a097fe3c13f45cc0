"""Proof: whatever is changed in a log is found, and every decision follows from what is on record."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit_writers import small
from conftest import USER, guard, policy, rewarding, vetoing, words
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import Postgres, postgres
from sqlalchemy import text
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, JsonlStore, MemoryStore, open_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.entries import Entry, Head, canonical, new_writer, seal
from stars_guard.audit.keys import audit_keys
from stars_guard.audit.sql import SqlStore
from stars_guard.auditing.verification import redo, verify
from stars_guard.cli.app import app
from stars_guard.errors import AuditError, ScorerError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing.scripted import ScriptedBackend

__all__ = ["postgres"]

GUARDS: dict[str, dict[str, Any]] = {
    "stars": {},
    "stars, one by one": {"parallel": 1, "acceptance": "hard"},
    "stars, four at once": {"parallel": 4, "schedule": "constant"},
    "stars, refused": {"attempts": 2, "on_exhausted": "refuse", "r_star": 30.0, "beta": 0.01, "schedule": "constant"},
    "stars, stopped": {"attempts": 2, "on_exhausted": "stop", "r_star": 3.0, "beta": 0.1},
    "stars, the best": {"attempts": 3, "parallel": 3, "r_star": 3.0, "beta": 0.01},
    "stars, learned": {
        "schedule": "learned",
        "acceptance": "hard",
        "attempts": 3,
        "thresholds": [{"tokens": 4, "base": 0.1, "carry": 0.9}, {"tokens": 8, "base": 0.2}],
    },
    "stars, budget": {"budget_tokens": 30, "attempts": 4},
    "stars, budget, refused": {"budget_tokens": 20, "on_exhausted": "refuse", "r_star": 2.0},
    "cards": {"method": "cards", "segment_tokens": 6},
    "monitor": {"mode": "monitor", "beta": 0.05},
    "off": {"mode": "off"},
    "vanilla": {"method": "vanilla"},
    "best of n": {"method": "best_of_n", "max_tokens": 6},
    "blockwise": {"method": "blockwise_best_of_k", "attempts": 3},
    "blockwise, budget": {"method": "blockwise_best_of_k", "attempts": 3, "budget_tokens": 31},
    "huge numbers": {"budget_tokens": 10**17},
}


def drawn(seeds: int = 6, **more: Any) -> list[CallRecord]:
    made = guard(rewarding(), vetoing(), backend=ScriptedBackend(words(12)), **more)
    for seed in range(seeds):
        made.blocking.generate(USER, CallOptions(seed=seed, stop=("fine bad ",) if seed % 2 else ()))
    assert isinstance(made.audit, MemoryStore)
    return made.audit.records


@pytest.mark.parametrize("name", GUARDS)
def test_every_decision_of_a_guard_holds_when_it_is_redone(name: str) -> None:
    for record in drawn(**GUARDS[name]):
        assert redo(record) is None
        again = CallRecord.model_validate_json(canonical(record.model_dump(mode="json")))
        assert redo(again) is None
        assert again.seed == record.seed


def test_failed_calls_and_failing_judges_hold_too() -> None:
    def broken(passage: Any) -> float:
        if passage.index == 2:
            raise RuntimeError
        return 1.0

    for on_error in ("reject", "ignore", "raise"):
        made = guard(rewarding(broken, on_error=on_error), backend=ScriptedBackend(words(12)), attempts=2)
        with pytest.raises(ScorerError) if on_error == "raise" else nullcontext():
            made.blocking.generate(USER, CallOptions(seed=1))
        assert isinstance(made.audit, MemoryStore)
        (record,) = made.audit.records
        assert (record.finish == "failed") == (on_error == "raise")
        assert redo(record) is None


async def test_checks_around_an_answer_hold_too() -> None:
    patterns = {"name": "no-rocks", "type": "patterns", "patterns": [{"name": "rock", "regex": "rock"}]}
    for mode in ("enforce", "monitor"):
        made = Guard(
            {**policy(mode=mode), "rails": {"input": {"judges": [patterns]}, "tool_call": {"judges": [patterns]}}},
            model=ScriptedBackend(words()),
            audit=MemoryStore(),
        )
        for stage in ("input", "tool_call"):
            for said in ("a rock", "a river"):
                await made.check(stage, said)  # type: ignore[arg-type]
        assert isinstance(made.audit, MemoryStore)
        assert [redo(record) for record in made.audit.records] == [None] * 4
        let_through = made.audit.records[0].model_dump()
        let_through["segments"][0]["attempts"][0].update(verdict="accepted")
        problem = redo(CallRecord.model_validate(let_through))
        assert problem is not None
        assert "verdict is accepted on record and rejected" in problem.text


EDITS: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], Any]]] = {
    "reward": ("reward is", lambda r, s, a: a.update(reward=a["reward"] + 0.001)),
    "score": ("reward is", lambda r, s, a: a["scores"][-1].update(value=a["scores"][-1]["value"] - 1)),
    "rule": ("reward is", lambda r, s, a: [rule.update(weight=2.0) for rule in r["rules"] if rule["weight"]]),
    "threshold": ("threshold is", lambda r, s, a: a.update(threshold=a["threshold"] - 0.01)),
    "probability": ("probability is", lambda r, s, a: a.update(probability=0.123)),
    "u": ("u is", lambda r, s, a: a.update(u=0.5)),
    "seed": ("u is", lambda r, s, a: r.update(seed=r["seed"] + 1)),
    "verdict": ("verdict is", lambda r, s, a: a.update(verdict="accepted")),
    "veto": ("veto is", lambda r, s, a: a.update(veto="words")),
    "prompt reward": ("threshold is", lambda r, s, a: r.update(prompt_reward=-5.0)),
    "beta": ("probability is", lambda r, s, a: r["decoding"].update(beta=9.0)),
    "tokens": ("is", lambda r, s, a: a.update(tokens=1)),
    "kept": ("is not on record", lambda r, s, a: s.update(kept=99)),
    "other kept": ("verdict of what was kept", lambda r, s, a: s.update(kept=a["attempt"])),
    "how": ("", lambda r, s, a: s.update(how="monitored")),
    "a proposal left out": ("numbers of its attempts", lambda r, s, a: s.update(attempts=s["attempts"][1:])),
    "a segment left out": ("", lambda r, s, a: r.update(segments=r["segments"][:-1])),
    "total": ("total of rejections", lambda r, s, a: r["totals"].update(rejections=0)),
    "finish": ("why the answer ended", lambda r, s, a: r.update(finish="refused")),
    "answer": ("length of the answer", lambda r, s, a: r["answer"].update(chars=3)),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_does_not_follow_is_named(name: str) -> None:
    record = next(
        record
        for record in drawn(12, beta=0.2, parallel=1)
        if record.finish != "stop" and any(len(s.attempts) > 1 and s.how == "accepted" for s in record.segments)
    )
    data = record.model_dump()
    segment = next(s for s in data["segments"] if len(s["attempts"]) > 1 and s["how"] == "accepted")
    attempt = next(a for a in segment["attempts"] if a["verdict"] == "rejected" and a["veto"] is None)
    expected, edit = EDITS[name]
    edit(data, segment, attempt)
    problem = redo(CallRecord.model_validate(data))
    assert problem is not None
    assert f"call {record.call_id}" in problem.where
    assert expected in problem.text


def fill(url: str, count: int = 4, **more: Any) -> ChainedStore:
    async def go(store: ChainedStore) -> None:
        for number in range(count):
            await store.append(small(f"c{number}", **more))
        await store.aclose()

    store = open_store(url)
    assert isinstance(store, ChainedStore)
    asyncio.run(go(store))
    return store


def found(path: Path) -> str:
    """What verify says of a file; what reading it makes of it is as good."""
    try:
        return str(verify(JsonlStore(path)).problem or "")
    except AuditError as exc:
        return str(exc)


@pytest.mark.parametrize("count", [1, 3])
def test_every_single_flipped_bit_is_found(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.jsonl"
    fill(f"jsonl://{path}", count)
    whole = path.read_bytes()
    assert found(path) == ""
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert found(path), at


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(f"jsonl://{path}", 2)
    whole = path.read_bytes()

    @settings(max_examples=300, deadline=None)
    @given(at=st.integers(0, len(whole) - 1), byte=st.integers(0, 255))
    def check(at: int, byte: int) -> None:
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        assert bool(found(path)) == (byte != whole[at])

    check()


def test_lines_taken_out_put_in_and_swapped_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = fill(f"jsonl://{path}", 4)
    (head,) = store.heads()
    a, b, c, d = path.read_bytes().splitlines(keepends=True)
    stranger = seal(Head(writer=new_writer()), [("record", canonical(small("x").model_dump(mode="json")))])
    for lines, said in (
        ([a, c, d], "comes after number 1"),
        ([b, c, d], "begins with number 2"),
        ([a, c, b, d], "comes after number 1"),
        ([a, a, b, c, d], "comes after number 1"),
        ([a, b, b"{}\n", c, d], "a.jsonl:3 is not a record"),
        ([a, b, small("v1").model_dump_json().encode() + b"\n", c, d], "it is not sealed"),
    ):
        path.write_bytes(b"".join(lines))
        assert said in found(path)
    # what no chain alone can tell, a head kept elsewhere does
    for lines in ([a, b, c], [a], [stranger[0].line() + b"\n"]):
        path.write_bytes(b"".join(lines))
        assert found(path) == ""
        assert "tail was cut off" in str(verify(JsonlStore(path), [head]).problem)
    path.write_bytes(a + b + c + d)
    assert verify(JsonlStore(path), [head]).problem is None


@pytest.mark.parametrize("column", ["payload", "hash", "prev", "seq", "seq = 9007199254740993, prev", "writer", "key"])
def test_a_changed_column_is_found(tmp_path: Path, column: str) -> None:
    store = fill(f"sqlite://{tmp_path}/a.db")
    assert isinstance(store, SqlStore)
    new = {"payload": "replace(payload, 'c1', 'c9')", "seq": "9"}.get(column, f"'{'0' * 16}'")
    with store._engine.begin() as connection:
        connection.execute(text(f"UPDATE entries SET {column} = {new} WHERE seq = 2"))
    assert verify(store).problem is not None
    store.close()


def test_with_a_key_only_its_owner_can_make_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", "first")
    fill(f"jsonl://{path}", 2)
    assert verify(JsonlStore(path)).unsigned == 0
    assert "first" not in repr(audit_keys()) + path.read_text()
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", "second first")
    fill(f"jsonl://{path}", 2)
    assert verify(JsonlStore(path)).problem is None
    for keys in ("second", "other"):
        monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", keys)
        assert "which is not here" in found(path)
    monkeypatch.delenv("STARS_GUARD_AUDIT_KEY")
    assert "which is not here" in found(path)
    lines = path.read_bytes().splitlines(keepends=True)
    entry = Entry.parse(lines[-2].rstrip())
    assert entry is not None
    forged = seal(entry.head, [("record", canonical(small("forged").model_dump(mode="json")))])[0]
    path.write_bytes(b"".join(lines[:-1]) + forged.line() + b"\n")
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", "second first")
    assert "it is not signed" in found(path)
    other = tmp_path / "b.jsonl"
    other.write_bytes(seal(Head(writer=new_writer()), [("record", forged.payload)])[0].line() + b"\n")
    monkeypatch.delenv("STARS_GUARD_AUDIT_KEY")
    plain = tmp_path / "c.jsonl"
    fill(f"jsonl://{plain}", 2)
    assert verify(JsonlStore(plain)).unsigned == 2
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", "second")
    assert "it is not signed" in found(plain)
    assert verify(JsonlStore(plain), unsigned=True).problem is None


OLD = datetime(2026, 1, 1, tzinfo=UTC)


def log_of_two_ages(url: str) -> ChainedStore:
    old = OLD.isoformat()
    fill(url, 5, started_at=old, ended_at=old)
    return fill(url, 2)


@pytest.mark.parametrize("kind", ["jsonl", "parts", "sqlite", "postgresql"])
def test_a_purged_log_can_be_verified(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    urls = {
        "jsonl": f"jsonl://{tmp_path}/a",
        "parts": f"jsonl://{tmp_path}/a?max_bytes=2500",
        "sqlite": f"sqlite://{tmp_path}/a",
    }
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        urls[kind] = server.database()
    store = log_of_two_ages(urls[kind])
    heads = store.heads()
    assert store.purge(OLD) == 0
    assert store.purge(OLD + timedelta(days=1)) == 5
    assert store.purge(OLD + timedelta(days=1)) == 0
    report = verify(store, heads)
    assert (report.problem, report.records, report.purged) == (None, 2, 5)
    assert [record.call_id for record in store.read()] == ["c0", "c1"]
    assert len(store.search()) == 2
    for file in tmp_path.iterdir():
        assert b"call c4" not in file.read_bytes()
    fill(urls[kind], 1)
    heads = store.heads()
    assert store.purge(datetime.now(UTC) + timedelta(seconds=2)) == 3
    report = verify(store, heads)
    assert (report.problem, report.records, store.read()) == (None, 0, [])
    assert report.purged >= 8
    assert "call c4" not in "".join(entry.payload for entry in store.entries() if isinstance(entry, Entry))
    store.close()


def test_taking_entries_out_by_hand_is_no_purge(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    store = log_of_two_ages(f"jsonl://{path}")
    store.purge(OLD + timedelta(days=1))
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rest))
    assert "no purge says so" in found(path)
    path.write_bytes(first)
    assert "no purge says so" in found(path)


def test_verify_head_and_purge_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    url = f"jsonl://{path}"
    log_of_two_ages(url)
    run = CliRunner().invoke
    done = run(app, ["audit", "verify", url])
    assert done.exit_code == 0, done.output
    assert "7 records in 1 chains hold" in done.output
    assert "not signed" in done.output
    head = run(app, ["audit", "head", url]).output
    assert json.loads(head)["seq"] == 7
    (tmp_path / "head").write_text(head)
    assert "5 records" in run(app, ["audit", "purge", url, "--older-than", "2026-01-02"]).output
    assert "5 entries were purged" in run(app, ["audit", "verify", url, "--head", str(tmp_path / "head")]).output
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1]))
    done = run(app, ["audit", "verify", url, "--head", str(tmp_path / "head")])
    assert done.exit_code == 1
    assert "does not hold" in done.output
    for args in (
        ["purge", url, "--older-than", "2999-01-01"],
        ["verify", url, "--head", str(path)],
        ["verify", "memory://"],
        ["verify", url, "--head", str(tmp_path / "none")],
    ):
        assert run(app, ["audit", *args]).exit_code == 2


def test_what_canonical_json_cannot_hold() -> None:
    assert canonical({"b": 2**53, "a": 1.0, "c": "é\n"}) == '{"a":1,"b":"9007199254740992","c":"é\\n"}'
    for wrong in (math.inf, math.nan, "\ud800"):
        with pytest.raises(AuditError, match="cannot be written"):
            canonical({"x": wrong})


async def test_a_record_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    done = await asyncio.gather(
        store.append(small("one")),
        store.append(small("bad", reason="\ud800")),
        store.append(small("two")),
        return_exceptions=True,
    )
    assert [type(each) for each in done] == [type(None), AuditError, type(None)]
    assert [record.call_id for record in store.read()] == ["one", "two"]
