"""Metrics, as a reader of the OpenTelemetry SDK gets them."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from conftest import USER, guard, printed_by, rewarding, vetoing, words
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics as api
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader

from stars_guard.audit import AuditStore, CallRecord, blamed, open_store
from stars_guard.audit.writing import Writing
from stars_guard.calling import metrics
from stars_guard.core.doubt import Doubt
from stars_guard.core.judging import Rule
from stars_guard.core.segments import Passage
from stars_guard.core.tool_call_events import Approval
from stars_guard.errors import AuditError
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer, ScriptedBackend

Points = dict[str, list[Any]]


class Reading:
    """What a reader has been given since the test began."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()

    def points(self) -> Points:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], int]:
        found: Counter[tuple[str, ...]] = Counter()
        for point in self.points().get(name, []):
            about = dict(point.attributes)
            found[tuple(str(about[label]) for label in labels)] += getattr(point, "value", getattr(point, "count", 0))
        return dict(found)


@contextmanager
def provided(reader: MetricReader) -> Iterator[None]:
    """A process has one provider, which cannot be replaced by its public door."""
    provider = MeterProvider([reader])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", provider)
        assert api.get_meter_provider() is provider
        yield
    provider.shutdown()


@pytest.fixture
def reading() -> Iterator[Reading]:
    found = Reading()
    metrics._cascades.clear()
    metrics._stores.clear()
    with provided(found.reader):
        yield found


FATES = ("kept", "rejected", "surplus", "overrun", "rewound")


def told_by(records: list[CallRecord]) -> dict[str, Any]:
    """The same numbers, from the records."""
    attempts = [(r, a) for r in records for s in r.segments for a in s.attempts]
    tokens: Counter[tuple[str, ...]] = Counter()
    for record in records:
        tokens.update({(fate,): record.totals[fate] for fate in FATES})
    return {
        "calls": Counter((r.stage, r.finish) for r in records),
        "candidates": Counter((a.verdict,) for _, a in attempts),
        "rejections": Counter((judge,) for r, a in attempts for judge in blamed(a, r.rules)),
        "tokens": +tokens,
        "scores": Counter((score.judge,) for _, a in attempts for score in a.scores),
    }


def test_numbers_are_those_of_the_records(reading: Reading) -> None:
    first = guard(vetoing("awful"), rewarding(), attempts=3, on_exhausted="refuse")
    for seed in range(6):
        first.blocking.generate(USER, CallOptions(seed=seed))
    wanted = told_by(first.audit.read())
    assert reading.sums("stars_guard.calls", "stars_guard.stage", "stars_guard.finish") == wanted["calls"]
    assert reading.sums("stars_guard.candidates", metrics.VERDICT) == wanted["candidates"]
    assert reading.sums("stars_guard.rejections", metrics.JUDGE) == wanted["rejections"]
    assert reading.sums("stars_guard.tokens", metrics.FATE) == wanted["tokens"]
    assert reading.sums("stars_guard.judge.duration", metrics.JUDGE) == wanted["scores"]
    assert reading.sums("stars_guard.call.duration", "stars_guard.policy.name") == {("test",): 6}
    with_text = sum(bool(record.answer.chars) for record in first.audit.read())
    assert reading.sums("stars_guard.call.first_text", "stars_guard.stage") == {("answer",): with_text}
    (waited,) = reading.points()["stars_guard.call.first_text"]
    (whole,) = reading.points()["stars_guard.call.duration"]
    assert 0 < waited.sum <= whole.sum


def test_tokens_add_up_to_what_was_generated(reading: Reading) -> None:
    dead_end = Judge(Rule(judge="end", reject_above=0.5), FunctionScorer(lambda p: float("good" in p.accepted)))
    made = guard(dead_end, attempts=2, on_exhausted="refuse", rewinds=9, hold_tokens=4)
    for seed in range(8):
        made.blocking.generate(USER, CallOptions(seed=seed))
    records = made.audit.read()
    assert sum(record.totals["rewound"] for record in records)
    counted = reading.sums("stars_guard.tokens", metrics.FATE)
    assert counted == told_by(records)["tokens"]
    assert sum(counted.values()) == sum(record.totals["drawn"] for record in records)


def test_a_rejection_has_its_cause(reading: Reading) -> None:
    def broken(passage: Passage) -> float:
        raise RuntimeError(passage.answer)

    guard(vetoing("good"), attempts=2, on_exhausted="refuse").blocking.generate(USER)
    guard(rewarding(lambda passage: -9.0), attempts=2, on_exhausted="best").blocking.generate(USER)
    guard(rewarding(broken), attempts=2, on_exhausted="refuse").blocking.generate(USER)
    causes = {cause for (cause,) in reading.sums("stars_guard.rejections", metrics.CAUSE)}
    assert causes == {"veto", "reward", "failure"}
    failures = reading.sums("stars_guard.judge.failures", "error.type")
    assert set(failures) == {("RuntimeError",)}


