"""The audit log: what a record holds, what is left out of it, and that no record is lost."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import multiprocessing
import resource
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stars_guard.audit import (
    AuditStore,
    CallRecord,
    JsonlStore,
    MemoryStore,
    Recorder,
    Text,
    Writing,
    open_store,
    redact,
)
from stars_guard.audit.versions import NEWEST
from stars_guard.core.events import Decision, Drawing, Ended, Event, Kept, Released, Totals
from stars_guard.core.judging import Judgement, Rule, Score
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Candidate, Token
from stars_guard.core.vocabulary import ContentMode
from stars_guard.errors import AuditError

ABOUT: dict[str, Any] = {
    "call_id": "c0ffee",
    "run_id": "run-1",
    "policy": "default",
    "policy_sha256": "0" * 64,
    "mode": "enforce",
    "backend": {"kind": "scripted"},
    "scorers": {"harmlessness": {"kind": "function"}},
    "rules": (asdict(Rule(judge="harmlessness", weight=1.0)), asdict(Rule(judge="secrets", reject_above=0.0))),
    "decoding": {"method": "stars", "segment_tokens": 2, "beta": 0.3, "budget_tokens": None, "monitor": False},
    "sampling": asdict(Sampling(temperature=0.5)),
    "seed": 2**62,
}

AT_ONCE = Writing(on_error="block", patience=0)


def candidate(text: str, **more: Any) -> Candidate:
    return Candidate(tokens=tuple(Token(index, part) for index, part in enumerate(text.split(" "))), text=text, **more)


def decision(segment: int, attempt: int, text: str, verdict: Any = "rejected", **more: Any) -> Decision:
    judgement = Judgement(scores=(Score(judge="harmlessness", value=0.25, detail="fine", seconds=0.5),), reward=0.25)
    values: dict[str, Any] = {"threshold": 0.5, "probability": 0.4, "u": 0.9, "judgement": judgement, **more}
    return Decision(
        segment=segment,
        attempt=attempt,
        candidate=candidate(text),
        verdict=verdict,
        reason="u above probability",
        **values,
    )


EVENTS: tuple[Event, ...] = (
    Drawing(segment=0, attempt=0, count=3),
    decision(0, 0, "write to jo@exa"),
    decision(0, 1, "ask jane@exa", "accepted"),
    decision(0, 2, "never seen", "surplus", judgement=Judgement(), threshold=None, probability=None, u=None),
    Kept(segment=0, attempt=1, how="accepted"),
    Released(segment=0, text="ask jane@exa"),
    decision(1, 0, "mple.com or +1 555 123 4567", judgement=Judgement(veto="secrets: phone")),
    decision(1, 1, "mple.com today", "accepted"),
    Kept(segment=1, attempt=1, how="best"),
    Released(segment=1, text="mple.com today"),
    decision(2, 0, " bye"),
    Ended(segment=2, action="refuse", reason="no attempt was accepted"),
)


def recorder(mode: ContentMode = "full", events: tuple[Event, ...] = EVENTS) -> Recorder:
    made = Recorder(mode, (Message("user", "I am at joe@example.com"),), ABOUT)
    made.prompt_reward = -0.5
    for event in events:
        made.add(event)
    return made


def record(mode: ContentMode = "full", **more: Any) -> CallRecord:
    done = recorder(mode).finish(finish="refused", reason="no attempt was accepted", totals=Totals(drawn=9, kept=4))
    return done.model_copy(update=more)


def test_a_record_holds_every_attempt_and_decision() -> None:
    done = record()
    assert [[a.verdict for a in s.attempts] for s in done.segments] == [
        ["rejected", "accepted", "surplus"],
        ["rejected", "accepted"],
        ["rejected"],
    ]
    assert [(s.index, s.kept, s.how) for s in done.segments] == [(0, 1, "accepted"), (1, 1, "best"), (2, None, None)]
    assert done.segments[2].ended is not None
    assert done.segments[2].ended.model_dump() == {"action": "refuse", "reason": "no attempt was accepted"}
    assert done.answer.content == "ask jane@example.com today"
    assert (done.finish, done.method, done.prompt_reward) == ("refused", "stars", -0.5)
    assert (done.totals["drawn"], done.totals["kept"]) == (9, 4)
    assert [rule.judge for rule in done.rules] == ["harmlessness", "secrets"]
    assert done.started_at.endswith("+00:00")
    assert done.started_at <= done.ended_at
    assert done.segments[1].attempts[0].veto == "secrets: phone"


def test_one_attempt_as_it_is_written() -> None:
    assert json.loads(record().model_dump_json())["segments"][0]["attempts"][1] == {
        "attempt": 1,
        "text": {"content": "ask jane@exa", "encrypted": None, "sha256": None, "chars": 12},
        "tokens": 2,
        "overrun": 0,
        "finish": None,
        "whole": False,
        "stop_overlap": 0,
        "match_before": 0,
        "recovery": False,
        "scores": [
            {
                "judge": "harmlessness",
                "value": 0.25,
                "error": None,
                "detail": "fine",
                "seconds": 0.5,
                "batch": 1,
                "cached": None,
                "asked": None,
            },
        ],
        "unasked": [],
        "reward": 0.25,
        "veto": None,
        "ask": None,
        "threshold": 0.5,
        "probability": 0.4,
        "u": 0.9,
        "verdict": "accepted",
        "reason": "u above probability",
    }


@pytest.mark.parametrize("mode", ["full", "redacted", "hash", "none"])
def test_records_survive_the_round_trip(mode: ContentMode) -> None:
    done = record(mode)
    line = done.model_dump_json()
    assert "\n" not in line
    assert CallRecord.model_validate_json(line) == done
    assert json.loads(line)["schema_version"] == NEWEST
    assert json.loads(line)["seed"] == str(2**62)


def test_unfinished_calls_have_a_record_too() -> None:
    failed = recorder(events=EVENTS[:3]).finish(finish="failed", error="BackendError")
    assert (failed.finish, failed.error, failed.answer.content) == ("failed", "BackendError", "")
    assert [(s.kept, s.ended) for s in failed.segments] == [(None, None)]
    early = Recorder("none", (), {k: ABOUT[k] for k in ("call_id", "policy", "policy_sha256", "mode", "seed")})
    early.describe(backend={"kind": "late"})
    cancelled = early.finish(finish="cancelled")
    assert (cancelled.finish, cancelled.error, cancelled.segments) == ("cancelled", None, ())
    assert (cancelled.backend, cancelled.run_id, cancelled.totals["drawn"]) == ({"kind": "late"}, None, 0)


def test_modes_keep_as_much_text_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARS_GUARD_AUDIT_KEY", raising=False)
    text = "mail joé@example.com"
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert Text.of(text, "full") == Text(content=text, chars=20)
    assert Text.of(text, "redacted") == Text(content="mail [EMAIL]", chars=20)
    assert Text.of(text, "hash") == Text(sha256=digest, chars=20)
    assert Text.of(text, "none") == Text(chars=20)
    monkeypatch.setenv("STARS_GUARD_AUDIT_KEY", "k")
    derived = hmac.new(b"k", b"digest", "sha256").digest()
    assert Text.of(text, "hash").sha256 == hmac.new(derived, text.encode(), "sha256").hexdigest()
    assert Text.of("a\ud800b", "full").content == "a�b"
    assert Text.of("a\ud800b", "hash").sha256


@pytest.mark.parametrize("mode", ["hash", "none"])
def test_no_text_is_left_in_hash_and_none(mode: ContentMode) -> None:
    line = record(mode).model_dump_json()
    for word in ("jane", "joe", "mple", "seen", "bye", "555"):
        assert word not in line


def test_what_two_segments_share_is_redacted_in_both() -> None:
    done = record("redacted")
    assert done.prompt[0].content.content == "I am at [EMAIL]"
    assert done.answer.content == "ask [EMAIL] today"
    assert [[a.text.content for a in s.attempts] for s in done.segments] == [
        ["write to [EMAIL]", "ask [EMAIL]", "never seen"],
        ["[EMAIL] or [PHONE]", "[EMAIL] today"],
        [" bye"],
    ]


def test_a_stop_string_taken_back_does_not_shift_the_context() -> None:
    events: tuple[Event, ...] = (
        Decision(
            segment=0, attempt=0, candidate=candidate("at joST"), judgement=Judgement(), verdict="accepted", reason=""
        ),
        Kept(segment=0, attempt=0, how="unjudged"),
        Decision(
            segment=1,
            attempt=0,
            candidate=candidate("@example.com", stop_overlap=2),
            judgement=Judgement(),
            verdict="accepted",
            reason="",
        ),
        Kept(segment=1, attempt=0, how="unjudged"),
        Decision(
            segment=2, attempt=0, candidate=candidate(" end"), judgement=Judgement(), verdict="accepted", reason=""
        ),
        Kept(segment=2, attempt=0, how="unjudged"),
    )
    done = recorder("redacted", events).finish(finish="eos")
    assert [s.attempts[0].text.content for s in done.segments][1:] == ["[EMAIL]", " end"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jöhn.doe+x@exämple.co.uk.", "write to [EMAIL]."),
        ("call +1 (555) 123-4567 now", "call [PHONE] now"),
        ("or 020 7946 0958", "or [PHONE]"),
        ("4111 1111 1111 1111, ok", "[CARD], ok"),
        ("4111-1111-1111-1111", "[CARD]"),
        ("from 10.0.0.1 and 2001:db8::ff00:42:8329", "from [IP] and [IP]"),
        ("sk-abcdefghijklmnop1234 ghp_abcdefghijklmnopqrst", "[KEY] [KEY]"),
        ("AKIAIOSFODNN7EXAMPLE", "[KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "[KEY]"),
        ("half a@", "half [EMAIL]"),
        ("in 2024 some 12 of 100 000 people, v1.2.3, 10:30", "in 2024 some 12 of 100 000 people, v1.2.3, 10:30"),
        ("日本 a@b.jp 日本", "日本 [EMAIL] 日本"),
        ("", ""),
    ],
)
def test_redaction(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_redaction_looks_at_the_neighbours() -> None:
    assert redact("mple.com said", before="to john@exa") == "[EMAIL] said"
    assert redact("to john@exa", after="mple.com") == "to [EMAIL]"
    assert redact("1111 and", before="4111 1111 1111 ") == "[CARD] and"
    assert redact("plain", before="a@b.com ", after=" c@d.com") == "plain"


async def test_jsonl_keeps_records_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "audit.jsonl"
    async with open_store(f"jsonl://{path}") as store:
        assert isinstance(store, JsonlStore)
        assert await store.aread() == []
        written = [record(call_id=f"c{index}", run_id=None) for index in range(3)]
        for each in written:
            await store.append(each)
        assert await store.aread() == store.read() == written
        assert await store.aget("c1") == store.get("c1") == written[1]
    assert len(path.read_bytes().splitlines()) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_torn_line_is_skipped_and_healed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    await store.append(record(call_id="one"))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        assert [r.call_id for r in await store.aread()] == ["one"]
    assert caplog.messages == [f"{store.path}:2: a torn line was skipped"]
    await store.append(record(call_id="two"))
    assert [r.call_id for r in await store.aread()] == ["one", "two"]


async def test_a_torn_character_is_skipped(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    store.path.write_bytes('{"call_id": "é'.encode()[:-1])
    await store.append(record(call_id="two"))
    assert [r.call_id for r in await store.aread()] == ["two"]


async def test_another_versions_record_is_not_passed_over(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    store.path.write_text(json.dumps({"schema_version": NEWEST, "prompt": "private"}) + "\n")
    with pytest.raises(AuditError, match=r"a\.jsonl:1 is not a record that this version") as info:
        await store.aread()
    assert "private" not in str(info.value)


async def test_tasks_append_at_once(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl")
    await asyncio.gather(*(store.append(record(call_id=f"c{index}")) for index in range(40)))
    assert {r.call_id for r in await store.aread()} == {f"c{index}" for index in range(40)}


def _append_many(path: str, name: str, barrier: Any) -> None:
    async def go() -> None:
        store = JsonlStore(Path(path))
        barrier.wait()
        for index in range(50):
            big = Text(content=name * 20_000, chars=20_000)
            await store.append(record(call_id=f"{name}{index}", answer=big))

    asyncio.run(go())


def test_processes_append_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, barrier = tmp_path / "shared.jsonl", context.Barrier(2)
    workers = [context.Process(target=_append_many, args=(str(path), name, barrier)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    records = JsonlStore(path).read()
    assert len(path.read_bytes().splitlines()) == 100
    assert {r.call_id for r in records} == {f"{name}{index}" for name in "ab" for index in range(50)}
    assert [r.call_id for r in records if r.call_id[0] == "a"] == [f"a{index}" for index in range(50)]


async def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "a.jsonl", writing=AT_ONCE)
    await store.append(record(call_id="one"))
    before = store.path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, old[1]))
    try:
        with pytest.raises(AuditError, match="cannot write the audit log"):
            await store.append(record(call_id="two"))
        assert store.path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    await store.append(record(call_id="three"))
    assert [r.call_id for r in await store.aread()] == ["one", "three"]


async def test_what_cannot_be_written_or_read_is_an_audit_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="cannot write the audit log"):
        await JsonlStore(tmp_path / "file" / "a.jsonl", writing=AT_ONCE).append(record())
    with pytest.raises(AuditError, match="cannot read the audit log"):
        JsonlStore(tmp_path).read()


async def test_get_takes_a_whole_id_or_the_start_of_one() -> None:
    store = MemoryStore()
    for call, run in (("abc", "r1"), ("abcd", "r2"), ("xyz", None)):
        await store.append(record(call_id=call, run_id=run))
    assert store.get("abc").call_id == "abc"
    assert store.get("r2").call_id == "abcd"
    assert (await store.aget("x")).call_id == "xyz"
    for wrong, text in (("ab", "2 records fit"), ("q", "no records fit"), ("", "no records fit")):
        with pytest.raises(AuditError, match=text):
            store.get(wrong)


def test_stores_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def path_of(url: str | None) -> Path:
        store = open_store(url)
        assert isinstance(store, JsonlStore)
        return store.path

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert isinstance(open_store("memory://"), MemoryStore)
    assert path_of("jsonl:///var/log/a.jsonl") == Path("/var/log/a.jsonl")
    assert path_of("jsonl://~/logs/a%20b.jsonl") == tmp_path / "logs" / "a b.jsonl"
    assert path_of("jsonl:///x/what?#1.jsonl") == Path("/x/what?#1.jsonl")
    monkeypatch.chdir(tmp_path)
    assert path_of("jsonl://a.jsonl") == tmp_path / "a.jsonl"
    turned = open_store("jsonl:///x/a.jsonl?max_bytes=5000&daily=1")
    assert isinstance(turned, JsonlStore)
    assert turned.path == Path("/x/a.jsonl")
    wrong = ("jsonl:///a?max_bytes=x", "jsonl:///a?daily=2", "jsonl:///a?keep=1")
    for url in ("postgres://x", "jsonl://", "jsonl:///folder/", "/plain/path", "memory://x", *wrong):
        with pytest.raises(AuditError, match="cannot use the audit URL"):
            open_store(url)


def test_a_store_must_say_how_it_keeps_records() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AuditStore()  # type: ignore[abstract]
