"""A foreign stream, cut into pieces that are judged one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage

from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.core.events import Event, Finished, Released
from stars_guard.guard import Guard
from stars_guard.prompting.call_rendering import render_call

__all__ = ["Pieces"]

_CHARACTERS = 4
"""Of a token, roughly."""


class Pieces:
    """Collects chunks until there is a piece to judge, and makes chunks of what is released.

    A stream of neither texts nor messages is one piece: its chunks added up, or where they cannot be, the last.

    Attributes:
        engine: through which the pieces are judged.
        kind: of the chunks.
        stopped: how the call ended, if before the stream did.
    """

    def __init__(self, model: str, guard: Guard, text: Callable[[Any], str]) -> None:
        self.engine = SuppliedBackend(model)
        self.kind: type = str
        self.stopped: Finished | None = None
        self._size = guard.policy.decoding.segment_tokens * _CHARACTERS
        self._text = text
        self._pending = ""
        self._ahead: list[str] = []
        self._over = False
        self._sum: Any = None
        self._is_plain = True

    @property
    def hungry(self) -> bool:
        """Whether more chunks are wanted: until a piece is full, and one further, to know the last piece."""
        return not self._over and not self._ahead

    @property
    def has_text(self) -> bool:
        """Whether there is something to judge."""
        return bool(self._pending or self._ahead)

    def feed(self, chunk: Any, *, last: bool) -> None:
        """Take the next chunk, or the end."""
        self._over = last
        if last:
            if not self._is_plain:
                self._pending = self._text(self._sum)
            return
        if self._sum is None:
            self.kind = type(chunk)
            self._is_plain = isinstance(chunk, str | BaseMessage)
        text = self._add(chunk)
        if len(self._pending) < self._size:
            self._pending += text
        elif text:
            self._ahead.append(text)

    def _add(self, chunk: Any) -> str:
        if isinstance(chunk, str) and self._is_plain:
            self._sum = ""  # what is released is not kept
            return chunk
        if isinstance(chunk, BaseMessage) and self._is_plain:
            self._sum = chunk if self._sum is None else self._sum + chunk
            return chunk.text
        try:
            self._sum = chunk if self._sum is None else self._sum + chunk
        except TypeError:
            self._sum = chunk
        return ""

    def supply(self) -> None:
        """Hand in the next piece."""
        last = self._over and not self._ahead
        self.engine.supply(self._pending, tokens=max(1, len(self._pending) // _CHARACTERS), last=last)
        self._pending = "".join(self._ahead)
        self._ahead.clear()

    def released(self, event: Event) -> Any:
        """The chunk that an event releases, or None."""
        if isinstance(event, Finished) and event.finish not in ("eos", "stop", "length"):
            self.stopped = event
        if isinstance(event, Released) and self._is_plain:
            return event.text if issubclass(self.kind, str) else AIMessageChunk(content=event.text, id=self._sum.id)
        return None

    @property
    def calls(self) -> Iterator[str]:
        """The tool calls of a message, to be judged before its rest goes out."""
        for call in getattr(self._sum, "tool_calls", ()):
            yield render_call(call["name"], call["args"])

    @property
    def rest(self) -> Any:
        """What goes out at the end: a message without its text, or the whole of what is neither text nor message."""
        if not self._is_plain:
            return self._sum
        if not isinstance(self._sum, BaseMessage):
            return None
        fields = self._sum.model_dump(exclude={"type", "content", "additional_kwargs", "chunk_position"})
        return AIMessageChunk(content="", **fields, chunk_position="last")
