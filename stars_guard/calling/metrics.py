"""OpenTelemetry metrics: what calls cost and what was rejected, through the API package alone.

No text is in them. Labels are words of closed vocabularies and names from policies, and each label has at most `MOST`
values. Without the package, or where the app has set no meter provider, a call costs one look.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from stars_guard.audit import AuditStore, CallRecord, blamed
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.record import Attempt, Review, ScoreEntry
from stars_guard.audit.writing import Backlog
from stars_guard.calling.telemetry import ERROR_TYPE, FINISH, MODE, POLICY, STAGE
from stars_guard.scorers.cascade import Cascade

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

__all__ = [
    "ACTION",
    "ASKED",
    "CAUSE",
    "FATE",
    "JUDGE",
    "MOST",
    "OTHER",
    "OUTCOME",
    "RULE",
    "SHADOW",
    "SHADOW_OUTCOME",
    "SHADOW_VERDICT",
    "STORE",
    "VERDICT",
    "count",
    "watch",
]

VERDICT = "stars_guard.verdict"
JUDGE = "stars_guard.judge"
CAUSE = "stars_guard.cause"
"""Why something was rejected: a judge's ``veto`` or ``failure``, a ``reward`` that was too low, or a ``rule``."""
ASKED = "stars_guard.asked"
"""Why a judge with ``ask`` was asked: ``doubt``, ``sample``, ``whole`` or ``unknown``; ``no`` where it was not."""
RULE = "stars_guard.rule"
"""The rule or budget that decided about a tool call; ``default`` or ``arguments`` where none did."""
ACTION = "stars_guard.action"
OUTCOME = "stars_guard.outcome"
"""What a person said about a tool call, or why nobody did."""
FATE = "stars_guard.fate"
"""What became of tokens: ``kept``, ``rejected``, ``surplus``, ``overrun`` or ``rewound``.

They add up to what was generated.
"""
SHADOW = "stars_guard.shadow"
"""The name of a shadow policy."""
SHADOW_VERDICT = "stars_guard.shadow.verdict"
"""A shadow's verdict on a candidate, where the other label has the live one."""
SHADOW_OUTCOME = "stars_guard.shadow.outcome"
"""What a shadow would have done: the ``same``, or what it does where it leaves the answer."""
STORE = "stars_guard.audit.store"
"""The scheme of an audit log's URL."""

MOST = 100
OTHER = "other"
"""Stands for every value of a label beyond the first `MOST`."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0)

_cascades: WeakKeyDictionary[Cascade, str] = WeakKeyDictionary()
_stores: WeakSet[AuditStore] = WeakSet()
_lock = threading.Lock()


def count(record: CallRecord, first_text: float | None = None) -> None:
    """Count a call that is over.

    Args:
        first_text: seconds until the caller had the first text or tool call; None if there was nothing.
    """
    instruments = _instruments()
    if instruments is not None:
        instruments.count(record, first_text)


def watch(policy: str, *, cascade: Cascade | None = None, store: AuditStore | None = None) -> None:
    """Observe judges, or an audit log, for as long as somebody else holds them.

    Args:
        policy: the name of the policy that the judges belong to.
    """
    if _instruments() is None:
        return
    with _lock:
        if cascade is not None:
            _cascades[cascade] = policy
        if store is not None:
            _stores.add(store)


class _Labels:
    """Values of labels: bounded, whatever an app calls its policies."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {}

    def of(self, values: Mapping[str, str]) -> dict[str, str]:
        return {label: self._one(label, value) for label, value in values.items()}

    def _one(self, label: str, value: str) -> str:
        known = self._known.setdefault(label, set())
        with _lock:
            if value not in known and len(known) >= MOST:
                return OTHER
            known.add(value)
        return value