def test_checks_and_failed_and_cancelled_calls_are_counted(reading: Reading) -> None:
    judge = {"name": "secret", "type": "patterns", "patterns": [{"name": "code", "regex": "swordfish"}]}
    policy = {"apiVersion": "stars-guard/v1", "name": "rails", "rails": {"tool_call": {"judges": [judge]}}}
    ours = Guard(policy, audit="memory://")
    ours.blocking.check("tool_call", "swordfish")
    ours.blocking.check("tool_call", "trout")

    def gone(*arguments: object) -> str:
        raise OSError("gone")

    with pytest.raises(Exception, match="gone"):
        guard(backend=ScriptedBackend(gone)).blocking.generate(USER)
    stream = guard().blocking.stream(USER)
    next(stream)
    stream.close()
    calls = reading.sums("stars_guard.calls", "stars_guard.stage", "stars_guard.finish")
    assert calls == {
        ("tool_call", "refused"): 1,
        ("tool_call", "passed"): 1,
        ("answer", "failed"): 1,
        ("answer", "cancelled"): 1,
    }
    assert reading.sums("stars_guard.rejections", "stars_guard.stage", metrics.JUDGE) == {("tool_call", "secret"): 1}
    assert ("tool_call",) not in reading.sums("stars_guard.call.first_text", "stars_guard.stage")


AGENT = {
    "apiVersion": "stars-guard/v1",
    "name": "agent",
    "rails": {
        "tool_call": {
            "rules": [
                {"name": "never", "tools": ["delete_*"], "action": "reject"},
                {"name": "mail", "tools": ["send_*"], "action": "ask"},
            ]
        }
    },
}


def decide(ours: Guard) -> None:
    ours.blocking.check_call("read_file", {"path": "x"})
    ours.blocking.check_call("delete_file", {"path": "x"})
    ours.blocking.check_call("send_mail", {"to": "x"})
    ours.blocking.check_call("send_mail", {"to": "x"}, approval=Approval(outcome="approved", seconds=2.5))
    ours.blocking.check_call("send_mail", {"to": "x"}, approval=Approval(outcome="rejected", seconds=4.0))


def test_what_rules_and_people_decide_is_counted(reading: Reading) -> None:
    ours = Guard(AGENT, audit="memory://")
    decide(ours)
    decided = reading.sums("stars_guard.tool_calls", metrics.RULE, metrics.ACTION)
    assert decided == {("default", "allow"): 1, ("never", "reject"): 1, ("mail", "ask"): 3}
    assert reading.sums("stars_guard.approvals", metrics.OUTCOME) == {("approved",): 1, ("rejected",): 1}
    (waited,) = reading.points()["stars_guard.approval.duration"]
    assert (waited.count, waited.sum) == (2, 6.5)
    assert reading.sums("stars_guard.rejections", metrics.CAUSE, metrics.RULE) == {("rule", "never"): 1}


def test_a_judge_that_keeps_failing_is_seen_to_be_left_alone(reading: Reading) -> None:
    def broken(passage: Passage) -> float:
        raise RuntimeError

    ours = guard(rewarding(broken), attempts=1, on_exhausted="refuse")
    ours.blocking.generate(USER)
    assert reading.sums("stars_guard.judge.left_alone", metrics.JUDGE) == {("sentiment",): 0}
    for _ in range(5):
        ours.blocking.generate(USER)
    assert reading.sums("stars_guard.judge.left_alone", metrics.JUDGE) == {("sentiment",): 1}


@pytest.mark.parametrize("on_error", ["spool", "drop"])
def test_what_does_not_reach_the_log_is_seen(
    reading: Reading, on_error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    store = open_store(f"jsonl://{tmp_path}/log.jsonl", Writing(on_error=on_error))
    down = True
    write = type(store).write

    def refuse(self: AuditStore, items: Any) -> None:
        if down:
            raise AuditError("the disk is full")
        write(self, items)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "write", refuse)
    ours = Guard(
        {"apiVersion": "stars-guard/v1", "name": "test"}, model=ScriptedBackend(words()), judges=[], audit=store
    )
    ours.blocking.generate(USER)
    ours.blocking.generate(USER)
    dropped = reading.sums("stars_guard.audit.dropped", metrics.STORE)
    spooled = reading.sums("stars_guard.audit.spool", metrics.STORE)
    assert dropped == {("jsonl",): 2 if on_error == "drop" else 0}
    assert (spooled["jsonl",] > 0) == (on_error == "spool")
    assert reading.sums("stars_guard.audit.waiting", metrics.STORE) == {("jsonl",): 0}
    down = False
    if on_error == "spool":
        wait_for(lambda: reading.sums("stars_guard.audit.spool", metrics.STORE) == {("jsonl",): 0})
        assert len(store.read()) == 2
    ours.blocking.close()
    store.close()  # type: ignore[attr-defined]


