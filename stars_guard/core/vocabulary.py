"""The closed vocabularies: every word that a policy, an event or a record may hold where only a few are valid.

Each is defined here and nowhere else, so that the policy's schema, the decoder and the audit record cannot disagree.
The names of methods, schedules and acceptance rules are not here: these can be added to, and the tables of
`stars_guard.decoding` hold them.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "Action",
    "AnswerFinish",
    "ApprovalOutcome",
    "AskedWhy",
    "CallLevel",
    "CheckFinish",
    "ContentMode",
    "Durability",
    "ExportRows",
    "FailureFinish",
    "FinishReason",
    "HumanDecision",
    "KeptHow",
    "Mode",
    "NumberType",
    "OnError",
    "OnExhausted",
    "OnWriteError",
    "OriginName",
    "OtherOutcome",
    "OtherVerdict",
    "ProbeFit",
    "Rail",
    "RewindWhy",
    "Role",
    "RuleAction",
    "RuledBy",
    "Scope",
    "Side",
    "Stage",
    "Verdict",
]

Role = Literal["system", "user", "assistant", "tool"]
"""Who wrote a message."""

FinishReason = Literal["eos", "stop", "length"]
"""Why a sequence ended: the model said so, a stop string was met, or no more tokens are allowed."""

AnswerFinish = Literal["eos", "stop", "length", "budget", "refused", "stopped", "raised"]
"""Why the answer ended. ``length``: max_tokens or the context is full; ``budget``: the tokens that a call may generate
are spent; ``refused``, ``stopped`` and ``raised``: attempts ran out and the policy's on_exhausted said so."""

CheckFinish = Literal["passed", "redacted", "refused", "asked"]
"""What became of one text at a stage around the answer. ``asked``: a person decides about a tool call."""

FailureFinish = Literal["failed", "cancelled"]
"""The call ended with an error, or its caller went away."""

Verdict = Literal["accepted", "rejected", "surplus"]
"""The decision on one candidate. ``surplus``: an earlier one of the same batch was accepted."""

OtherVerdict = Literal["accepted", "rejected", "unknown"]
"""The decision on a candidate under another policy. ``unknown``: a score that it needs is not there."""

KeptHow = Literal["accepted", "best", "monitored", "unjudged"]
"""Why a segment became part of the answer: it was accepted; it was the best when attempts or tokens ran out, or by the
method itself; the mode is ``monitor``; or there is no judge."""

Action = Literal["refuse", "stop", "raise", "ask"]
"""What happens when no candidate of a segment was kept. ``ask``: the candidate is a tool call, and a person decides."""

OtherOutcome = KeptHow | Action | Literal["budget", "back", "more", "unknown"]
"""What becomes of a segment under another policy. A candidate is kept, for a reason of `KeptHow`; the answer ends
before the segment, by an `Action` or because the ``budget`` is spent and what was kept stays; the answer goes ``back``;
``more`` candidates are needed than are on record; or it is ``unknown``, because it depends on a score that is not on
record."""

RuleAction = Literal["allow", "ask", "reject"]
"""What happens to a tool call, from the loosest to the strictest: the tool runs, a person is asked first, or it doesn't
run."""

CallLevel = Literal["allow", "ask", "forbid"]
"""What a judge that parses tool calls makes of one, from the loosest to the strictest: it may run, a person should look
at it, or it must never run."""

RuledBy = Literal["rule", "budget", "default", "arguments"]
"""What decided about a tool call: a rule, a budget, the rail's default, or that its arguments can't be read."""

Mode = Literal["enforce", "monitor", "off"]
"""Whether rejected text is withheld, only logged, or not judged at all."""

RewindWhy = Literal["match", "exhausted"]
"""Why an answer goes back: a judge's match begins in text that is held, or a segment's attempts ran out."""

OnExhausted = Literal["best", "refuse", "stop", "raise"]
"""What happens when a segment's attempts run out."""

OnError = Literal["reject", "ignore", "raise"]
"""What a judge's failure means for the candidate: veto it, leave the judge out, or end the call with the error."""

AskedWhy = Literal["doubt", "sample", "whole", "unknown"]
"""Why a judge with ``ask`` was asked: the other judge is in doubt; by chance, though it is sure; about a whole tool
call or structured answer, as every judge is; or because the other judge has no score."""

Side = Literal["below", "above"]
"""Where a score lies that is outside of a band."""

Stage = Literal["input", "tool_call", "tool_result", "output"]
"""A stage of an app around the answer, where a rail judges one text."""

Rail = Literal["answer"] | Stage
"""Whose judges: those of answers, or those of a stage around them."""

Scope = Literal["answer", "segment", "conversation"]
"""What a judge sees: the answer so far, the candidate alone, or the conversation too."""

ProbeFit = Literal["ridge", "logistic"]
"""What a probe is fitted to: its teacher's score, or the chance that its teacher rejects."""

NumberType = Literal["float32", "float16", "bfloat16"]
"""What a model of this process computes in."""

ExportRows = Literal["candidates", "calls"]
"""What a row of an exported table is."""

ContentMode = Literal["full", "redacted", "hash", "none"]
"""How much of a text a record holds."""

HumanDecision = Literal["approve", "edit", "reject", "respond"]
"""What a person may say about a tool call that waits for approval: run it; run it with a change; don't run it; or don't
run it, and this text stands for its result."""

ApprovalOutcome = Literal["approved", "edited", "rejected", "responded", "expired", "invalid", "unasked"]
"""What became of a tool call that waited for approval. ``expired``: the answer came too late; ``invalid``: it wasn't
understood; ``unasked``: nobody could be asked."""

Durability = Literal["every-call", "batch"]
"""When a record counts as written."""

OnWriteError = Literal["block", "spool", "drop"]
"""What happens when a record cannot be written."""

OriginName = Literal["user", "system", "tool", "model"]
"""Who had a value first: the user, the system prompt, a tool's result, or nobody but the model."""
