"""A model's tokenizer and what it says of the end of an answer, for engines that take and give token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.tools import Toolset
from stars_guard.engines.loading import quiet
from stars_guard.errors import BackendError, ContextTooLong, InputError, MissingExtra
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.prompting.tool_calls import ToolForm, encode_tool_chat, form_of

__all__ = ["Prompt", "Vocabulary", "decoder"]


def decoder(tokenizer: Any, shown: Mapping[int, str] | None = None) -> Callable[[Sequence[int]], str]:
    """From tokens to text, special ones left out save those ``shown``, by their text."""

    def plain(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def decode(ids: Sequence[int]) -> str:
        parts, at = [], 0
        for where, token in enumerate(ids):
            if token in marks:
                parts += [plain(ids[at:where]), marks[token]]
                at = where + 1
        return "".join([*parts, plain(ids[at:])])

    marks = shown or {}
    return decode if marks else plain


class Vocabulary:
    """Made with `load`.

    Attributes:
        tokenizer: of Hugging Face.
        eos_ids: tokens that end an answer.
        context: positions that the model has.
    """

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int], context: int) -> None:
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.context = context

    @classmethod
    def load(cls, model: str, revision: str | None = None) -> Vocabulary:
        """From a directory or hub name. Blocks.

        Raises:
            BackendError: there is no such model.
            MissingExtra: transformers is not installed.
        """
        try:
            from transformers import AutoConfig, AutoTokenizer, GenerationConfig
        except ImportError as exc:
            raise MissingExtra("reading the model's tokenizer", "transformers") from exc
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
                config = AutoConfig.from_pretrained(model, revision=revision).get_text_config()
        except Exception as exc:
            raise BackendError(
                f"cannot read the tokenizer of {model!r}: {type(exc).__name__}",
                hint="pass a Hugging Face directory or name, or set the option tokenizer",
            ) from exc
        try:
            eos = GenerationConfig.from_pretrained(model, revision=revision).eos_token_id
        except OSError:
            eos = None
        eos = config.eos_token_id if eos is None else eos
        return cls(tokenizer, frozenset([eos] if isinstance(eos, int) else eos or []), config.max_position_embeddings)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation made ready: token ids up to where the answer begins, and what the answer is drawn under."""

    ids: list[int]
    form: ToolForm | None = None
    grammar: Grammar | None = None

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        messages: Sequence[Message],
        context: int,
        tools: Toolset | None = None,
        grammar: Grammar | None = None,
    ) -> Prompt:
        """Template and encode a conversation.

        Raises:
            InputError: the template does not take it, or the answer is to be both a call and something else.
            ContextTooLong: an answer of one token does not fit.
        """
        if tools is None or not tools.tools:
            made = cls(encode_chat(tokenizer, messages), None, grammar)
        else:
            if grammar is not None:
                raise InputError(
                    "an answer cannot follow a schema and call tools", hint="give the schema as a tool, or tools alone"
                )
            form = form_of(tokenizer)
            made = cls(encode_tool_chat(tokenizer, messages, tools, form), form, form.grammar(tools))
        if len(made.ids) >= context:
            raise ContextTooLong(
                f"the prompt has {len(made.ids)} tokens and the model's context is {context}",
                hint="shorten the conversation",
            )
        return made
