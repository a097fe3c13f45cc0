"""What a command would print, for the few programs that print what they are given, so that nothing hides in them."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Sequence

from stars_guard.parsing.shell_commands import Command
from stars_guard.parsing.shell_words import UNKNOWN

__all__ = ["output_of"]

_MOST = 20_000


def output_of(commands: Sequence[Command]) -> str | None:
    """What a pipeline prints; None where only running it would tell."""
    text: str | None = None
    for index, command in enumerate(commands):
        if any(redirect.writes for redirect in command.redirects):
            return None
        given = command.stdin if command.reads_text else text if index else None
        text = _one(command, given)
        if text is None or len(text) > _MOST:
            return None
        if not command.piped_on and index < len(commands) - 1:
            return None
    return text


def _one(command: Command, given: str | None) -> str | None:
    program, *words = [word.text for word in command.words] or [""]
    if any(UNKNOWN in word for word in words):
        return None
    name = program.rpartition("/")[2]
    if name == "pwd" and not words:
        return command.folder or "."
    if name == "command" and words[:1] != ["-v"]:
        return None
    if name in ("which", "command", "realpath", "readlink") and words and words[-1][:1] != "-":
        return words[-1]
    if name == "echo":
        return _echo(words)
    if name == "printf" and words:
        return _printf(words)
    if given is None:
        return None
    filters: dict[str, Callable[[list[str], str], str | None]] = {
        "base64": _base64, "base32": _base32, "xxd": _xxd, "rev": _rev, "cat": _cat, "tac": _cat, "tr": _tr,
        "openssl": _openssl, "tee": _cat,
    }  # fmt: skip
    return filters[name](words, given) if name in filters else None


def _echo(words: list[str]) -> str:
    escapes = False
    while words and re.fullmatch("-[neE]+", words[0]):
        escapes = escapes or "e" in words[0]
        words = words[1:]
    text = " ".join(words)
    return _unescaped(text) if escapes or "\\x" in text or "\\0" in text else text


def _printf(words: list[str]) -> str | None:
    form, *values = words
    form = _unescaped(form)
    if "%" not in form:
        return form
    if re.fullmatch(r"(?:[^%]|%%)*%[sb](?:[^%]|%%)*", form) and len(values) == 1:
        value = _unescaped(values[0]) if "%b" in form else values[0]
        return re.sub("%[sb]", lambda _: value, form, count=1).replace("%%", "%")
    return re.sub(r"%[sbd]|%%", "", form) + "".join(values) if re.fullmatch(r"(?:%[sb])+", form) else None


def _unescaped(text: str) -> str:
    text = re.sub(r"\\x([0-9a-fA-F]{1,2})", lambda match: chr(int(match[1], 16)), text)
    text = re.sub(r"\\0?([0-7]{1,3})", lambda match: chr(int(match[1], 8) & 0xFF), text)
    return text.replace("\\n", "\n").replace("\\t", "\t").replace("\\\\", "\\")


def _base64(words: list[str], given: str) -> str | None:
    return _decoded(given, base64.b64decode) if {"-d", "-D", "--decode", "-di"} & {*words} else None


def _base32(words: list[str], given: str) -> str | None:
    return _decoded(given, base64.b32decode) if {"-d", "--decode"} & {*words} else None


def _openssl(words: list[str], given: str) -> str | None:
    return _decoded(given, base64.b64decode) if {"-d"} & {*words} and {"-base64", "base64"} & {*words} else None


def _xxd(words: list[str], given: str) -> str | None:
    plain = "".join(words).replace("-", "")
    return _decoded(given, bytes.fromhex) if "r" in plain and "p" in plain else None


def _decoded(given: str, decode: Callable[[str], bytes]) -> str | None:
    try:
        return decode("".join(given.split())).decode()
    except (ValueError, binascii.Error):
        return None


def _rev(words: list[str], given: str) -> str | None:
    return "\n".join(line[::-1] for line in given.split("\n")) if not words else None


def _cat(words: list[str], given: str) -> str | None:
    return given if not [word for word in words if word != "-"] else None


def _tr(words: list[str], given: str) -> str | None:
    if sorted(words) == sorted(["A-Za-z", "N-ZA-Mn-za-m"]):
        return codecs.encode(given, "rot13")
    simple = (
        len(words) == 2 and len(words[0]) == len(words[1]) and not any("-" in word or "[" in word for word in words)
    )
    return given.translate(str.maketrans(*words)) if simple else None
