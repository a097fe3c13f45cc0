"""What a classifier reads of a passage, as token ids: a chat template, a template of the policy, or a pair of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Role
from stars_guard.errors import InputError, ScorerError, ScorerInputError
from stars_guard.prompting.chat_encoding import encode_pieces, encode_text, mark, render_chat, trims
from stars_guard.prompting.plain_text import text_of
from stars_guard.prompting.text_encoding import After
from stars_guard.scorers._per_call import PerCall
from stars_guard.scorers._windows import starts_of

__all__ = ["Reader", "Reading", "places"]

CHUNK = 256
"""Characters of an answer after which a cut is looked for."""

_AFTER_PAD = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
)
"""Kinds of models that count the places of tokens from behind the id of their padding."""

# Between a letter and a space with a letter: where tokenizers split a text in any case.
_SAFE = re.compile(r"(?<=[^\W\d_])(?= [^\W\d_])")


def places(config: Any) -> int | None:
    """The most tokens that a model can read, or None where its configuration does not say.

    Args:
        config: of its text part.
    """
    most = getattr(config, "max_position_embeddings", None)
    if most is None:
        return None
    return int(most) - (int(config.pad_token_id) + 1 if config.model_type in _AFTER_PAD else 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a classifier reads at once.

    Attributes:
        ids: token ids.
        second: where the second text of a pair begins; their number where there is none.
        is_cut: whether some of the judged text was left out.
    """

    ids: list[int] = field(repr=False)
    second: int
    is_cut: bool = False


@dataclass(slots=True)
class _Call:
    """What is encoded already: pieces before the answer, ids after it, and the answer in chunks.

    The answer has what is left of the template before it as its ``lead``, and comes after ``follows``.
    """

    messages: tuple[Message, ...]
    role: Role
    before: list[tuple[bool, list[int]]]
    after: list[int]
    pair: bool
    follows: After = "nothing"
    lead: str = ""
    chunks: list[tuple[str, list[int]]] = field(default_factory=list)


