"""Keywords that nobody knows are errors, with the nearest known name."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stars_guard.core.nearest import did_you_mean
from stars_guard.errors import InputError

__all__ = ["PER_CALL", "SAMPLING", "check_keywords"]

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

_OURS = {"policy", "model", "max_tokens", "seed", "grammar", "chat_template_kwargs", "language", *SAMPLING}
_OF_TOOLS = {"tools", "tool_choice", "strict", "parallel_tool_calls", "response_format"}
# LangChain's own: it passes or takes off these on the way to the model. Usage is always reported.
_OF_LANGCHAIN = {"stop", "stream", "stream_usage", "ls_structured_output_format", "structured_output_format"}

PER_CALL = frozenset(_OURS | _OF_TOOLS | _OF_LANGCHAIN)
"""What a call of `ChatStars` may be given, or `bind`."""


def check_keywords(given: Iterable[str], known: Collection[str], what: str) -> None:
    """See that every keyword is known.

    Args:
        what: what was given them, for the message.

    Raises:
        InputError: a keyword is not known.
    """
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"known are {', '.join(sorted(known))}", form="{!r}")
            raise InputError(f"{what} has no keyword {name!r}", hint=hint)
