"""Any value as a tree of mappings, lists, strings and numbers, so that no string in it stays unseen."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import re
import uuid
from collections import deque
from collections.abc import Collection, ItemsView, KeysView, Mapping, ValuesView
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from pydantic import BaseModel, SecretBytes, SecretStr

from langchain_stars._graphs import Send
from stars_guard.errors import InputError

__all__ = [
    "DEEPEST",
    "MOST_VALUES",
    "Unreadable",
    "decoded",
    "fields_of",
    "is_picture_or_sound",
    "plain",
    "text_of_bytes",
    "unescaped",
]


class Unreadable(InputError):
    """A value whose text nobody here can read, and which therefore cannot be judged."""


DEEPEST = 100
"""Levels of containers in each other. A value that nests deeper cannot be judged."""

MOST_VALUES = 1_000_000
"""Values in a value that can be judged. One that holds itself has more."""

_WRITTEN_PLAINLY = (
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    complex,
    uuid.UUID,
    pathlib.PurePath,
    range,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)
"""Types whose only text is what ``str`` makes of them."""

_MEDIA = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"ID3",
    b"\xff\xfb",
    b"\xff\xf3",
    b"OggS",
    b"fLaC",
    b"\x1aE\xdf\xa3",
)
"""How files of pictures, sound and film begin."""

_NO_TEXT = (b"%PDF", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b", b"{\\rtf")
"""How files begin that hold text which nobody here can read, however short they are."""

_SHORT = 4096
"""Characters up to which base64 of a picture is read as a text too."""


def plain(value: Any) -> Any:
    """The value with mappings, lists, strings, numbers and None in the place of every other type. Messages stay.

    Nothing is escaped, cut or converted by ``repr``. A prompt is its messages or its text.

    Raises:
        Unreadable: something in the value is of a type whose text we do not know, or it nests too deeply, holds itself
            or is too large.
    """
    return _Plainer().plain(value, DEEPEST)


class _Plainer:
    def __init__(self) -> None:
        self._left = MOST_VALUES

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if depth <= 0 or self._left <= 0:
            what = f"nests more than {DEEPEST} levels deep" if depth <= 0 else f"holds more than {MOST_VALUES} values"
            raise Unreadable(f"cannot judge a value that {what}", hint="give text=, a function to its text")
        match value:
            case enum.Enum():
                return self.plain(value.value, depth - 1)
            case None | bool() | int() | float() | BaseMessage():
                return value
            case str():
                return str.__str__(value)
            case bytes() | bytearray() | memoryview():
                return text_of_bytes(bytes(value))
            case SecretStr() | SecretBytes():
                return self.plain(value.get_secret_value(), depth - 1)
            case ChatPromptValue():
                return self.plain(value.messages, depth - 1)
            case StringPromptValue():
                return self.plain(value.text, depth - 1)
            case Mapping():
                return self._mapping(value, depth - 1)
            case list() | tuple() | set() | frozenset() | deque() | KeysView() | ValuesView() | ItemsView():
                return [self.plain(item, depth - 1) for item in value]
            case _ if isinstance(value, _WRITTEN_PLAINLY):
                return str(value)
            case _:
                fields = {name: item for name, item in fields_of(value).items() if item is not None}
                return {name: self.plain(item, depth - 1) for name, item in fields.items()} | self._attributes(
                    value, depth - 1, besides=fields
                )

    def _attributes(self, value: Any, depth: int, *, besides: Collection[str]) -> dict[str, Any]:
        """What an object holds beside its fields, as far as it can be read: only who knows the name finds it."""
        held = {**getattr(value, "__dict__", {}), **(getattr(value, "__pydantic_private__", None) or {})}
        tree: dict[str, Any] = {}
        for name, item in held.items():
            if name not in besides and item is not None:
                with suppress(Unreadable):
                    tree[name] = self.plain(item, depth)
        return tree

    def _mapping(self, items: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, item in items.items():
            name = self._key(key, depth)
            while name in tree:  # 1 and "1" are two keys
                name += " "
            tree[name] = self.plain(item, depth)
        return tree

    def _key(self, key: Any, depth: int) -> str:
        match self.plain(key, depth):
            case str() as text:
                return text
            case list() as parts:
                return " ".join(str(part) for part in parts)
            case other:
                return "" if other is None else str(other)


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a pydantic model, a dataclass or an attrs class.

    Raises:
        Unreadable: it has another type.
    """
    if isinstance(value, BaseModel):
        declared = type(value).model_fields
        fields = {name: getattr(value, name, None) for name in declared if not _is_the_type(value, name)}
        fields |= {name: getattr(value, name, None) for name in type(value).model_computed_fields}
        return {**fields, **(value.model_extra or {})}
    if isinstance(value, Send):
        return {"node": value.node, "arg": value.arg}
    if not isinstance(value, type):
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        if (attributes := getattr(type(value), "__attrs_attrs__", None)) is not None:
            return {attribute.name: getattr(value, attribute.name, None) for attribute in attributes}
    raise Unreadable(f"cannot judge a value of type {type(value).__name__}", hint="give text=, a function to its text")


def _is_the_type(value: BaseModel, name: str) -> bool:
    """Whether a field says the class's own name and nothing else."""
    return name == "type" and getattr(value, name, None) == type(value).model_fields[name].default


def text_of_bytes(data: bytes) -> str:
    """The text that bytes hold; nothing for pictures, sound and film, which are not judged.

    Raises:
        Unreadable: they hold neither, such as a PDF or an archive, so that nobody can say what is in them.
    """
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8",):
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            pass
    if is_picture_or_sound(data):
        return ""
    raise Unreadable("cannot judge bytes that are not text", hint="give the text of the file instead")


def is_picture_or_sound(data: bytes) -> bool:
    """Whether bytes are a file of a picture, sound or film."""
    is_container = data[:4] == b"RIFF" or data[4:8] == b"ftyp"
    return is_container or data.startswith(_MEDIA)


def decoded(text: str) -> list[str]:
    """The string, and the text that it holds where it is base64 or a ``data:`` URL. A long picture is left out.

    Raises:
        Unreadable: it holds a file whose text nobody can read.
    """
    body = text
    if (is_url := text[:5].lower() == "data:") and "," in text:
        head, _, body = text.partition(",")
        if not head.lower().endswith(";base64"):
            return [text, unquote(body)]
    try:
        data = base64.b64decode("".join(body.split()), altchars=b"-_" if set("-_") & set(body) else None, validate=True)
    except (binascii.Error, ValueError):
        return [text]
    if is_picture_or_sound(data):
        return [text if len(text) <= _SHORT else ""]
    try:
        found = text_of_bytes(data)
    except Unreadable:
        if is_url or len(text) > _SHORT or data.startswith(_NO_TEXT):
            raise
        return [text]
    return [text, found]


def unescaped(text: str) -> str:
    r"""The text with escapes as in JSON decoded, as a parser will do who finds JSON in it: ``\u0041`` is ``A``.

    JSON inside a string of JSON is decoded too.
    """
    for _ in range(4):
        if "\\" not in text:
            break
        text = _ESCAPE.sub(_character, text)
    return text


_ESCAPE = re.compile(
    r'\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/bfnrt])'
    r"|\\(?:x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8})"  # as in YAML
)


def _character(found: re.Match[str]) -> str:
    escape = found[0]
    if escape[1] in "xU":
        code = int(escape[2:], 16)
        return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
    character = str(json.loads(f'"{escape}"'))
    return "\ufffd" if len(character) == 1 and "\ud800" <= character <= "\udfff" else character
