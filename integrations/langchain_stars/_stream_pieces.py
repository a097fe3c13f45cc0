"""The stream of a chain that is not ours, read in pieces that are judged one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_stars._block_keys import is_usual
from langchain_stars._hidden_runs import hidden_runs
from langchain_stars._reading import Reading, calls_of, read
from stars_guard.errors import InputError

__all__ = ["CHARACTERS_PER_TOKEN", "PieceCutter", "PieceReader"]

CHARACTERS_PER_TOKEN = 4
"""Roughly: the chunks of other models do not say how many tokens they are."""

_END = object()


class PieceCutter:
    """Cuts a text that arrives bit by bit into pieces, and knows which piece is the last.

    Args:
        size: characters of a piece. A bit is never cut, so a piece may be longer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._piece = ""
        self._next = ""
        self._ended = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to judge."""
        return not self._piece and not self._next

    @property
    def needs_more(self) -> bool:
        """Whether the piece is not full, or it is unknown whether another one follows it."""
        return not self._next and not self._ended

    def add(self, text: str) -> None:
        """Take the next bit of the text."""
        if len(self._piece) < self._size:
            self._piece += text
        else:
            self._next += text

    def end(self) -> None:
        """Take note that the text has ended."""
        self._ended = True

    def take(self) -> tuple[str, bool]:
        """The piece, and whether it is the last one."""
        piece, is_last = self._piece, self._ended and not self._next
        self._piece, self._next = self._next, ""
        return piece, is_last


class _Chunks(ABC):
    """Chunks of one kind: which text of them is judged, and how text that has passed is released.

    Attributes:
        chunk_type: the class of the first chunk.
    """

    def __init__(self, first: Any) -> None:
        self.chunk_type = type(first)

    @abstractmethod
    def add(self, chunk: Any) -> str:
        """Take a chunk. Gives its text that can be judged now."""

    def text_at_end(self) -> str:
        """The text that can be judged only now that the stream has ended."""
        return ""

    def chunk_of(self, text: str) -> Any:
        """The chunk that releases a piece of text, or None where all is released at the end."""
        return None

    def forms_beside(self) -> tuple[str, ...]:
        """What is released with each piece of text besides, and is judged with it. It is settled by the first piece."""
        return ()

    def forms_at_end(self) -> tuple[str, ...]:
        """What else is judged with the last piece of text: other forms of all of it, and what the `rest` holds."""
        return ()

    def calls(self) -> list[Reading]:
        """The tool calls, as judges read them."""
        return []

    def rest(self) -> Any:
        """What is released after the text, or None."""
        return None


class _StringChunks(_Chunks):
    def add(self, chunk: Any) -> str:
        if not isinstance(chunk, str):
            raise _mixed(self, chunk)
        return chunk

    def chunk_of(self, text: str) -> Any:
        return text


class _MessageChunks(_Chunks):
    """Text is released piece by piece. Tool calls and metadata are released at the end."""

    def __init__(self, first: Any) -> None:
        super().__init__(first)
        self._sum: Any = None
        self._id: str | None = None

    def add(self, chunk: Any) -> str:
        if not isinstance(chunk, AIMessage):
            raise _mixed(self, chunk)
        if not isinstance(chunk, AIMessageChunk):
            chunk = AIMessageChunk(**chunk.model_dump(exclude={"type"}))
        self._sum = chunk if self._sum is None else self._sum + chunk
        return str(chunk.text)

    def chunk_of(self, text: str) -> Any:
        return AIMessageChunk(content=text, id=self._id)

    def forms_beside(self) -> tuple[str, ...]:
        self._id = self._id or self._sum.id  # the first, because a later one has not been judged yet
        return () if self._id is None or is_usual(self._id) else (self._id,)

    def forms_at_end(self) -> tuple[str, ...]:
        reading = read(self.rest())
        return tuple(form for form in (reading.text, *reading.forms) if form)

    def calls(self) -> list[Reading]:
        return calls_of(self._sum)

    def rest(self) -> Any:
        fields = self._sum.model_dump(exclude={"type", "content", "additional_kwargs", "chunk_position"})
        return AIMessageChunk(content="", **fields, chunk_position="last")


class _ObjectChunks(_Chunks):
    """Judged and released as a whole: the chunks added up or, where they cannot be added, the last one."""

    def __init__(self, first: Any, reading_of: Callable[[Any], Reading]) -> None:
        super().__init__(first)
        self._reading_of = reading_of
        self._sum: Any = None

    def add(self, chunk: Any) -> str:
        try:
            self._sum = chunk if self._sum is None else self._sum + chunk
        except TypeError:
            self._sum = chunk
        return ""

    def text_at_end(self) -> str:
        return self._reading_of(self._sum).text

    def forms_at_end(self) -> tuple[str, ...]:
        return self._reading_of(self._sum).forms

    def calls(self) -> list[Reading]:
        return calls_of(self._sum)

    def rest(self) -> Any:
        return self._sum


def _chunks_like(first: Any, reading_of: Callable[[Any], Reading]) -> _Chunks:
    match first:
        case str():
            return _StringChunks(first)
        case AIMessage():
            return _MessageChunks(first)
        case _:
            return _ObjectChunks(first, reading_of)


def _mixed(chunks: _Chunks, chunk: Any) -> InputError:
    return InputError(
        f"the stream began with {chunks.chunk_type.__name__} and goes on with {type(chunk).__name__}",
        hint="a stream that is guarded holds chunks of one kind",
    )


class PieceReader:
    """Reads a stream of chunks. Streams and traces do not see it.

    Args:
        chunks: all of one kind: strings, messages, or anything else.
        reading_of: the texts of what is neither string nor answer.
        tokens: of a piece, roughly.
        judged_failure: gives the error that may be raised in the place of one of the stream's.
    """

    def __init__(
        self,
        chunks: AsyncIterator[Any],
        reading_of: Callable[[Any], Reading],
        tokens: int,
        judged_failure: Callable[[BaseException], Awaitable[BaseException]],
    ) -> None:
        self._source = chunks
        self._judged_failure = judged_failure
        self._reading_of = reading_of
        self._cutter = PieceCutter(tokens * CHARACTERS_PER_TOKEN)
        self._chunks: _Chunks | None = None

    async def read(self) -> bool:
        """Read until the next piece is complete. Gives whether there is text to judge.

        Raises:
            InputError: the chunks are of several kinds, or their text cannot be read.
        """
        while self._cutter.needs_more:
            failure: Exception | None = None
            try:
                with hidden_runs():
                    chunk = await anext(self._source, _END)
            except Exception as exc:
                failure = exc
            if failure is not None:  # outside of the clause, so that no error has the other one as its context
                raise await self._judged_failure(failure)
            if chunk is _END:
                self._cutter.add(self._chunks.text_at_end() if self._chunks else "")
                self._cutter.end()
            else:
                self._chunks = self._chunks or _chunks_like(chunk, self._reading_of)
                self._cutter.add(self._chunks.add(chunk))
        return not self._cutter.is_empty

    def take(self) -> tuple[str, bool]:
        """The next piece, and whether it is the last one."""
        return self._cutter.take()

    @property
    def chunk_type(self) -> type:
        """The class of the chunks; `str` for an empty stream."""
        return self._chunks.chunk_type if self._chunks else str

    def chunk_of(self, text: str) -> Any:
        """The chunk that releases a piece of text, or None where all is released at the end."""
        return self._chunks.chunk_of(text) if self._chunks else None

    def forms_beside(self) -> tuple[str, ...]:
        """What is released with the piece of text besides. Ask for it whenever a piece is judged."""
        return self._chunks.forms_beside() if self._chunks else ()

    def forms_at_end(self) -> tuple[str, ...]:
        """What else is judged with the last piece of text. Nothing of it is released before."""
        return self._chunks.forms_at_end() if self._chunks else ()

    def calls(self) -> list[Reading]:
        """The tool calls of the stream, as judges read them. They are part of the `rest`."""
        return self._chunks.calls() if self._chunks else []

    def rest(self) -> Any:
        """What is released after the text, or None."""
        return self._chunks.rest() if self._chunks else None
