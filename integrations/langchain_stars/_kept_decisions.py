"""What was decided about the calls of a message, kept by the checkpointer while a person is asked.

LangGraph runs a paused node again from its start when the run goes on, maybe in another process. What was decided
before the pause must not be decided again then: a judge might say something else, and the person's answers would
belong to other calls. So the decisions are the result of a LangGraph task, which the checkpointer keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from langchain_core.runnables.config import var_child_runnable_config

__all__ = ["KeptDecision", "KeptDecisions", "has_checkpointer", "is_in_graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDecision:
    """What was decided about one call.

    Attributes:
        index: of the call among those of its message.
        action: what the rules and the judges say.
        reason, message: of a rejection or a question; neither holds user text.
        audit_id: of the record.
    """

    index: int
    action: str
    reason: str = ""
    message: str = ""
    rule: str | None = None
    audit_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDecisions:
    """What was decided about the calls of one message.

    Attributes:
        policy: the digest of the policy that decided.
        at: when, in seconds since 1970.
        calls: the decisions, in the calls' order.
        judged: fingerprints of the messages that had passed their rails by then.
    """

    policy: str
    at: float
    calls: tuple[KeptDecision, ...]
    judged: tuple[str, ...] = field(default=(), repr=False)

    def plain(self) -> dict[str, Any]:
        """As a checkpointer keeps it."""
        return {
            "policy": self.policy,
            "at": self.at,
            "calls": [asdict(one) for one in self.calls],
            "judged": list(self.judged),
        }

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> Self:
        """What `plain` gave."""
        calls: Sequence[Mapping[str, Any]] = kept["calls"]
        return cls(
            policy=kept["policy"],
            at=kept["at"],
            calls=tuple(KeptDecision(**one) for one in calls),
            judged=tuple(kept["judged"]),
        )


def is_in_graph() -> bool:
    """Whether the code runs in a node of a LangGraph graph, which can run tasks."""
    return "__pregel_call" in _configurable()


def has_checkpointer() -> bool:
    """Whether a run that pauses here could go on."""
    return bool(_configurable().get("__pregel_checkpointer"))


def _configurable() -> Mapping[str, Any]:
    config = var_child_runnable_config.get() or {}
    return config.get("configurable") or {}