class Reader:
    """Encodes passages. Prompts and the settled part of answers are encoded once a call.

    Args:
        template: format string with ``{prompt}`` and ``{answer}``; None uses the tokenizer's chat template, or else a
            pair of texts where the tokenizer knows pairs, or else lines that begin with the role.
        max_length: tokens. What is too long is cut from the front of the prompt's texts, down to a quarter of the
            room. What is then too long of the judged text is cut from its front by `read`, and read in windows by
            `windows`. The template stays whole.
        coarse: cut a quarter of the room at once, so that the text that is left begins at the same place for many
            segments: for models that keep what they have read.
        unread: the token that the model does not take for a last one: its padding.
    """

    def __init__(
        self, tokenizer: Any, *, template: str | None, max_length: int, coarse: bool = False, unread: int | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length
        self._coarse = coarse
        self._unread = unread
        self._front, self._middle, self._end = _frame(tokenizer)
        self._chunked = _splits_at_spaces(tokenizer)
        self._calls: PerCall[_Call] = PerCall()

    def read(self, passage: Passage) -> Reading:
        """Encode a passage, as much of it as fits.

        Raises:
            InputError: the chat template does not take the conversation.
            ScorerInputError: the template leaves no room.
            ScorerError: the template does not show the answer once.
        """
        call, answer = self._parts(passage)
        before, kept = self._fit(call.before, answer, len(call.after))
        return self._reading(call, before, kept, is_cut=len(kept) < len(answer))

    def windows(self, passage: Passage, most: int) -> list[Reading]:
        """Encode a passage whose text must be seen whole: at once if it fits, else in windows that overlap.

        All windows but the last stay the same while the answer grows. Raises what `read` does, and ScorerInputError for
        more than ``most`` windows.
        """
        call, answer = self._parts(passage)
        prompt, room = self._room(call.before, len(call.after))
        width = room - min(prompt, room // 4)
        if len(answer) <= width or room < 4:
            return [self._reading(call, *self._fit(call.before, answer, len(call.after)))]
        before = _cut(call.before, max(0, prompt - room // 4))
        starts = starts_of(len(answer), width, most)
        return [self._reading(call, before, answer[start : start + width]) for start in starts]

    def _parts(self, passage: Passage) -> tuple[_Call, list[int]]:
        """What stands around the text, and the text's ids."""
        role: Role = "assistant" if passage.role == "assistant" else "user"
        call = self._calls.take(passage.call_id)
        if call is None or call.role != role or call.messages != passage.messages:
            call = self._begin(passage.messages, role)
        self._calls.put(passage.call_id, call)
        strips = self._template is None and not call.pair and trims(self._tokenizer)
        return call, self._encode(call, passage.answer.strip() if strips else passage.answer)

    def _reading(self, call: _Call, before: list[int], answer: list[int], *, is_cut: bool = False) -> Reading:
        ids = before + answer + call.after
        while ids and ids[-1] == self._unread:
            ids.pop()
        return Reading(ids, len(before) if call.pair else len(ids), is_cut)

    def forget(self, call_id: str) -> None:
        """Drop what is kept for a call."""
        self._calls.forget(call_id)

    def _begin(self, messages: tuple[Message, ...], role: Role) -> _Call:
        tokenizer = self._tokenizer
        prompt = "\n".join(text_of(message) for message in messages if message.role != "system")
        if self._template is not None:
            rendered, texts = self._template.format(prompt=mark(0), answer=mark(1)), [prompt, "?"]
        elif tokenizer.chat_template is None and self._middle and role == "user":
            # the second text of a pair is what the model takes for an answer
            return _Call(messages, role, [(False, self._front)], self._end, False)
        elif tokenizer.chat_template is None and self._middle:
            pieces = [(False, self._front), (True, encode_text(tokenizer, prompt)), (False, self._middle)]
            return _Call(messages, role, pieces, self._end, True)
        else:
            rendered, texts = self._chat(messages, role)
        # the answer is the last text; its own, not "?", comes in between
        place = mark(len(texts) - 1)
        if rendered.count(place) != 1:
            raise ScorerError("the judge's template must show the answer once")
        head, _, tail = rendered.partition(place)
        encoded = encode_pieces(tokenizer, head, texts, ends=False)
        before, after = encoded.ids, encode_pieces(tokenizer, tail, texts, "text").whole
        if self._template is not None or tokenizer.chat_template is None:
            if self._front and encoded.whole[: len(self._front)] != self._front:
                before.insert(0, (False, self._front))
            if self._end and after[-len(self._end) :] != self._end:
                after = after + self._end
        return _Call(messages, role, before, after, False, encoded.after, encoded.lead)

    def _chat(self, messages: tuple[Message, ...], role: Role) -> tuple[str, list[str]]:
        """The chat template's text, with a question mark where the judged text comes."""
        if role == "assistant":
            # a text that is judged without a conversation answers an empty message: chat templates need one
            return render_chat(self._tokenizer, messages or (Message("user", ""),), answer="?")
        try:
            return render_chat(self._tokenizer, messages, answer="?", role=role)
        except InputError:
            # such as two turns of the user, one after the other
            return render_chat(self._tokenizer, (), answer="?", role=role)

    def _encode(self, call: _Call, answer: str) -> list[int]:
        """The answer's ids. Chunks that have not changed are not encoded again."""
        ids: list[int] = []
        at = number = 0
        after, answer = call.follows, call.lead + answer
        while self._chunked and (cut := _SAFE.search(answer, at + CHUNK)):
            text = answer[at : cut.start()]
            if number == len(call.chunks) or call.chunks[number][0] != text:
                call.chunks[number:] = [(text, encode_text(self._tokenizer, text, after))]
            ids += call.chunks[number][1]
            at, number, after = cut.start(), number + 1, "text"
        return ids + encode_text(self._tokenizer, answer[at:], after)

    def _room(self, before: list[tuple[bool, list[int]]], after: int) -> tuple[int, int]:
        """The prompt's tokens, and those that are left for it and the judged text together."""
        own = sum(len(ids) for is_text, ids in before if not is_text)
        return sum(len(ids) for is_text, ids in before if is_text), self._max_length - after - own

    def _fit(self, before: list[tuple[bool, list[int]]], answer: list[int], after: int) -> tuple[list[int], list[int]]:
        prompt, room = self._room(before, after)
        over = prompt + len(answer) - room
        if over > 0:
            if room < 4:
                raise ScorerInputError(
                    "the judge's template leaves no room for the answer to this conversation", hint="raise max_length"
                )
            step = room // 4 if self._coarse else 1
            over = -(-over // step) * step
        from_prompt = min(max(0, over), max(0, prompt - room // 4))
        return _cut(before, from_prompt), answer[max(0, over) - from_prompt :]


def _cut(before: list[tuple[bool, list[int]]], tokens: int) -> list[int]:
    """What stands before the judged text, without that many tokens from the front of its texts."""
    kept: list[int] = []
    for is_text, ids in before:
        cut = min(tokens, len(ids)) if is_text else 0
        tokens -= cut
        kept += ids[cut:]
    return kept


def _frame(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The special tokens before, between and after a pair; none are between where the tokenizer knows no pairs."""
    pair = tokenizer("a", "b", return_special_tokens_mask=True)
    runs: list[list[int]] = [[]]
    for token, special in zip(pair["input_ids"], pair["special_tokens_mask"], strict=True):
        if special:
            runs[-1].append(token)
        elif runs[-1] or len(runs) == 1:
            runs.append([])
    known = tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None and len(runs) == 3
    return runs[0], runs[1] if known else [], runs[-1]


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether texts may be encoded in parts that are cut before a space between letters."""

    def same(*parts: str) -> bool:
        whole = encode_text(tokenizer, "".join(parts), "text")
        return whole == [token for part in parts for token in encode_text(tokenizer, part, "text")]

    samples: Sequence[Sequence[str]] = (
        ("the old keeper", " of the light"),
        ("Hello", " World", " and all"),
        ("x = f(a) is", " code\n\nnew line"),
        ("Ünïcode ist", " schön", " überall"),
        ("ends.  Two  spaces", " then"),
        ("the", " theory", " of a"),
    )
    return all(same(*parts) for parts in samples)