class _Instruments:
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, text: str) -> Any:
            return meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=_SECONDS)

        self._labels = _Labels()
        self._calls = meter.create_counter("stars_guard.calls", "{call}", "answers and checks that are over")
        self._duration = seconds("stars_guard.call.duration", "how long an answer or a check took")
        self._first_text = seconds("stars_guard.call.first_text", "until the caller had the first text of an answer")
        self._candidates = meter.create_counter("stars_guard.candidates", "{candidate}", "candidates, by the decision")
        self._rejections = meter.create_counter(
            "stars_guard.rejections", "{rejection}", "rejected candidates and texts, by the judge that caused it"
        )
        self._tokens = meter.create_counter("stars_guard.tokens", "{token}", "generated tokens, by what became of them")
        self._prompt_tokens = meter.create_counter("stars_guard.prompt_tokens", "{token}", "tokens of prompts")
        self._judge_duration = seconds("stars_guard.judge.duration", "how long a judge took for one text")
        self._judge_failures = meter.create_counter(
            "stars_guard.judge.failures", "{failure}", "texts that a judge should have scored, and failed"
        )
        self._judge_asked = meter.create_counter(
            "stars_guard.judge.asked", "{text}", "texts that a judge with ask was asked about or not, by the reason"
        )
        self._tool_calls = meter.create_counter(
            "stars_guard.tool_calls", "{call}", "tool calls that rules decided about"
        )
        self._approvals = meter.create_counter(
            "stars_guard.approvals", "{call}", "tool calls that a person was asked about"
        )
        self._approval_duration = seconds("stars_guard.approval.duration", "until a person had answered")
        self._shadow_calls = meter.create_counter(
            "stars_guard.shadow.calls", "{call}", "calls that a shadow policy followed, by what it would have done"
        )
        self._shadow_candidates = meter.create_counter(
            "stars_guard.shadow.candidates", "{candidate}", "candidates, by the decision and by a shadow's"
        )
        self._shadow_tokens = meter.create_counter(
            "stars_guard.shadow.tokens", "{token}", "tokens of candidates that a shadow would have rejected"
        )
        self._shadow_passages = meter.create_counter(
            "stars_guard.shadow.passages", "{passage}", "texts that the judges of a shadow have scored"
        )
        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        gauge(
            "stars_guard.judge.left_alone",
            [self._breakers],
            "{judge}",
            "1 while a failing judge is not asked",
        )
        gauge("stars_guard.audit.waiting", [_of_stores(_waiting)], "{record}", "records that wait to be written")
        gauge("stars_guard.audit.spool", [_of_stores(_spooled)], "By", "records put aside while the log is down")
        counter("stars_guard.audit.dropped", [_of_stores(_dropped)], "{record}", "records that were given up")

    def count(self, record: CallRecord, first_text: float | None) -> None:
        where = {POLICY: record.policy, STAGE: record.stage}
        self._calls.add(1, self._labels.of({**where, FINISH: record.finish, MODE: record.mode}))
        self._duration.record(record.seconds, self._labels.of(where))
        if first_text is not None:
            self._first_text.record(first_text, self._labels.of(where))
        for fate in ("kept", "rejected", "surplus", "overrun", "rewound"):
            if tokens := record.totals.get(fate, 0):
                self._tokens.add(tokens, self._labels.of({POLICY: record.policy, FATE: fate}))
        if tokens := record.totals.get("prompt", 0):
            self._prompt_tokens.add(tokens, self._labels.of({POLICY: record.policy}))
        attempts = [attempt for segment in record.segments for attempt in segment.attempts]
        for verdict, number in Counter(attempt.verdict for attempt in attempts).items():
            self._candidates.add(number, self._labels.of({**where, VERDICT: verdict}))
        for (judge, cause), number in Counter(_causes(record, attempts)).items():
            self._rejections.add(number, self._labels.of({**where, JUDGE: judge, CAUSE: cause}))
        for (judge, asked), number in Counter(_askings(attempts)).items():
            self._judge_asked.add(number, self._labels.of({**where, JUDGE: judge, ASKED: asked}))
        self._count_rules(record, where)
        self._count_shadows(record, where)
        judged: list[Attempt | Review] = [*attempts, *([record.review] if record.review else [])]
        for score in (score for one in judged for score in one.scores):
            labels = self._labels.of({**where, JUDGE: score.judge})
            self._judge_duration.record(score.seconds, labels)
            if score.error is not None:
                self._judge_failures.add(1, {**labels, **self._labels.of({ERROR_TYPE: score.error})})

    def _count_rules(self, record: CallRecord, where: Mapping[str, str]) -> None:
        """What rules and people decided about a tool call."""
        policy = {POLICY: record.policy}
        if (ruling := record.ruling) is not None:
            rule = {RULE: ruling.rule or ruling.because}
            self._tool_calls.add(1, self._labels.of({**policy, **rule, ACTION: ruling.action}))
            if ruling.action == "reject":
                self._rejections.add(1, self._labels.of({**where, **rule, CAUSE: "rule"}))
        if (approval := record.approval) is not None:
            self._approvals.add(1, self._labels.of({**policy, OUTCOME: approval.outcome}))
            self._approval_duration.record(approval.seconds, self._labels.of(policy))

    def _count_shadows(self, record: CallRecord, where: Mapping[str, str]) -> None:
        """What shadow policies would have decided."""
        live = {(s.index, a.attempt): a.verdict for s in record.segments for a in s.attempts}
        for entry in record.shadows:
            about = {**where, SHADOW: entry.policy}
            self._shadow_calls.add(1, self._labels.of({**about, SHADOW_OUTCOME: entry.outcome}))
            pairs = Counter((live[row.segment, row.attempt], row.verdict) for row in entry.candidates)
            for (was, would), number in pairs.items():
                self._shadow_candidates.add(number, self._labels.of({**about, VERDICT: was, SHADOW_VERDICT: would}))
            for counter, name in ((self._shadow_tokens, "rejected"), (self._shadow_passages, "asked")):
                if number := entry.totals.get(name, 0):
                    counter.add(number, self._labels.of(about))

    def _breakers(self, options: CallbackOptions) -> Iterator[Observation]:
        from opentelemetry.metrics import Observation

        with _lock:
            cascades = list(_cascades.items())
        found: dict[tuple[str, str], bool] = {}
        for cascade, policy in cascades:
            for judge, is_open in cascade.left_alone.items():
                found[policy, judge] = found.get((policy, judge), False) or is_open
        for (policy, judge), is_open in found.items():
            yield Observation(int(is_open), self._labels.of({POLICY: policy, JUDGE: judge}))


