"""Which calls in an agent's messages were not run, as the messages themselves say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage

from stars_guard.calling.checks import Checked

__all__ = ["about_call_not_run", "did_not_run", "is_withheld", "reason_to_withhold", "withheld_args"]

_REASON, _RECORD, _MESSAGE = "withheld_by_policy", "audit_id", "message"


def withheld_args(checked: Checked) -> dict[str, Any]:
    """What stands for the arguments of a call that was rejected before anybody saw it."""
    message = {_MESSAGE: checked.message} if checked.message else {}
    return {_REASON: checked.reason, _RECORD: checked.audit_id, **message}


def is_withheld(call: ToolCall) -> bool:
    """Whether a call's arguments were taken out of an answer."""
    return isinstance(call["args"], Mapping) and isinstance(call["args"].get(_REASON), str)


def reason_to_withhold(call: ToolCall) -> Checked | None:
    """Why a call's arguments were taken out of an answer, or None where they were not."""
    if not is_withheld(call):
        return None
    said: dict[str, str] = {name: str(value) for name, value in call["args"].items() if value is not None}
    reason, message = said[_REASON], said.get(_MESSAGE, "")
    audit_id = said.get(_RECORD)
    return Checked(stage="tool_call", allowed=False, text="", reason=reason, message=message, audit_id=audit_id)


def about_call_not_run(checked: Checked) -> dict[str, Any]:
    """The metadata of the message that stands for the result of a call that was not run."""
    return {"stars_guard": {"audit_id": checked.audit_id, "reason": checked.reason, "ran": False}}


def did_not_run(result: ToolMessage) -> bool:
    """Whether a message says that its call was not run."""
    about = result.response_metadata.get("stars_guard")
    return isinstance(about, Mapping) and about.get("ran") is False
