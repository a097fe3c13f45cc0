"""What a guard model is asked about a text that is longer than a question may be: one window after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

from stars_guard.core.segments import Passage
from stars_guard.errors import ScorerInputError
from stars_guard.prompting.guard_questions import Encoder, Questions
from stars_guard.scorers._per_call import PerCall
from stars_guard.scorers._windows import check_count

__all__ = ["Asked", "Window"]

CHARACTERS = 8
"""A text with more characters for each token of a question is not encoded to see whether it fits."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some of a text, or all of it.

    Attributes:
        key: the same for the same window of a call.
        is_settled: whether it stays as it is when the text grows.
    """

    key: Hashable
    is_settled: bool
    asked: Asked = field(repr=False)
    passage: Passage = field(repr=False)
    encoded: list[list[int]] | None = field(default=None, repr=False)

    def encode(self) -> list[list[int]]:
        """Token ids of each question about it. Raises ScorerInputError for one that is too long."""
        return self.encoded if self.encoded is not None else self.asked.encode(self.passage)


class Asked:
    """Encodes questions about passages.

    Args:
        max_length: tokens of one question.
        most: windows of one text.
    """

    def __init__(self, encoder: Encoder, questions: Questions, *, max_length: int, most: int) -> None:
        self._encoder = encoder
        self._questions = questions
        self._max_length = max_length
        self._most = most
        self._counts: PerCall[dict[tuple[int, str], int]] = PerCall()

    def windows(self, passage: Passage) -> list[Window]:
        """All of a passage's text: in one question if it fits, else in windows that overlap by about a quarter.

        Raises:
            ScorerInputError: the conversation leaves no room for the text, or there would be too many windows.
        """
        questions = self._questions.about(passage.role)
        text = passage.segment if questions.shows_segment_only else passage.answer
        if len(text) <= CHARACTERS * self._max_length:
            encoded = questions.encode(self._encoder, passage)
            if max(map(len, encoded)) <= self._max_length:
                return [Window((), False, self, passage, encoded)]
        alone = replace(passage, accepted="", segment="", tool_calls=())
        frame = max(map(len, questions.encode(self._encoder, alone)))
        # the text's first and last token may be others beside the frame's
        room = (self._max_length - frame) // questions.copies - 4
        if room < max(8, self._max_length // 16):
            raise ScorerInputError(
                f"the judge's question has {frame} tokens without the text, and {self._max_length} fit",
                hint="raise max_length, or set scope",
            )
        parts = list(self._parts(passage.call_id, text, room))
        check_count(len(parts), self._most)
        return [
            Window(
                (number, hashlib.blake2b(part.encode(errors="surrogatepass"), digest_size=16).digest()),
                number + 1 < len(parts),
                self,
                replace(alone, segment=part),
            )
            for number, part in enumerate(parts)
        ]

    def encode(self, passage: Passage) -> list[list[int]]:
        """Token ids of each question about a passage. Raises ScorerInputError for one that is too long."""
        encoded = self._questions.encode(self._encoder, passage)
        if (longest := max(map(len, encoded))) > self._max_length:
            raise ScorerInputError(
                f"the judge's question has {longest} tokens, and {self._max_length} fit", hint="raise max_length"
            )
        return encoded

    def forget(self, call_id: str) -> None:
        """Drop what is kept for a call."""
        self._counts.forget(call_id)

    def _parts(self, call_id: str, text: str, room: int) -> Iterator[str]:
        """Windows of a text in order. All but the last stay the same when the text grows."""
        size = max(1, room // 8)
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        counts = self._counted(call_id, pieces)
        first = 0
        while True:
            end, tokens = first, 0
            while end < len(pieces) and (end == first or tokens + counts[end] <= room):
                tokens += counts[end]
                end += 1
            yield "".join(pieces[first:end])
            if end == len(pieces):
                return
            back = 0
            following = end
            while following > first + 1 and back < room // 4:
                following -= 1
                back += counts[following]
            first = following

    def _counted(self, call_id: str, pieces: list[str]) -> list[int]:
        """Tokens of each piece. Those of a call that were counted before are not counted again."""
        known = self._counts.take(call_id) or {}
        counts = {}
        for at, piece in enumerate(pieces):
            key = at, piece
            counts[key] = known[key] if key in known else self._encoder.count(piece)
        self._counts.put(call_id, counts)
        return list(counts.values())
