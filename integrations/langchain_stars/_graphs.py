"""What of LangGraph's a model or chain may meet. Where LangGraph is not installed, nobody can have made any of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["GraphBubbleUp", "GraphInterrupt", "Interrupt", "ParentCommand", "Send"]

if TYPE_CHECKING:
    from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
    from langgraph.types import Interrupt, Send
else:
    try:
        from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
        from langgraph.types import Interrupt, Send
    except ModuleNotFoundError:

        class _Never(Exception):
            pass

        GraphBubbleUp = GraphInterrupt = Interrupt = ParentCommand = Send = _Never
