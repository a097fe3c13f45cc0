"""OpenTelemetry: a span a call, an event a score, through the API package alone. Texts are never part of them.

Names are those of the GenAI conventions where there is one, and ``stars_guard.*`` elsewhere. Without the package, or
where nothing records, a call costs one look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stars_guard.audit import CallRecord
from stars_guard.core.events import Decision, Event, Reviewed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = [
    "AUDIT_ID",
    "ERROR_TYPE",
    "EVALUATION",
    "EVALUATION_EXPLANATION",
    "EVALUATION_LABEL",
    "EVALUATION_NAME",
    "EVALUATION_VALUE",
    "FINISH",
    "FINISH_REASONS",
    "INPUT_TOKENS",
    "OPERATION",
    "OUTPUT_TOKENS",
    "PROVIDER",
    "REASON",
    "REQUEST_MODEL",
    "STAGE",
    "CallSpan",
]

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
EVALUATION = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_VALUE = "gen_ai.evaluation.score.value"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"
ERROR_TYPE = "error.type"
AUDIT_ID = "stars_guard.audit_id"
STAGE = "stars_guard.stage"
FINISH = "stars_guard.finish"
REASON = "stars_guard.reason"
POLICY = "stars_guard.policy.name"
POLICY_SHA256 = "stars_guard.policy.sha256"
MODE = "stars_guard.mode"
RUN_ID = "stars_guard.run_id"
SEGMENT = "stars_guard.segment"
ATTEMPT = "stars_guard.attempt"
TOTALS = "stars_guard.tokens"

_ABOUT = {
    "call_id": AUDIT_ID,
    "stage": STAGE,
    "run_id": RUN_ID,
    "policy": POLICY,
    "policy_sha256": POLICY_SHA256,
    "mode": MODE,
}


class CallSpan:
    """The span of a call or a check. It is a child of the span in which the caller is.

    Args:
        name: of the span, such as ``chat embedded``.
        about: fields of the record that are known from the start.
        more: other attributes.
    """

    def __init__(self, name: str, about: dict[str, Any], **more: Any) -> None:
        span = _start(name)
        self._span = span if span is not None and span.is_recording() else None
        if self._span is not None:
            known = {key: about[field] for field, key in _ABOUT.items() if about.get(field) is not None}
            self._span.set_attributes({STAGE: "answer", **known, **more})

    def add(self, event: Event) -> None:
        """Take the next event of the call."""
        if self._span is None or not isinstance(event, Decision | Reviewed):
            return
        place = {SEGMENT: event.segment, ATTEMPT: event.attempt} if isinstance(event, Decision) else {}
        reason = event.reason if isinstance(event, Decision) else event.judgement.veto or "no judge vetoes"
        for score in event.judgement.scores:
            attributes: dict[str, str | int | float] = {
                EVALUATION_NAME: score.judge,
                EVALUATION_LABEL: event.verdict,
                EVALUATION_EXPLANATION: reason if score.error is None else f"failed: {score.error}",
                **place,
            }
            if score.value is not None:
                attributes[EVALUATION_VALUE] = score.value
            self._span.add_event(EVALUATION, attributes)

    def end(self, record: CallRecord) -> None:
        """The call is over."""
        if self._span is None:
            return
        totals = {f"{TOTALS}.{name}": number for name, number in record.totals.items()}
        usage = {INPUT_TOKENS: record.totals.get("prompt", 0), OUTPUT_TOKENS: record.totals.get("kept", 0)}
        self._span.set_attributes(
            {
                FINISH: record.finish,
                REASON: record.reason,
                **totals,
                **({FINISH_REASONS: (record.finish,), **usage} if record.stage == "answer" else {}),
            }
        )
        if record.finish == "failed":
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute(ERROR_TYPE, record.error or "failed")
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _start(name: str) -> Span | None:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("stars_guard").start_span(name)
