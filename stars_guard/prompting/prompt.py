"""A conversation made ready for an engine that takes token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.tools import Toolset
from stars_guard.errors import ContextTooLong, InputError
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.prompting.reasoning import Reasoning
from stars_guard.prompting.tool_calls import ToolForm, encode_tool_chat, form_of

__all__ = ["Prompt"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation as token ids.

    Attributes:
        ids: up to where the answer begins.
        form: how the model writes tool calls; None when it has no tools.
        grammar: what the answer is generated under, if anything.
        reasoning: how the model marks the reasoning before its answer; None where it has no marks, or where the whole
            answer is under the grammar.
    """

    ids: list[int]
    form: ToolForm | None = None
    grammar: Grammar | None = None
    reasoning: Reasoning | None = None

    @property
    def shown(self) -> dict[int, str]:
        """Special tokens that must appear in the answer's text, by their ids."""
        return {**(self.form.shown if self.form else {}), **(self.reasoning.shown if self.reasoning else {})}

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        messages: Sequence[Message],
        context: int,
        tools: Toolset | None = None,
        grammar: Grammar | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """Template and encode a conversation.

        Args:
            settings: variables of the chat template.

        Raises:
            InputError: the template does not take it, or the answer is to be both a call and something else.
            ContextTooLong: an answer of one token does not fit.
        """
        if tools is None or not tools.tools:
            made = cls(encode_chat(tokenizer, messages, settings=settings), None, grammar)
        else:
            if grammar is not None:
                raise InputError(
                    "an answer cannot follow a schema and call tools", hint="give the schema as a tool, or tools alone"
                )
            form = form_of(tokenizer)
            made = cls(encode_tool_chat(tokenizer, messages, tools, form, settings), form, form.grammar(tools))
        if len(made.ids) >= context:
            raise ContextTooLong(
                f"the prompt has {len(made.ids)} tokens and the model's context is {context}",
                hint="shorten the conversation",
            )
        if made.grammar is not None and made.grammar.whole:
            return made
        return replace(made, reasoning=Reasoning.of(tokenizer, made.ids))
