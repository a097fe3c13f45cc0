"""Which of a policy's refusals the reader gets. It is always a text of the policy, and never a part of another one."""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread

from stars_guard.core.messages import Message
from stars_guard.policy import Policy
from stars_guard.prompting.languages import language_of, need_detector
from stars_guard.prompting.plain_text import text_of

__all__ = ["check_refusals", "refusal_for"]


def check_refusals(policy: Policy) -> None:
    """See that the policy's refusals can be chosen here.

    Raises:
        MissingExtra: the policy has several languages, and the detector isn't installed.
    """
    if policy.refusal.detects:
        need_detector()


async def refusal_for(policy: Policy, messages: Sequence[Message], language: str | None = None) -> str:
    """The refusal for a conversation.

    Args:
        messages: the newest message of the user is in the user's language.
        language: of the reader, as the app knows it. Nothing is detected then.
    """
    refusal = policy.refusal
    if language is None and refusal.detects:
        said = next((text_of(message) for message in reversed(messages) if message.role == "user"), "")
        if said.strip():
            language = await anyio.to_thread.run_sync(language_of, said[:_READ])
    return refusal.in_language(language)


_READ = 2000
"""Characters that are read of a message to find its language."""
