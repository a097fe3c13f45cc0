"""What leaves a tool that fails: its error, judged as its result would be.

An error's text comes from outside as a result does. It reaches callbacks and traces, the caller, and the model where
the agent turns errors into messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langchain_stars._error_texts import texts_of_error, withheld_error
from langchain_stars._graphs import GraphBubbleUp, GraphInterrupt, ParentCommand
from stars_guard.calling.checks import Checked

__all__ = ["judged_failure"]


async def judged_failure(
    failure: BaseException,
    judge: Callable[[str], Awaitable[Checked]],
    judge_result: Callable[[Any], Awaitable[Any]],
) -> BaseException:
    """The error that may be raised in the place of a tool's: the same one, or one that withholds its text.

    Args:
        judge: judges a text as a tool's result.
        judge_result: judges what a tool gives to the graph.
    """
    if isinstance(failure, ParentCommand):
        judged = await judge_result(failure.args[0])
        return failure if judged is failure.args[0] else ParentCommand(judged)
    is_silent = isinstance(failure, GraphBubbleUp) and not isinstance(failure, GraphInterrupt)
    if is_silent or not isinstance(failure, (Exception, GraphInterrupt)):
        return failure  # the end of the run, and no word of the tool's
    checked = await judge(texts_of_error(failure))
    if checked.allowed:
        return failure
    return withheld_error(failure, " of a tool", checked.reason, checked.audit_id)
