"""The last door before an agent's model: what it is really asked is judged, whoever changed it on the way.

Middleware inside the guard may put further messages before the model, such as documents that it has found. They are
not in the agent's state, so no other rail sees them. So the model's run is watched, and is not begun where it would
read something that is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager
from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.runnables.config import var_child_runnable_config

from langchain_stars._unjudged import rejected_before_model
from langchain_stars._waiting import BLOCKING, run
from stars_guard.calling.checks import Checked
from stars_guard.calling.portal import is_inside
from stars_guard.errors import Refused
from stars_guard.guard import Guard

__all__ = ["ModelDoor", "RejectedBeforeModel"]


class RejectedBeforeModel(Refused):
    """A model was about to read what is rejected."""

    def __init__(self, checked: Checked) -> None:
        super().__init__(f"the model was not asked: {checked.reason}", hint=f"record {checked.audit_id}")
        self.audit_id = checked.audit_id
        self.reason = checked.reason
        self.refusal = checked.refusal


class ModelDoor(BaseCallbackHandler):
    """Stands before every model of one model call of an agent.

    The system's messages are the program's own, and are not judged. A message that was not judged before blocks the
    thread while it is judged.

    Args:
        state: the agent's, which says what was judged in earlier turns.
        by: the middleware, where an agent has several.
    """

    raise_error = True
    run_inline = True

    def __init__(self, guard: Guard, state: Any, *, by: str = "") -> None:
        self._by = by
        self._guard = guard
        self._state = state

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        """Judge what the model is about to read.

        Raises:
            RejectedBeforeModel: it is rejected.
        """
        rails = self._guard.policy.rails
        if is_inside() or not (rails.input.judges or rails.tool_result.judges):
            return  # a judge asks a model, or nobody judges what models read
        for conversation in messages:
            read = [message for message in conversation if not isinstance(message, SystemMessage)]
            if (found := run(rejected_before_model(BLOCKING, self._guard, read, self._state, by=self._by))) is not None:
                raise RejectedBeforeModel(found)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Around whatever asks models. It stands inside the scope that hides their runs."""
        config = var_child_runnable_config.get() or {}
        manager = CallbackManager.configure(config.get("callbacks")).copy()
        manager.add_handler(self)
        token = var_child_runnable_config.set({**config, "callbacks": manager})
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)
