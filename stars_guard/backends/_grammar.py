"""Grammars in the transformers backend: xgrammar says which tokens may come next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stars_guard.core.grammar import Grammar
from stars_guard.errors import BackendError, InputError, MissingExtra

if TYPE_CHECKING:
    import torch

__all__ = ["Compiler", "Matcher", "mask"]


class Matcher:
    """Where one proposal is in the grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, bits: torch.Tensor, row: int) -> None:
        """Write which tokens may come next.

        Raises:
            BackendError: xgrammar failed.
        """
        with _translated():
            self._matcher.fill_next_token_bitmask(bits, row)

    def accept(self, token: int) -> None:
        """Go on by a token that was generated.

        Raises:
            BackendError: the grammar does not allow it, or xgrammar failed.
        """
        with _translated():
            accepted = self._matcher.accept_token(token)
        if not accepted:
            raise BackendError("a token was generated that the grammar does not allow")


class Compiler:
    """Compiles grammars for one tokenizer; xgrammar keeps what it has compiled.

    Args:
        size: of the model's vocabulary, as wide as its logits.

    Raises:
        MissingExtra: xgrammar is not installed.
    """

    def __init__(self, tokenizer: Any, size: int, eos_ids: frozenset[int]) -> None:
        try:
            import xgrammar
        except ImportError as exc:
            raise MissingExtra("structured output and forced tool calls", "grammar") from exc
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=sorted(eos_ids))
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self._matcher = xgrammar.GrammarMatcher

    def compile(self, grammar: Grammar) -> Any:
        """The compiled grammar. May take a while.

        Raises:
            InputError: it isn't a grammar that can be followed.
        """
        try:
            return self._compiler.compile_structural_tag(grammar.tag)
        except Exception as exc:
            raise InputError(
                "the schema or grammar cannot be followed token by token",
                hint="xgrammar takes most of JSON Schema, but not all; try simpler types",
            ) from exc

    def begin(self, compiled: Any) -> Matcher:
        """A matcher at the grammar's beginning.

        Raises:
            BackendError: xgrammar failed.
        """
        with _translated():
            return Matcher(self._matcher(compiled))


def mask(logits: torch.Tensor, matchers: Sequence[Matcher | None]) -> dict[int, BackendError]:
    """Give tokens that the grammar of their row does not allow no chance; in place, before anything else is done.

    Returns:
        By row, why its grammar failed. Its logits are left as they are.
    """
    failures: dict[int, BackendError] = {}
    if all(matcher is None for matcher in matchers):
        return failures
    import xgrammar

    rows = []
    bits = xgrammar.allocate_token_bitmask(len(matchers), logits.shape[-1])
    for row, matcher in enumerate(matchers):
        if matcher is not None:
            try:
                matcher.fill(bits, row)
                rows.append(row)
            except BackendError as exc:
                failures[row] = exc
    if rows:
        xgrammar.apply_token_bitmask_inplace(logits, bits.to(logits.device), indices=rows)
    return failures


@contextmanager
def _translated() -> Iterator[None]:
    """xgrammar's failures as ours; their text may hold what was generated, so only their kind is reported."""
    try:
        yield
    except Exception as exc:
        raise BackendError(f"the grammar failed: {type(exc).__name__}") from exc
