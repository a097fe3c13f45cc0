"""Spans and evaluation events, as the OpenTelemetry SDK gets them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import USER, guard, rewarding, vetoing
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stars_guard.audit import MemoryStore
from stars_guard.calling import telemetry
from stars_guard.core.segments import Passage
from stars_guard.errors import BackendError, BudgetExhausted
from stars_guard.guard import Guard
from stars_guard.testing import ScriptedBackend

EXPORTER = InMemorySpanExporter()


@pytest.fixture(autouse=True, scope="module")
def _provider() -> None:
    # the process has one provider, which cannot be taken back; another test may have set it
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))


@pytest.fixture(autouse=True)
def spans() -> Iterator[InMemorySpanExporter]:
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


def one(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


async def test_a_call_is_a_span_with_an_event_a_score(spans: InMemorySpanExporter) -> None:
    ours = guard()
    done = await ours.generate(USER)
    span = one(spans, "chat scripted")
    record = ours.audit.read()[0]
    about = dict(span.attributes or {})
    assert about["gen_ai.operation.name"] == "chat"
    assert about["gen_ai.request.model"] == "scripted"
    assert about["gen_ai.response.finish_reasons"] == (done.finish,)
    assert about["gen_ai.usage.output_tokens"] == done.totals.kept
    assert about["stars_guard.audit_id"] == done.call_id
    assert about["stars_guard.policy.sha256"] == done.policy_sha256
    assert about["stars_guard.tokens.rejections"] == record.totals["rejections"]
    scored = [
        (segment.index, attempt.attempt, score.judge, score.value, attempt.verdict, attempt.reason)
        for segment in record.segments
        for attempt in segment.attempts
        for score in attempt.scores
    ]
    told = [
        tuple(
            (event.attributes or {})[name]
            for name in (
                telemetry.SEGMENT,
                telemetry.ATTEMPT,
                telemetry.EVALUATION_NAME,
                telemetry.EVALUATION_VALUE,
                telemetry.EVALUATION_LABEL,
                telemetry.EVALUATION_EXPLANATION,
            )
        )
        for event in span.events
        if event.name == "gen_ai.evaluation.result"
    ]
    assert sorted(told) == sorted(scored)
    assert "rejected" in {label for *_, label, _ in told}


async def test_no_text_is_in_a_span(spans: InMemorySpanExporter) -> None:
    await guard().generate(USER)
    told = one(spans, "chat scripted").to_json()
    assert all(word not in told for word in ("awful", "bad ", "good ", "tell me"))


async def test_the_span_belongs_to_the_callers(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    with tracer.start_as_current_span("outer") as outer:
        await guard().generate(USER)
        guard().blocking.generate(USER)
        async for _ in guard().stream(USER):
            pass
    inner = [span for span in spans.get_finished_spans() if span.name == "chat scripted"]
    assert [span.parent and span.parent.span_id for span in inner] == [outer.get_span_context().span_id] * 3


async def test_a_failure_is_an_error_without_its_text(spans: InMemorySpanExporter) -> None:
    def broken(*args: object) -> str:
        raise BackendError("private words")

    with pytest.raises(BackendError):
        await guard(backend=ScriptedBackend(broken)).generate(USER)
    span = one(spans, "chat scripted")
    assert not span.status.is_ok
    assert (span.attributes or {})["error.type"] == "BackendError"
    assert "private" not in span.to_json()


async def test_a_failed_judge_is_told(spans: InMemorySpanExporter) -> None:
    def boom(passage: Passage) -> float:
        raise RuntimeError(passage.answer)

    with pytest.raises(BudgetExhausted):
        await guard(rewarding(boom), on_exhausted="raise").generate(USER)
    event = one(spans, "chat scripted").events[0]
    assert (event.attributes or {})["gen_ai.evaluation.explanation"] == "failed: RuntimeError"
    assert "gen_ai.evaluation.score.value" not in (event.attributes or {})


async def test_a_check_is_a_span_too(spans: InMemorySpanExporter) -> None:
    judge = {"name": "secret", "type": "patterns", "patterns": [{"name": "code", "regex": "swordfish"}]}
    rails = {"rails": {"tool_call": {"judges": [judge]}}}
    ours = Guard({"apiVersion": "stars-guard/v1", "name": "test", **rails}, audit=MemoryStore())
    checked = await ours.check("tool_call", "swordfish", run_id="r1")
    span = one(spans, "stars_guard.check tool_call")
    about = dict(span.attributes or {})
    assert (about["stars_guard.stage"], about["stars_guard.finish"], about["stars_guard.run_id"]) == (
        "tool_call",
        "refused",
        "r1",
    )
    assert about["stars_guard.audit_id"] == checked.audit_id
    assert about["stars_guard.reason"] == "vetoed by secret: code"
    assert "swordfish" not in span.to_json()


def test_judges_that_veto_are_told_once(spans: InMemorySpanExporter) -> None:
    guard(vetoing("good"), attempts=2, on_exhausted="refuse").blocking.generate(USER)
    names = {(event.attributes or {})[telemetry.EVALUATION_NAME] for event in one(spans, "chat scripted").events}
    assert names == {"words"}
