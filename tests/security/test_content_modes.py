"""Under the content modes ``none`` and ``hash``, nothing that a caller says stands in records, logs, errors or spans.

A marked text is put into every input of a call that a caller may set. The one exception is ``run_id``: it is an id, by
which records are found.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import pytest
from conftest import policy
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stars_guard.audit import MemoryStore
from stars_guard.auditing.replay import regenerate, stops_of
from stars_guard.core.grammar import Grammar
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool, Toolset
from stars_guard.core.vocabulary import Stage
from stars_guard.errors import AuditError
from stars_guard.guard import CallOptions, Guard
from stars_guard.scorers.cascade import Judge
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

MARK = "Zebedee"
SCHEMA = {"type": "object", "title": MARK, "properties": {MARK: {"type": "string", "enum": [MARK], "default": MARK}}}
TOOL = Tool(name=f"tool_{MARK}", description=f"{MARK} does it", parameters=SCHEMA)
CALL = ToolCall(id=f"id_{MARK}", name=MARK, arguments={MARK: MARK})
MESSAGES = [
    Message("system", MARK, name=MARK),
    Message("user", f"I am {MARK}", name=MARK),
    Message("assistant", MARK, tool_calls=(CALL,)),
    Message("tool", MARK, tool_call_id=CALL.id, name=MARK),
    Message("user", MARK),
]
OPTIONS: dict[str, CallOptions] = {
    "nothing": CallOptions(),
    "stops": CallOptions(stop=(MARK, f"{MARK} 2")),
    "tools": CallOptions(tools=Toolset((TOOL,))),
    "forced tool": CallOptions(tools=Toolset((TOOL,), forced=(TOOL.name,))),
    "schema": CallOptions(grammar=Grammar.json_schema(SCHEMA)),
    "regex": CallOptions(grammar=Grammar.regex(f"{MARK}|b")),
    "ebnf": CallOptions(grammar=Grammar.ebnf(f'root ::= "{MARK}"')),
}
ANSWERS = {
    "text": MARK,
    "call": f'{MARK} <tool_call>{{"name": "{TOOL.name}", "arguments": {{"{MARK}": "{MARK}"}}}}</tool_call>',
    "broken call": f'<tool_call>{{"name": "{MARK}"',
    "JSON": f'{{"{MARK}": "\\u005a{MARK}"}}',
}


def says(text: str) -> ScriptedBackend:
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return pieces[len(so_far)] if len(so_far) < len(pieces) else None

    return ScriptedBackend(script)


def fails(*_: Any) -> str:
    raise RuntimeError(MARK)


def breaks(passage: Passage) -> float:
    raise ValueError(passage.answer + MARK)


JUDGES: dict[str, tuple[Callable[[Passage], float], dict[str, Any]]] = {
    "likes": (lambda passage: 0.0, {}),
    "vetoes": (lambda passage: 1.0, {}),
    "fails": (breaks, {}),
    "raises": (breaks, {"on_error": "raise"}),
}


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        yield spans


def shown(exc: BaseException | None) -> str:
    """An error with all that it comes from, as far as it is shown."""
    texts = []
    while exc is not None and type(exc).__module__.startswith("stars_guard"):
        texts += [str(exc), repr(exc)]
        exc = exc.__cause__
    return " ".join(texts)


@pytest.mark.parametrize("mode", ["none", "hash"])
@pytest.mark.parametrize("on_exhausted", ["refuse", "stop", "raise"])
def test_nothing_that_a_caller_says_is_written(
    mode: str, on_exhausted: str, caplog: pytest.LogCaptureFixture, exporter: InMemorySpanExporter
) -> None:
    caplog.set_level(logging.DEBUG)
    exporter.clear()
    store = MemoryStore()
    backends = [*map(says, ANSWERS.values()), ScriptedBackend(fails)]
    errors = []
    for backend, options, (function, rule) in itertools.product(backends, OPTIONS.values(), JUDGES.values()):
        judge = Judge(Rule(judge="j", reject_above=0.5, **rule), FunctionScorer(function))
        decoding = {"on_exhausted": on_exhausted, "attempts": 2, "max_tokens": 99}
        made = Guard(policy(audit={"content": mode}, **decoding), model=backend, judges=[judge], audit=store)
        try:
            made.blocking.generate(MESSAGES, options)
        except Exception as exc:
            errors.append(shown(exc))
    assert len(store.records) == len(backends) * len(OPTIONS) * len(JUDGES)
    written = "".join(record.model_dump_json() + repr(record) for record in store.records)
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert len(spans) > 0
    assert len(errors) > 0
    assert MARK not in "".join(map(repr, OPTIONS.values())).replace(TOOL.name, "")
    assert MARK not in written + caplog.text + spans + "".join(errors)


@pytest.mark.parametrize("mode", ["none", "hash"])
@pytest.mark.parametrize("stage", get_args(Stage))
def test_nothing_that_is_checked_is_written(
    mode: str, stage: Any, caplog: pytest.LogCaptureFixture, exporter: InMemorySpanExporter
) -> None:
    caplog.set_level(logging.DEBUG)
    exporter.clear()
    store = MemoryStore()
    judges = [{"name": "j", "type": "patterns", "patterns": [{"name": "p", "regex": "bad"}]}]
    rails: dict[str, Any] = {stage: {"judges": judges}}
    if stage == "tool_result":
        rails[stage]["action"] = "redact"
    made = Guard({**policy(audit={"content": mode}), "rails": rails}, model=says("x"), audit=store)
    for text in (MARK, f"bad {MARK}", f'{{"bad": "{MARK}"}}', f'"{MARK}\\u0062ad"'):
        made.blocking.check(stage, text, messages=MESSAGES)
    spans = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert len(store.records) == 4
    assert MARK not in caplog.text + spans + "".join(map(repr, store.records))


async def test_stop_strings_are_kept_as_prompts_are() -> None:
    store = MemoryStore()
    made = Guard(policy(audit={"content": {"prompt": "hash"}}), model=says("x"), audit=store)
    await made.generate([Message("user", "hi")], CallOptions(stop=(MARK,), seed=1))
    (record,) = store.records
    with pytest.raises(AuditError, match="stop strings"):
        stops_of(record)
    with pytest.raises(AuditError):
        await regenerate(record, made.policy, model=says("x"))
    made = Guard(policy(), model=says(f"x{MARK}"), audit=store)
    await made.generate([Message("user", "hi")], CallOptions(stop=(MARK,), seed=1))
    assert stops_of(store.records[-1]) == (MARK,)
    again = await regenerate(store.records[-1], made.policy, model=says(f"x{MARK}"))
    assert again.answer == store.records[-1].answer
