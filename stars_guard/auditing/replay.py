"""A call on record, generated again from its seed, and what differs then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from stars_guard.audit import CallRecord, MemoryStore, Text
from stars_guard.audit.record import Attempt, Rewind, Segment
from stars_guard.backends.base import Backend
from stars_guard.calling.on_record import messages_of, stops_of
from stars_guard.errors import AuditError, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy
from stars_guard.prompting.chat_templates import template_on_record
from stars_guard.prompting.template_variables import read_variables

__all__ = ["Difference", "compare", "messages_of", "promise", "regenerate", "stops_of"]

CLOSE = 1e-3
"""Numbers that differ by less, relative to 1 or to their size, count as the same, because batches round differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as it was.

    Attributes:
        segment: None where the whole call differs.
        attempt: None where the whole segment differs.
    """

    segment: int | None
    attempt: int | None
    what: str
    before: str
    after: str


def promise(record: CallRecord) -> str:
    """What can be equal when this call is generated again, in one sentence."""
    engine = record.backend.get("engine", "")
    if engine.startswith("vllm"):
        seeds = "" if record.decoding.get("optimistic") is False else " and this call was generated without seeds"
        return (
            f"{engine} does not promise the same tokens{seeds}: numbers depend on what else is in its batch. "
            "Scores of equal texts are the same"
        )
    if record.backend.get("dtype", "float32") != "float32":
        return f"in {record.backend['dtype']} a token may differ where two are nearly equally likely"
    return "tokens, scores and decisions are the same"


async def regenerate(
    record: CallRecord,
    policy: Policy,
    *,
    model: str | Backend | None = None,
    backend: str | None = None,
    allow_python: bool = False,
) -> CallRecord:
    """Generate the call again from its seed, under the policy that it was generated under.

    Args:
        model: by default the one on record; the same holds for ``backend``.
        allow_python: whether the policy's judges may name Python code to run.

    Returns:
        The new call's record, which is not written to any log.

    Raises:
        AuditError: the prompt is not on record, or the record is not of an answer that can be generated again.
        PolicyError: the policy is not the one of the record.
    """
    if record.stage != "answer" or not record.segments:
        raise AuditError(f"the record {record.call_id} is not of an answer that was generated")
    if policy.sha256 != record.policy_sha256:
        raise PolicyError(
            f"the policy {policy.name!r} is not the one that the call was generated under: {policy.sha256[:12]} is not "
            f"{record.policy_sha256[:12]}",
            hint="give the policy of that time, or ask what another would have decided",
        )
    if record.tools or record.grammar_sha256 or any(turn.role == "tool" for turn in record.prompt):
        raise AuditError(f"the call {record.call_id} had tools or a schema, and their definitions are not on record")
    engine = record.backend.get("engine", "")
    if engine == "handed in":
        raise AuditError(f"another model wrote the answer of the call {record.call_id}, so it can't be generated again")
    variables: dict[str, Any] = {}
    for name in ("chat_template_kwargs", "call_chat_template_kwargs"):
        known = read_variables(record.backend.get(name, ""))
        if known is None:
            raise AuditError(f"the call {record.call_id} gave the chat template texts, which are not on record")
        variables |= known
    template = await asyncio.to_thread(template_on_record, record.backend.get("chat_template", ""))
    if template is None:
        raise AuditError(f"the call {record.call_id} was given a chat template that is not on this machine as it was")
    kind = "vllm-server" if engine.startswith("vllm server") else engine.split(" ")[0]
    store = MemoryStore()
    guard = Guard(
        policy.without_shadows,
        model=model or record.backend.get("model", ""),
        backend=backend or kind,
        options={"chat_template": template} if template and not isinstance(model, Backend) else None,
        allow_python=allow_python,
        audit=store,
    )
    options = CallOptions(
        max_tokens=record.max_tokens,
        stop=stops_of(record),
        seed=record.seed,
        sampling=record.sampling,
        run_id=record.run_id,
        chat_template_kwargs=variables,
    )
    await guard.generate(messages_of(record), options)
    return store.records[-1]


def compare(before: CallRecord, after: CallRecord) -> Iterator[Difference]:
    """What differs between two records of one call, in order.

    Surplus candidates, which were generated beside the accepted one, are not compared, because how many there are
    depends on the load of the engine at the time.
    """
    for old, new in zip_longest(before.segments, after.segments):
        if old is None or new is None:
            number = (old or new).index
            yield Difference(
                segment=number,
                attempt=None,
                what="segment",
                before="there" if old else "not there",
                after="there" if new else "not there",
            )
            return
        yield from _segment(old, new)
    if before.finish != after.finish:
        yield Difference(segment=None, attempt=None, what="finish", before=before.finish, after=after.finish)
    if _kept(before.answer) != _kept(after.answer):
        yield Difference(
            segment=None,
            attempt=None,
            what="answer",
            before=_size(before.answer.chars),
            after=_size(after.answer.chars),
        )


def _segment(old: Segment, new: Segment) -> Iterator[Difference]:
    pairs = zip_longest(_decided(old), _decided(new))
    for number, (first, second) in enumerate(pairs):
        if first is None or second is None:
            yield Difference(
                segment=old.index,
                attempt=number,
                what="candidate",
                before="there" if first else "not there",
                after="there" if second else "not there",
            )
            continue
        if _kept(first.text) != _kept(second.text) or first.tokens != second.tokens:
            yield Difference(
                segment=old.index,
                attempt=number,
                what="text",
                before=f"{first.tokens} tokens, {_size(first.text.chars)}",
                after=f"{second.tokens} tokens, {_size(second.text.chars)}",
            )
        unasked = [", ".join(sorted(one.judge for one in attempt.unasked)) or "none" for attempt in (first, second)]
        if unasked[0] != unasked[1]:
            yield Difference(segment=old.index, attempt=number, what="not asked", before=unasked[0], after=unasked[1])
        for name in ("verdict", "veto"):
            values = getattr(first, name), getattr(second, name)
            if values[0] != values[1]:
                yield Difference(
                    segment=old.index, attempt=number, what=name, before=str(values[0]), after=str(values[1])
                )
        for name in ("reward", "threshold"):
            yield from _number(old.index, number, name, getattr(first, name), getattr(second, name))
    if old.rewound != new.rewound:
        yield Difference(
            segment=old.index, attempt=None, what="rewind", before=_way(old.rewound), after=_way(new.rewound)
        )
    if old.kept != new.kept:
        yield Difference(segment=old.index, attempt=None, what="kept", before=str(old.kept), after=str(new.kept))


def _kept(text: Text) -> tuple[str | None, str | None, int]:
    """What is comparable of a text: an encryption is another each time."""
    return text.text, text.sha256, text.chars


def _decided(segment: Segment) -> list[Attempt]:
    return [attempt for attempt in segment.attempts if attempt.verdict != "surplus"]


def _number(segment: int, attempt: int, what: str, before: float | None, after: float | None) -> Iterator[Difference]:
    if before is None or after is None:
        differs = before is not after
    else:
        differs = abs(before - after) > CLOSE * max(1.0, abs(before))
    if differs:
        yield Difference(segment=segment, attempt=attempt, what=what, before=f"{before}", after=f"{after}")


def _way(back: Rewind | None) -> str:
    return "none" if back is None else f"to token {back.left} of segment {back.to}, {back.why}"


def _size(characters: int) -> str:
    return f"{characters} characters"
