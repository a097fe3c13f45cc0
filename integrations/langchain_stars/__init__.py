"""stars-guard for LangChain.

What `__all__` names is public; modules with an underscore are ours and may change. From outside to inside:

- `chat_model`, `middleware`, `runnable`: the three ways in, each a thin door around logic that is written once.
  `_waiting` says how the same code serves callers that block and callers that await.
- `_fields` (what a `ChatStars` is made of), `_keywords` and `_hiding` (what it takes, and what it shows).
- `_guards`: the guards that an object has opened, their hot reload, and their end.
- `_reading`: the one place that turns messages and values into the texts that judges read.
- `_messages`, `_tool_binding`, `_structured_output`: LangChain's messages, tools and schemas to ours, and back.
- `_regeneration`, `_stream_pieces`, `_tool_results`: whole answers, streams and tool results of others, judged.
- `_tool_door`, `_tool_failures`: what a tool is called with, and what leaves it when it fails.
- `_model_door`, `_answer_failures`: what an agent's model is asked, and what leaves a model or chain when it fails.
  `_error_texts` reads errors. `_graphs`: what of LangGraph a model may meet.
- `_hidden_runs` (with `_silent_handlers`, `_judged_cache`, `_quiet_models`) and `_hidden_tool_run`: what streams,
  traces, callbacks and caches do not see. `_shown_answers`, `_released_answer`, `_run_tracking`, `_decision_events`,
  `_settled_text`: what they see.
- `_audit_lookup`: from a run or a message to its audit record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_stars._audit_lookup import get_audit
from langchain_stars.chat_model import ChatStars
from langchain_stars.runnable import guard_runnable
from stars_guard.errors import MissingExtra

if TYPE_CHECKING:
    from langchain_stars.middleware import StarsGuardMiddleware

__all__ = ["ChatStars", "StarsGuardMiddleware", "get_audit", "guard_runnable"]


def __getattr__(name: str) -> Any:
    if name != "StarsGuardMiddleware":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from langchain_stars.middleware import StarsGuardMiddleware
    except ImportError as exc:
        raise MissingExtra.because_of(exc, "StarsGuardMiddleware", "agents") from exc
    return StarsGuardMiddleware