def wait_for(condition: Any) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come true")


def test_no_text_is_in_a_number(reading: Reading) -> None:
    ours = guard(attempts=3)
    ours.blocking.generate(USER)
    told = json.dumps([str(point.attributes) for points in reading.points().values() for point in points])
    assert all(word not in told for word in ("awful", "bad ", "good ", "tell me"))


@settings(max_examples=5, deadline=None)
@given(st.integers(metrics.MOST + 1, metrics.MOST + 60))
def test_labels_are_bounded(names: int) -> None:
    labels = metrics._Labels()
    found = {labels.of({"policy": f"tenant-{number}", "stage": "answer"})["policy"] for number in range(names)}
    assert len(found) == metrics.MOST + 1
    assert metrics.OTHER in found
    assert labels.of({"policy": "tenant-3"}) == {"policy": "tenant-3"}


def test_what_is_watched_is_not_kept(reading: Reading) -> None:
    async def once() -> None:
        ours = guard()
        await ours.generate(USER)
        await ours.aclose()

    asyncio.run(once())
    gc.collect()
    assert reading.sums("stars_guard.judge.left_alone", metrics.JUDGE) == {}


@pytest.mark.parametrize("missing", [True, False])
def test_off_costs_nothing(missing: bool) -> None:
    """Without the package, and without a provider, calls go on, no instrument is made and nothing is kept."""
    code = (
        ("import sys; sys.modules['opentelemetry'] = None\n" if missing else "")
        + "from stars_guard import Guard, Message\nfrom stars_guard.testing import ScriptedBackend\n"
        "from stars_guard.calling import metrics\n"
        "backend = ScriptedBackend(lambda messages, tokens, random: 'a ' if len(tokens) < 3 else None)\n"
        "policy = {'apiVersion': 'stars-guard/v1', 'name': 'x'}\n"
        "guard = Guard(policy, model=backend, judges=[], audit='memory://')\n"
        "print(guard.blocking.generate([Message('user', 'hi')]).text)\n"
        "print(metrics._made, len(metrics._cascades), len(metrics._stores))"
    )
    assert printed_by(code).splitlines() == ["a a a ", "None 0 0"]


def test_a_provider_that_is_set_later_counts_from_then_on() -> None:
    ours = guard()
    ours.blocking.generate(USER)
    found = Reading()
    with provided(found.reader):
        ours.blocking.generate(USER)
        assert sum(found.sums("stars_guard.calls", "stars_guard.stage").values()) == 1


DASHBOARD = Path(__file__).parent.parent / "docs" / "grafana.json"
SHADOW = {
    "apiVersion": "stars-guard/v1",
    "name": "shadow",
    "judges": [{"name": "words", "type": "patterns", "patterns": [{"name": "any", "regex": "."}]}],
}
PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"


def test_dashboard_and_alerts_ask_for_what_prometheus_has(tmp_path: Path) -> None:
    """Names and labels of every expression are those of a real export."""

    def broken(passage: Passage) -> float:
        raise RuntimeError

    registry = prometheus_client.CollectorRegistry()
    with provided(PrometheusMetricReader(registry=registry)):
        guard(rewarding(broken), attempts=2, on_exhausted="refuse").blocking.generate(USER)
        ours = Guard(
            {"apiVersion": "stars-guard/v1", "name": "test", "shadow": [{"policy": SHADOW, "wait": 20.0}]},
            model=ScriptedBackend(words()),
            judges=[],
            audit=f"jsonl://{tmp_path}/log.jsonl",
        )
        ours.blocking.generate(USER)
        decide(Guard(AGENT, audit="memory://"))
        doubting = Rule(judge="second", weight=1.0, doubt=Doubt(when="sentiment", above=0.5))
        guard(rewarding(), Judge(doubting, FunctionScorer(lambda _: 1.0))).blocking.generate(USER)
        samples = [sample for family in registry.collect() for sample in family.samples]
    names = {sample.name for sample in samples}
    labels = {label for sample in samples for label in sample.labels}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += re.findall(r"^\| .* \| `(.*[>].*)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(asked) > 15
    words_asked = {word for text in asked for word in re.findall(r"(?:stars_guard|error)_\w+", text)}
    assert words_asked <= names | labels
    instruments = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in names if "stars_guard" in name}
    used = {re.sub(r"_(total|bucket|count|sum)$", "", word) for word in words_asked}
    assert instruments <= used  # the dashboard shows every one
    told = set(re.findall(r"^\| `(stars_guard\.[\w.]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert {re.sub(r"_(seconds|bytes)$", "", name) for name in instruments} == {n.replace(".", "_") for n in told}
