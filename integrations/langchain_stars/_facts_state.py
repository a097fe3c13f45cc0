"""Where an agent's state keeps what `_agent_facts` needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware.types import AgentState, PrivateStateAttr

from langchain_stars._agent_facts import AgentFacts

__all__ = ["FactsState"]


def _newest(before: Any, now: Any) -> Any:
    """Several middlewares of an agent may tell of it in one step, and all tell the same."""
    return now


class FactsState(AgentState[Any]):
    """An agent's state with what rules need."""

    stars_guard_agent: NotRequired[Annotated[AgentFacts, PrivateStateAttr, _newest]]
    stars_guard_approved: NotRequired[Annotated[Sequence[str], PrivateStateAttr]]
    stars_guard_began: NotRequired[Annotated[float, PrivateStateAttr]]
