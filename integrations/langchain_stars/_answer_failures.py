"""What leaves a guarded model or chain that fails: its error, judged as its answer would be.

Parsers and providers put a model's answer into their errors, and so may any code around a model. An error reaches
callbacks, traces, the caller and a graph's checkpoint. Rewards do not matter to it: only a veto withholds its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from langchain_stars._error_texts import texts_of_error, withheld_error
from langchain_stars._graphs import GraphBubbleUp, GraphInterrupt, ParentCommand
from langchain_stars._hidden_runs import current_run_id
from langchain_stars._reading import Reading, read
from langchain_stars._waiting import Waiting
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.core.events import Decision, Finished
from stars_guard.core.messages import Message
from stars_guard.errors import BudgetExhausted, StarsGuardError
from stars_guard.guard import CallOptions, Guard

__all__ = ["AnswerFailures"]


@dataclass(frozen=True, kw_only=True)
class Veto:
    """Why texts may not be released, without the texts, the policy's refusal, and the id of the record."""

    reason: str
    audit_id: str | None = None
    refusal: str = ""


class AnswerFailures:
    """Judges the errors of one call, and what else comes with an answer.

    Args:
        messages: the conversation before the answer.
        model: the name of what answers, for the record.
        run_id: the caller's run, for the record; the default is the LangChain run that the code is in.
    """

    def __init__(
        self,
        waiting: Waiting,
        guard: Guard,
        messages: Sequence[Message],
        *,
        model: str,
        run_id: str | None = None,
    ) -> None:
        self._waiting = waiting
        self._guard = guard
        self._messages = messages
        self._model = model
        self._run_id = run_id

    async def judged(self, failure: BaseException) -> BaseException:
        """The error that may be raised in the place of another: the same one, or one that withholds its text.

        Raise it where no ``except`` clause holds the other one, which would be its context.
        """
        reading = _reading_of(failure)
        if reading is None or (veto := await self.veto(reading)) is None:
            return failure
        return withheld_error(failure, "", veto.reason, veto.audit_id)

    async def veto(self, reading: Reading) -> Veto | None:
        """What the policy's judges of answers and its output rail say against texts, or None."""
        policy = self._guard.policy
        if not reading or policy.mode != "enforce" or not (policy.judges or policy.rails.output.judges):
            return None
        engine = SuppliedBackend(self._model)
        engine.supply(reading.text, forms=reading.forms)
        options = CallOptions(run_id=self._run_id or current_run_id(), attempts=1)
        veto: Veto | None = None
        try:
            async with aclosing(self._waiting.events(self._guard, self._messages, options, engine)) as events:
                async for event in events:
                    match event:
                        case Decision() if event.judgement.veto is not None:
                            veto = Veto(reason=event.reason)
                        case Finished() if veto is not None:
                            veto = Veto(reason=veto.reason, audit_id=event.call_id, refusal=event.refusal)
                        case _:
                            pass
        except BudgetExhausted as exc:
            return veto and Veto(reason=veto.reason, audit_id=exc.audit_id)
        return veto


def _reading_of(failure: BaseException) -> Reading | None:
    """The texts of an error; None where it has none that comes from a model.

    Our own errors hold no text of an answer. The end of a run is no word of anybody's.
    """
    if isinstance(failure, StarsGuardError):
        return None
    if isinstance(failure, GraphBubbleUp) and not isinstance(failure, (GraphInterrupt, ParentCommand)):
        return None
    return read(texts_of_error(failure)) if isinstance(failure, Exception) else None
