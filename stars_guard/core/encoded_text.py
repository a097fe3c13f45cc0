"""What a text says where it is written in another alphabet: escapes, percent signs, HTML, base64, hexadecimal, ROT13.

A tool's result is seldom the bare text that somebody wrote. It is the text in JSON or in Python's notation, in a URL or
in a mail's transfer encoding, and a model reads all of these as easily as the text itself.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from stars_guard.core.readings import Reading, encodable

__all__ = ["encoded_parts", "written_out"]

Part = tuple[int, int, str]
"""Start and end in a text, and what stands there."""

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{60,76}\r?\n)*[A-Za-z0-9+/_-]{8,}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[\s:,]?){4,}(?![0-9A-Za-z])")
_SHOWN = 0.9
"""Of the characters that something decodes to, so many can be shown, or it is no text."""

_ESCAPES = re.compile(
    r"\\(?P<sign>[\"'\\/ ])|\\(?P<space>[abefnrtv])|\\(?:u(?P<four>[0-9A-Fa-f]{4})|x(?P<two>[0-9A-Fa-f]{2}))"
    r"|(?P<line>[\\=]\r?\n[ \t]*)|&(?P<entity>#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8});"
    r"|(?P<bytes>(?:%[0-9A-Fa-f]{2})+)|(?P<quoted>(?:=[0-9A-F]{2})+)"
)
_SHORTEST = 16
"""Characters that base64 and hexadecimal decode to at least, before they can say anything to a reader."""

_COMMON = "the and you your this that for all with from"
_ROT13 = re.compile(rf"(?i)\b(?:{codecs.encode(_COMMON, 'rot13').replace(' ', '|')})\b")
"""Common words in ROT13. A text with two of them is read as such."""
_DEEPEST = 3


def encoded_parts(text: str) -> Iterator[Part]:
    """The parts of a text that are base64 or hexadecimal of another text, with that text."""
    for pattern, decode in ((_BASE64, _from_base64), (_HEX, _from_hex)):
        for match in pattern.finditer(text):
            if said := _said(decode(match.group())):
                yield *match.span(), said


def written_out(text: str) -> list[Reading]:
    """The text with all that is encoded in it decoded, level by level. Empty for a text in which nothing is.

    The time is linear in the text.
    """
    found: list[Reading] = []
    level = [Reading(text)]
    for _ in range(_DEEPEST):
        level = [new for one in level for new in _once(one)]
        known = {text, *(one.text for one in found)}
        level = [one for one in {new.text: new for new in level}.values() if one.text not in known]
        found += level
    return found


def _once(reading: Reading) -> Iterator[Reading]:
    text = reading.text
    escapes = [*_unescaped(text)]
    if escapes:
        yield reading.edited(escapes)
    if parts := [*_apart(part for part in encoded_parts(text) if len(part[2]) >= _SHORTEST)]:
        yield reading.edited((start, end, f"\n{said}\n") for start, end, said in parts)
    if len(_ROT13.findall(text)) > 1:
        yield reading.edited([(0, len(text), codecs.encode(text, "rot13"))])


def _apart(parts: Iterator[Part]) -> Iterator[Part]:
    """Those that don't overlap, in their order."""
    last = 0
    for start, end, said in sorted(parts):
        if start >= last:
            last = end
            yield start, end, said


def _unescaped(text: str) -> Iterator[Part]:
    for match in _ESCAPES.finditer(text):
        said = _meant(match)
        if said != match.group():
            yield *match.span(), said


def _meant(match: re.Match[str]) -> str:
    written = match[match.lastgroup or 0]
    match match.lastgroup:
        case "sign":
            return written
        case "space":
            return "\n" if written in "nr" else " "
        case "four" | "two":
            return encodable(chr(int(written, 16)))
        case "line":
            return "" if written[0] == "=" else " "
        case "entity":
            return html.unescape(f"&{written};")
        case "quoted":
            return bytes.fromhex(written.replace("=", "")).decode(errors="replace")
        case _:
            return unquote_to_bytes(written).decode(errors="replace")


def _from_base64(text: str) -> bytes:
    plain = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        return b""


def _from_hex(text: str) -> bytes:
    return bytes.fromhex("".join(re.findall("[0-9A-Fa-f]{2}", text.replace("0x", " "))))


def _said(data: bytes) -> str:
    try:
        text = data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-8")
    except UnicodeDecodeError:
        return ""
    shown = sum(char.isprintable() or char in "\n\r\t" for char in text)
    return text if len(text) > 2 and shown >= _SHOWN * len(text) else ""
