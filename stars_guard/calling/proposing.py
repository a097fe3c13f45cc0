"""Where a call's candidates come from: the conversation, or the conversation with the policy's recovery instruction.

Each is a session of the same backend, so the engine keeps both prefixes. What one of them has generated and the answer
keeps becomes part of the other's prefix too.
"""

from __future__ import annotations

from collections.abc import Sequence

from stars_guard.backends.base import Proposal, Session
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate
from stars_guard.decoding import Generate

__all__ = ["Proposers", "with_instruction"]


class Proposers:
    """The sessions of one call.

    Args:
        first: under the call's own conversation.
        recovery: under the conversation with the instruction; None where the policy has none.
    """

    def __init__(self, first: Session, recovery: Session | None = None) -> None:
        self.first = first
        self._recovery = recovery

    @property
    def room(self) -> int:
        """How many tokens every session's context can take after the prompt."""
        return self.first.room if self._recovery is None else min(self.first.room, self._recovery.room)

    async def propose(self, step: Generate, *, ahead: int) -> list[Proposal]:
        """Begin a candidate for each seed. Raises what `Session.propose` does.

        Args:
            ahead: tokens past the segment's end that each may generate.
        """
        session = self._of(recovery=step.recovery)
        return await session.propose(step.seeds, step.limit + step.stretch, ahead=ahead)

    async def commit(self, proposal: Proposal, candidate: Candidate, *, recovery: bool, go_on: bool) -> int:
        """Make a candidate part of every prefix.

        Args:
            recovery: whether the recovery session has generated it.
            go_on: let the proposal run on. One that was generated under the instruction never does, because the next
                segment is tried without it first.

        Returns:
            How many tokens beyond the candidate were thrown away.
        """
        session = self._of(recovery=recovery)
        over = await session.commit(proposal, len(candidate), go_on=go_on and not recovery)
        other = self.first if recovery else self._recovery
        if other is not None:
            await other.follow(candidate.tokens)
        return over

    async def rewind(self, tokens: int) -> None:
        """Take the last tokens out of every prefix again."""
        for session in (self.first, self._recovery):
            if session is not None:
                await session.rewind(tokens)

    def _of(self, *, recovery: bool) -> Session:
        session = self._recovery if recovery else self.first
        assert session is not None  # noqa: S101
        return session


def with_instruction(messages: Sequence[Message], instruction: str) -> list[Message]:
    """A conversation whose system message ends with an instruction. One that has none gets one."""
    first, *rest = messages
    if first.role == "system":
        return [Message("system", f"{first.content}\n\n{instruction}"), *rest]
    return [Message("system", instruction), first, *rest]