def _causes(record: CallRecord, attempts: Iterable[Attempt]) -> Iterator[tuple[str, str]]:
    """The judge and the cause, once for each judge that caused a rejection."""
    for attempt in attempts:
        for judge in blamed(attempt, record.rules):
            if attempt.veto is None:
                yield judge, "reward"
            else:
                yield judge, "failure" if _failed(attempt.scores, judge) else "veto"


def _askings(attempts: Iterable[Attempt]) -> Iterator[tuple[str, str]]:
    """Each judge that is not always asked, and whether and why it was asked."""
    for attempt in attempts:
        yield from ((score.judge, score.asked) for score in attempt.scores if score.asked is not None)
        yield from ((one.judge, "no") for one in attempt.unasked)


def _failed(scores: Iterable[ScoreEntry], judge: str) -> bool:
    return any(score.judge == judge and score.value is None for score in scores)


def _waiting(backlog: Backlog) -> int:
    return backlog.waiting


def _spooled(backlog: Backlog) -> int:
    return backlog.spooled_bytes


def _dropped(backlog: Backlog) -> int:
    return backlog.dropped


def _of_stores(number: Callable[[Backlog], int]) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        from opentelemetry.metrics import Observation

        with _lock:
            stores = [store for store in _stores if isinstance(store, ChainedStore)]
        sums: Counter[str] = Counter()
        for store in stores:
            sums[store.name.partition(":")[0]] += number(store.backlog())
        for scheme, total in sums.items():
            yield Observation(total, {STORE: scheme})

    return observe


_made: tuple[Any, _Instruments] | None = None


def _instruments() -> _Instruments | None:
    """The instruments of the app's meter provider; None where nothing measures."""
    global _made
    api = _api()
    if api is None:
        return None
    provider = api.get_meter_provider()
    # the API's own providers measure nothing; the one that stands for a provider that may be set later has no name
    if type(provider).__module__.startswith("opentelemetry.metrics"):
        return None
    with _lock:
        if _made is None or _made[0] is not provider:
            _made = (provider, _Instruments(provider.get_meter("stars_guard")))
        return _made[1]


@cache
def _api() -> Any:
    try:
        from opentelemetry import metrics
    except ImportError:
        return None
    return metrics
