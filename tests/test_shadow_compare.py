"""What shadows would have decided, counted: in metrics, at the terminal and on the page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_records import call, tried, vetoed
from conftest import USER, policy, words
from test_audit_page import browser, page, serving  # noqa: F401  # fixtures
from test_metrics import Reading, reading  # noqa: F401  # a fixture
from test_terminals import PIPE, WIDTHS, readable, shown
from typer.testing import CliRunner

from stars_guard.audit import AuditStore, CallRecord, MemoryStore, open_store
from stars_guard.audit.record import ShadowAttempt, ShadowEntry
from stars_guard.audit.shadow_stats import NEWEST, compare_shadows
from stars_guard.audit.viewer import report
from stars_guard.calling import metrics, portal
from stars_guard.cli.app import app
from stars_guard.cli.audit_shadows import OUTCOMES
from stars_guard.core.vocabulary import OtherOutcome
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing.scripted import ScriptedBackend

EVIL = "<script>alert('x')</script>[red]"


def veto(word: str) -> dict[str, Any]:
    return {"name": "words", "type": "patterns", "patterns": [{"name": "word", "regex": word}]}


STRICT = policy(name="strict", judges=[veto("bad|awful")], attempts=2, on_exhausted="refuse")
CALM = policy(name="calm", mode="off")
LIVE = policy(judges=[veto("awful")], shadow=[{"policy": STRICT, "wait": 20.0}, {"policy": CALM, "wait": 20.0}])


def followed(store: AuditStore, calls: int = 8) -> list[CallRecord]:
    with Guard(LIVE, model=ScriptedBackend(words(12)), audit=store).blocking as guard:
        for seed in range(calls):
            guard.generate(USER, CallOptions(seed=seed))
    return store.read()


def rejected_by(entry: ShadowEntry, record: CallRecord) -> tuple[Counter[tuple[bool, bool]], int]:
    """Decisions of both, (live, shadow) rejects, without surplus; and the tokens that the shadow throws away."""
    live = {(s.index, a.attempt): a for s in record.segments for a in s.attempts if a.verdict != "surplus"}
    rows = [(live[row.segment, row.attempt], row) for row in entry.candidates if (row.segment, row.attempt) in live]
    both = Counter((a.verdict == "rejected", row.verdict == "rejected") for a, row in rows)
    return both, sum(a.tokens for a, row in rows if row.verdict == "rejected")


def test_the_comparison_is_that_of_the_records() -> None:
    records = followed(MemoryStore())
    strict, calm = compare_shadows(records)
    assert (strict.policy, strict.shadow, calm.shadow) == ("test", "strict", "calm")
    for place, found in enumerate((strict, calm)):
        entries = [(record.shadows[place], record) for record in records]
        pairs: Counter[tuple[bool, bool]] = sum((rejected_by(*each)[0] for each in entries), Counter())
        assert (found.both, found.only_live, found.only_shadow) == (
            pairs[True, True],
            pairs[True, False],
            pairs[False, True],
        )
        assert found.candidates == sum(pairs.values())
        assert found.shadow_tokens == sum(rejected_by(*each)[1] for each in entries)
        assert found.tokens == sum(record.totals["rejected"] for record in records)
        assert found.same == sum(entry.outcome == "same" for entry, _ in entries)
        assert found.same + found.differing + found.undecided == found.calls == len(records)
        assert sum(calls for _, calls in found.outcomes) == found.differing
        assert [one.call for one in found.newest] == [
            record.call_id for entry, record in reversed(entries) if entry.outcome not in ("same", "unknown")
        ][:NEWEST]
        assert found.asked == sum(entry.totals["asked"] for entry, _ in entries)
    assert strict.only_shadow > 0
    assert calm.only_live > 0
    assert calm.asked == calm.shadow_passages == 0


def test_metrics_are_those_of_the_records(reading: Reading) -> None:  # noqa: F811
    records = followed(MemoryStore())
    entries = [(entry, record) for record in records for entry in record.shadows]
    assert reading.sums("stars_guard.shadow.calls", metrics.SHADOW, metrics.SHADOW_OUTCOME) == Counter(
        (entry.policy, entry.outcome) for entry, _ in entries
    )
    verdicts = Counter(
        (entry.policy, attempt.verdict, row.verdict)
        for entry, record in entries
        for row in entry.candidates
        for segment in record.segments
        for attempt in segment.attempts
        if (segment.index, attempt.attempt) == (row.segment, row.attempt)
    )
    counted = reading.sums("stars_guard.shadow.candidates", metrics.SHADOW, metrics.VERDICT, metrics.SHADOW_VERDICT)
    assert counted == verdicts
    for name, total in (("tokens", "rejected"), ("passages", "asked")):
        wanted: Counter[tuple[str]] = Counter()
        for entry, _ in entries:
            wanted[entry.policy,] += entry.totals[total]
        assert reading.sums(f"stars_guard.shadow.{name}", metrics.SHADOW) == +wanted


def beside(verdicts: str, outcome: OtherOutcome | str = "same", **more: Any) -> ShadowEntry:
    """An entry with a verdict for the first candidate of each segment: a, r or u."""
    words = {"a": "accepted", "r": "rejected", "u": "unknown"}
    rows = [ShadowAttempt(segment=i, attempt=0, verdict=words[v]) for i, v in enumerate(verdicts)]  # type: ignore[arg-type]
    fields: dict[str, Any] = {"policy": "next", "policy_sha256": "ab" * 32, "mode": "enforce", **more}
    return ShadowEntry(candidates=tuple(rows), outcome=outcome, totals={"asked": 7}, **fields)  # type: ignore[arg-type]


RECORDS = (
    call("0a1b2c3d4e5f6071", 0, ((tried(0, "The Elbe", 0.9),), (tried(0, "flows", 0.9),)), shadows=(beside("aa"),)),
    call(
        "1a1b2c3d4e5f6071",
        1,
        ((vetoed(0, "Damn"), tried(1, "The Rhine", 0.2)),),
        shadows=(beside("a", "accepted", segment=0, kept=0, seen=1),),
    ),
    call(
        "2a1b2c3d4e5f6071",
        2,
        ((tried(0, "The Elbe", 0.9),),),
        stage="tool_call",
        finish="passed",
        shadows=(beside("r", "refuse", segment=0, seen=1),),
    ),
    call("3a1b2c3d4e5f6071", 3, ((tried(0, "x", 0.9),),), shadows=(beside("u", "unknown", error="not in time"),)),
    call("4a1b2c3d4e5f6071", 4, ((tried(0, "x", 0.9),),)),
    call(
        "5a1b2c3d4e5f6071",
        5,
        ((tried(0, "x", 0.9),),),
        policy="customer-support-of-a-large-shop",
        stage="tool_call",
        finish="cancelled",
        shadows=(beside("r", "more", segment=0, policy="customer-support-of-a-large-shop-next-year"),),
    ),
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[str]:
    url = f"jsonl://{tmp_path}/audit.jsonl"
    store = open_store(url)
    for record in RECORDS:
        portal.call(lambda record=record: store.append(record))
    yield url
    portal.call(store.aclose)


@pytest.mark.parametrize("width", [*WIDTHS, PIPE])
def test_at_the_terminal(width: int, log: str, snapshot: Any) -> None:
    text = shown(width, ["audit", "compare", log])
    readable(text, width)
    assert text == snapshot


def test_as_json_and_filtered(log: str) -> None:
    done = CliRunner().invoke(app, ["audit", "compare", log, "--policy", "default", "--json"])
    (found,) = [json.loads(line) for line in done.output.splitlines()]
    assert (found["calls"], found["same"], found["differing"], found["asked"]) == (4, 1, 2, 28)
    assert "No shadow" in CliRunner().invoke(app, ["audit", "compare", log, "--policy", "none"]).output
    told = CliRunner().invoke(app, ["audit", "show", log, "--id", "2a1b"]).output
    assert "shadow next (abababababab): refuse at segment 0" in told


def test_each_outcome_has_its_words() -> None:
    from typing import get_args

    outcomes = {word for kind in get_args(OtherOutcome) for word in get_args(kind)}
    assert set(OUTCOMES) == outcomes - {"unknown"}


def test_on_the_page(page: Any) -> None:  # noqa: F811
    store = MemoryStore()
    store.records = [
        *RECORDS,
        call("6a1b2c3d4e5f6071", 6, ((tried(0, "x", 0.9),),), shadows=(beside("a", policy=EVIL),)),
    ]
    with serving(store) as url:
        page.goto(f"{url}/compare?policy=default")
        card = page.get_by_role("region", name="default and next")
        assert card.locator("tbody").first.locator("tr").first.locator("td").all_inner_texts() == ["1", "1"]
        assert page.locator("section h2").count() == 2
        assert EVIL in page.locator("section h2").last.inner_text()
        card.get_by_role("link", name="2a1b2c3d4e5f").click()
        section = page.get_by_role("region", name="Shadow next")
        assert "refuse" in section.inner_text()
        section.get_by_text("Every candidate").click()
        assert section.locator("tbody tr").first.locator("td").all_inner_texts()[:2] == ["accepted", "rejected"]
        page.get_by_role("link", name="Shadows").click()
        assert page.locator("section h2").count() == 3
    assert "What the shadow policy next would have decided" in report(store)
