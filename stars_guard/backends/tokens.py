"""A model's tokenizer and what it says of the end of an answer, for engines that take and give token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stars_guard.errors import BackendError, ContextTooLong, MissingExtra
from stars_guard.hub import quiet

__all__ = ["Vocabulary", "check_room"]


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

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some tokens, special ones left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def check_room(ids: Sequence[int], context: int) -> None:
    """That an answer of one token at least fits.

    Raises:
        ContextTooLong: it does not.
    """
    if len(ids) >= context:
        raise ContextTooLong(
            f"the prompt has {len(ids)} tokens and the model's context is {context}", hint="shorten the conversation"
        )
