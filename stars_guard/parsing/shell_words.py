"""From a word as it is written in a shell command to the words that the program gets.

Quotes and escapes are taken away, variables whose values are known are put in, and braces are expanded. What only the
shell will know (an unset variable, the output of a program) is one `UNKNOWN` character.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field

from tree_sitter import Node

from stars_guard.parsing._grammar import written

__all__ = ["UNKNOWN", "Word", "Words", "holds_reserved", "text_of"]

UNKNOWN = "\uf8ff"
"""Stands in a word for what cannot be known before the command runs. It may be several words."""

_SHIFT = 0xE000
_ACTIVE = "*?[]{},~ \t\n"
_QUOTED = str.maketrans({char: chr(_SHIFT + ord(char)) for char in _ACTIVE})
_PLAIN = str.maketrans({chr(_SHIFT + ord(char)): char for char in _ACTIVE})
_RESERVED = re.compile(f"[{chr(_SHIFT)}-{chr(_SHIFT + 0x7F)}{UNKNOWN}]")
_MOST = 64
"""Words that braces may make of one. More are unknown."""

_LONGEST = 2_000
"""Characters of a variable's value. A longer one is unknown, as values double with ``a=$a$a``."""

_ESCAPES = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|c.|.)", re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def holds_reserved(text: str) -> bool:
    """Whether a text holds characters that stand for something else here."""
    return bool(_RESERVED.search(text))


@dataclass(frozen=True, slots=True)
class Word:
    """One argument as its program gets it.

    Attributes:
        text: the argument, with `UNKNOWN` for what is not known.
        glob: whether the shell takes it for a pattern of file names.
        raw: as it is written.
    """

    text: str = field(repr=False)
    _: KW_ONLY
    glob: bool = False
    raw: str = field(default="", repr=False)

    @property
    def known(self) -> bool:
        return UNKNOWN not in self.text


def text_of(node: Node) -> str:
    """The text of a node of a tree."""
    return written(node.text)


class Words:
    """Expands words.

    Args:
        variables: values of variables, positional parameters among them.
        output: what the program in a substitution would print, or None where only running it would tell.
    """

    def __init__(self, variables: Mapping[str, str], output: Callable[[Node], str | None]) -> None:
        self._variables = variables
        self._output = output

    def of(self, node: Node) -> list[Word]:
        """The words that one word becomes: none for an unquoted variable without a value."""
        marked, raw = self._marked(node), text_of(node)
        return [_word(piece, raw) for part in _braces(marked) for piece in _pieces(part, node)]

    def one(self, node: Node) -> Word:
        """A word that is not split, such as the value of an assignment."""
        return _word(self._marked(node), text_of(node))

    def _marked(self, node: Node) -> str:
        """The text of a node in which characters that quotes protect are shifted out of the way."""
        match node.type:
            case "word" | "number" | "variable_name" | "extglob_pattern" | "regex" | "test_operator":
                return self._with_children(node, _unescaped) if node.named_child_count else _unescaped(text_of(node))
            case "raw_string":
                return text_of(node)[1:-1].translate(_QUOTED)
            case "ansi_c_string":
                return _ansi(text_of(node)[2:-1]).translate(_QUOTED)
            case "string" | "translated_string":
                inner = self._with_children(node, _in_quotes)
                return inner.translate(_QUOTED)
            case "string_content" | "heredoc_content":
                return _in_quotes(text_of(node))
            case "heredoc_body":
                return self._with_children(node, _in_quotes).translate(_QUOTED)
            case "concatenation" | "command_name" | "brace_expression":
                return self._with_children(node, _unescaped)
            case "simple_expansion":
                return self._variable(text_of(node)[1:])
            case "expansion":
                return self._expansion(text_of(node)[2:-1])
            case "command_substitution":
                return _or_unknown(self._output(node))
            case "process_substitution":
                return UNKNOWN
            case _:
                return UNKNOWN

    def _with_children(self, node: Node, between: Callable[[str], str]) -> str:
        """The node's children, and what stands between them."""
        whole, at = node.text or b"", node.start_byte
        pieces: list[str] = []
        quoted = node.type in ("string", "translated_string")
        for child in node.children:
            if quoted and child.type in ('"', '$"', "$"):
                # the marks themselves, but not a dollar sign inside
                if child.type == "$" and child.start_byte > node.start_byte:
                    pieces.append("$")
                at = child.end_byte
                continue
            if child.start_byte > at:
                pieces.append(between(written(whole[at - node.start_byte : child.start_byte - node.start_byte])))
            pieces.append(self._marked(child) if child.is_named else between(text_of(child)))
            at = child.end_byte
        if at < node.end_byte and not (quoted and at == node.end_byte):
            pieces.append(between(written(whole[at - node.start_byte :])))
        return "".join(pieces)

    def _variable(self, name: str) -> str:
        value = self._variables.get(name, UNKNOWN)
        return value if len(value) <= _LONGEST else UNKNOWN

    def _expansion(self, inside: str) -> str:
        if re.fullmatch(r"\w+|[@*#?$!-]", inside):
            return self._variable(inside)
        if (part := re.fullmatch(r"(\w+):(\d+)(?::(\d+))?", inside)) and UNKNOWN not in self._variable(part[1]):
            start = int(part[2])
            return self._variable(part[1])[start : None if part[3] is None else start + int(part[3])]
        if inside.startswith("IFS"):
            return " "
        return UNKNOWN


