"""What a reader of JSON gets to see of a text: its strings without escapes, and its values one by one.

A judge that reads ``"\\u0041KIA"`` has not read what a JSON parser makes of it. So a text that may be parsed is judged
as it is written and as it is read. Other notations (XML, YAML, URLs, source code) are not decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stars_guard.core.nesting import is_too_deep
from stars_guard.prompting.call_rendering import render_call

__all__ = ["Unescaper", "readable", "values_of"]

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|([\"\\/bfnrt]))"
)
_BEGUN = re.compile(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z")
"""An escape that the next characters may complete."""

_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_FENCE = re.compile(r"```(?:[jJ][sS][oO][nN])?(.*?)(?:```|\Z)", re.DOTALL)


class Unescaper:
    """The JSON strings of a text that grows, with every escape in them decoded.

    Strings may be incomplete, and where they begin does not matter: escapes are decoded from the first quotation
    mark on. What was read once is not read again.
    """

    def __init__(self) -> None:
        self._raw = ""
        self._read = ""

    def split(self, before: str, text: str) -> tuple[str, str] | None:
        """Both parts as a reader of JSON gets them, or None where that is how they are written.

        Args:
            before: the text so far. Of an escape that goes on in ``text``, all is in the second part.
            text: what comes next.
        """
        self._follow(before)
        rest = before[len(self._raw) :] + text
        if self._read == self._raw and not ("\\" in rest and '"' in before + text):
            return None
        if '"' in before:
            now = _decoded(rest)
        else:
            plain, mark, quoted = rest.partition('"')
            now = plain + mark + _decoded(quoted)
        return None if self._read + now == before + text else (self._read, now)

    def _follow(self, before: str) -> None:
        """Decode what is new of the text so far, up to an escape that may be incomplete."""
        if not before.startswith(self._raw):
            self._raw = self._read = ""
        fresh = before[len(self._raw) :]
        if not fresh or (not self._raw and '"' not in fresh):
            return
        # what comes before the first quotation mark stays as it is
        start = 0 if self._raw else fresh.index('"')
        last = None
        for match in _ESCAPE.finditer(fresh, start):
            last = match
        if last is not None and _is_high(last[3]) and _BEGUN.match(fresh, last.end()):
            stop = last.start()  # the other half of the pair may come
        else:
            begun = _BEGUN.search(fresh, start if last is None else last.end())
            stop = begun.start() if begun else len(fresh)
        self._read += fresh[:start] + _decoded(fresh[start:stop])
        self._raw += fresh[:stop]


def _is_high(code: str | None) -> bool:
    return code is not None and 0xD800 <= int(code, 16) < 0xDC00


def _decoded(text: str) -> str:
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    high, low, code, short = match.groups()
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if code is not None:
        return readable(chr(int(code, 16)))
    return _SHORT.get(short, short)


def readable(text: str) -> str:
    """A text that every judge can read: half of a surrogate pair becomes U+FFFD."""
    if text.isascii():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char for char in text)


class _AllPairs(Mapping[str, Any]):
    """An object of JSON with all its pairs: of a key that stands there twice, some readers take the first value."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self._pairs = pairs

    def __getitem__(self, key: str) -> Any:
        return dict(self._pairs)[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def items(self) -> Any:
        return self._pairs

    def values(self) -> Any:
        return [value for _, value in self._pairs]


def values_of(text: str) -> list[str]:
    """The keys and values of the JSON that a text is, or has between code fences: one text for each JSON value.

    Empty where there is none. What nests too deeply to be read is left out; it is still judged as it is written.
    """
    if '"' not in text and "[" not in text:
        return []
    found = [text, *(_FENCE.findall(text) if "```" in text else ())]
    values = [value for part in found if (value := _parsed(part)) is not None]
    return [shown for value in values if (shown := readable(render_call("", value).strip()))]


def _parsed(text: str) -> Any:
    text = text.strip()
    if text[:1] not in ("{", "[", '"'):
        return None
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return None if is_too_deep(value) else value


_DECODER = json.JSONDecoder(object_pairs_hook=_AllPairs, strict=False)
