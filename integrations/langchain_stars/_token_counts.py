"""How many tokens a model makes of texts and messages, by its own tokenizer, without loading its weights.

Where there is no tokenizer to be read, such as that of a server's model that this machine does not have, a token is
estimated as four characters.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_stars._messages import to_messages
from langchain_stars._tool_binding import toolset_of
from stars_guard.backends.base import Backend
from stars_guard.core.messages import Message
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.loading import load_tokenizer
from stars_guard.errors import BackendError, InputError, MissingExtra
from stars_guard.prompting.chat_encoding import encode_text
from stars_guard.prompting.prompt import Prompt

__all__ = ["TokenCounter"]

CHARACTERS_PER_TOKEN = 4
"""Of an estimate."""

PER_MESSAGE = 4
"""Tokens that a template is taken to put around a message, where it doesn't take the messages as they are."""

_ENDLESS = 1 << 62

logger = logging.getLogger("stars_guard")


class TokenCounter:
    """Counts as a model would.

    Args:
        model: what the backend loads, or a ready backend.
        options: of the backend.
    """

    def __init__(self, model: str | Backend, options: Mapping[str, Any]) -> None:
        if isinstance(model, Backend):
            vocabulary = getattr(model, "vocabulary", None)
            self._tokenizer = getattr(model, "tokenizer", None) or getattr(vocabulary, "tokenizer", None)
        else:
            given = options.get("tokenizer")
            revision = options.get("tokenizer_revision" if given else "revision") or options.get("revision")
            self._tokenizer = _tokenizer(str(given or model), revision)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text alone. Of an estimate they are numbers that stand for four characters each."""
        if self._tokenizer is None:
            pieces = [text[at : at + CHARACTERS_PER_TOKEN] for at in range(0, len(text), CHARACTERS_PER_TOKEN)]
            return [zlib.crc32(piece.encode(errors="surrogatepass")) for piece in pieces]
        return encode_text(self._tokenizer, text)

    def of_messages(self, messages: Sequence[BaseMessage], tools: Sequence[Any] = ()) -> int:
        """Tokens of the prompt that is made of messages and tools.

        Raises:
            InputError: a message cannot be read, or a tool cannot be used.
        """
        if not messages:
            return 0
        asked = to_messages(messages)
        toolset = toolset_of({"tools": tools})
        if self._tokenizer is not None:
            try:
                return len(Prompt.of(self._tokenizer, asked, _ENDLESS, toolset).ids)
            except InputError:
                pass  # a part of a conversation, which the template does not take alone
        described = [str(tool.definition) for tool in toolset.tools] if toolset else []
        return sum(map(self._of_message, asked)) + sum(len(self.ids(text)) for text in described)

    def _of_message(self, message: Message) -> int:
        called = [f"{call.name} {dict(call.arguments)}" for call in message.tool_calls]
        return PER_MESSAGE + sum(len(self.ids(text)) for text in (message.content, *called))


@lru_cache(maxsize=8)
def _tokenizer(model: str, revision: str | None) -> Any:
    try:
        tokenizer, _ = load_tokenizer(
            resolve_model(model), revision, BackendError, what="the tokenizer of", feature="counting tokens"
        )
    except (BackendError, MissingExtra) as exc:
        logger.warning("tokens of the model %r are estimated: %s", model, exc.message)
        return None
    return tokenizer