def _or_unknown(value: str | None) -> str:
    return UNKNOWN if value is None else value.rstrip("\n")


def _word(marked: str, raw: str) -> Word:
    glob = bool(re.search(r"[*?]|\[[^\]]*\]", marked))
    return Word(marked.translate(_PLAIN), glob=glob, raw=raw)


def _unescaped(text: str) -> str:
    text = text.replace("\\\n", "")
    return re.sub(r"\\(.)", lambda match: match[1].translate(_QUOTED), text, flags=re.DOTALL)


def _in_quotes(text: str) -> str:
    return re.sub(r'\\([$`"\\\n])', lambda match: "" if match[1] == "\n" else match[1], text)


def _ansi(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU":
            return chr(min(int(code[1:], 16), 0x10FFFF)) if len(code) > 1 else code
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF)
        return chr(ord(code[1]) & 0x1F) if code[0] == "c" and len(code) > 1 else _LETTERS.get(code, code)

    found = _ESCAPES.sub(one, text)
    try:
        # bytes of UTF-8 that were written one by one
        return codecs.decode(found.encode("latin-1"), "utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return found


def _pieces(marked: str, node: Node) -> Iterator[str]:
    """The words that spaces of an unquoted variable's value make of one."""
    if node.type not in ("string", "raw_string", "ansi_c_string", "translated_string"):
        yield from filter(None, re.split(r"[ \t\n]+", marked))
    else:
        yield marked


def _braces(marked: str) -> list[str]:
    """The words that ``a{b,c}d`` and ``{1..3}`` stand for."""
    match = re.search(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", marked)
    if match is None:
        return [marked]
    options = match[1].split(",") if "," in match[1] else _range(match[1])
    found: list[str] = []
    for option in options:
        found += _braces(marked[: match.start()] + option + marked[match.end() :])
        if len(found) > _MOST or found[-1] == UNKNOWN:
            return [UNKNOWN]
    return found


def _range(inside: str) -> list[str]:
    ends = inside.split("..")
    if len(ends) in (2, 3) and all(re.fullmatch(r"-?\d{1,6}", end) for end in ends[:2]):
        low, high = sorted(map(int, ends[:2]))
        return [str(number) for number in itertools.islice(range(low, high + 1), _MOST + 1)]
    if len(ends) == 2 and all(len(end) == 1 for end in ends):
        low, high = sorted(map(ord, ends))
        return [chr(code) for code in range(low, high + 1)]
    return [UNKNOWN]
