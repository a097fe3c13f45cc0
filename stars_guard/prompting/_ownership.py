"""Which characters of a rendered chat template are the template's own, and which a message's.

The template is rendered twice, once with the messages as they are and once with a twin, of a private kind, for each of
their characters. If both renderings say the same, the twins in the second show what in the first came from a message.
A template that looks into messages says something else of twins. Then what it looks for is shown to it as it is, as
little of it as it takes: words of no control token anywhere, and in earlier answers also marks such as ``</think>``,
which a template that looks for them takes out or writes itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from stars_guard.core.vocabulary import Role
from stars_guard.decoding.spans import begun_at_end

__all__ = ["Owned", "owned"]

Put = Callable[[str, Role], str]
"""What a template gets to see of a text, and whose text it is."""

_MOST = 64
"""Places in texts that a template may look for; each takes a rendering."""

_FIRST_TWIN, _LAST_TWIN = 0xF0000, 0x10FFFD

# What strips white space or writes JSON must do the same with twins.
_SAME = re.compile(r"[\s\"\\\x00-\x1f\x7f]")

_LOOKING = frozenset(
    {"count", "endswith", "find", "index", "partition", "removeprefix", "removesuffix", "replace", "rfind"}
    | {"rpartition", "rsplit", "split", "startswith"}
)


@dataclass(frozen=True, slots=True)
class Owned:
    """A rendered template.

    Attributes:
        text: what the model reads.
        twin: of the same length, and different wherever a character is a message's, white space aside.
    """

    text: str
    twin: str

    def is_own(self, start: int, end: int) -> bool:
        """Whether a part is the template's alone."""
        return self.text[start:end] == self.twin[start:end]


def owned(
    render: Callable[[Put], str], template: str, control: Collection[str], marks: Collection[str]
) -> Owned | None:
    """Render a template, or None where it can't be said which characters are the messages'.

    Args:
        render: renders the template with what is put for each text. What it raises for the texts as they are is raised.
        control: the contents of all added tokens.
        marks: those that a template may see in an earlier answer; not special ones.
    """
    text = render(lambda given, role: given)
    if any(not _SAME.sub("", token) for token in control):
        return None  # it would have no twin
    twins = _Twins()
    try:
        if (twin := twins.rendered(render, text)) is not None:
            return Owned(text, twin)
        words = set(_looked_for(template))
        twins.look_for(
            {word for word in words if not any(_overlap(word, token) for token in control)}, words & set(marks)
        )
        if (twin := twins.least_shown(render, text)) is not None:
            return Owned(text, twin)
    except Exception:
        return None  # the template can't take twins
    return None


class _Twins:
    """Twins of characters, given out as they are needed."""

    def __init__(self) -> None:
        self._twins: dict[int, str] = {}
        self._real: dict[int, str] = {}
        self._shown: set[int] = set()
        self._places = 0
        self._anywhere: re.Pattern[str] | None = None
        self._in_answers: re.Pattern[str] | None = None

    def look_for(self, words: Collection[str], marks: Collection[str]) -> None:
        """What the template is to see as it is: words in all texts, and marks in answers."""
        self._anywhere, self._in_answers = _any_of(words), _any_of({*words, *marks})

    def least_shown(self, render: Callable[[Put], str], wanted: str) -> str | None:
        """The rendering with twins in all places but those that the template must see."""
        self._places = 0
        render(self._put)
        if not 0 < self._places <= _MOST:
            return None
        self._shown = set(range(self._places))
        if (twin := self.rendered(render, wanted)) is None:
            return None
        for place in range(self._places):
            self._shown.discard(place)
            if (less := self.rendered(render, wanted)) is None:
                self._shown.add(place)
            else:
                twin = less
        return twin

    def rendered(self, render: Callable[[Put], str], wanted: str) -> str | None:
        """The rendering with twins, if it says what is wanted."""
        self._places = 0
        twin = render(self._put)
        return twin if twin.translate(self._real) == wanted else None

    def _put(self, text: str, role: Role) -> str:
        looked_for = self._in_answers if role == "assistant" else self._anywhere
        parts, at = [], 0
        for match in looked_for.finditer(text) if looked_for else ():
            if self._places in self._shown:
                parts += [self._twin(text[at : match.start()]), match[0]]
                at = match.end()
            self._places += 1
        return "".join([*parts, self._twin(text[at:])])

    def _twin(self, text: str) -> str:
        for character in set(text):
            if ord(character) not in self._twins and not _SAME.match(character):
                twin = _FIRST_TWIN + len(self._twins)
                if twin > _LAST_TWIN:
                    raise OverflowError("there are too many characters")
                self._twins[ord(character)] = chr(twin)
                self._real[twin] = character
        return text.translate(self._twins)


def _any_of(words: Collection[str]) -> re.Pattern[str] | None:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first))) if words else None


def _looked_for(template: str) -> Iterator[str]:
    """The constants that a template looks for in something: ``'x' in text``, ``text.split('x')`` and the like."""
    from jinja2 import Environment, TemplateError

    try:
        lexed: list[tuple[int, str, str]] = list(Environment(autoescape=False).lex(template))  # noqa: S701
    except TemplateError:
        return
    tokens: list[tuple[str, Any]] = [(kind, value) for _, kind, value in lexed if kind != "whitespace"]
    for number, (kind, value) in enumerate(tokens):
        if kind != "string":
            continue
        before = [word for _, word in tokens[max(0, number - 2) : number]]
        asked = tokens[number + 1 : number + 2] == [("name", "in")] or tokens[number + 1 : number + 3] == [
            ("name", "not"),
            ("name", "in"),
        ]
        called = len(before) == 2 and before[1] == "(" and before[0] in _LOOKING
        if asked or called:
            word = str(ast.literal_eval(value))
            if word.strip():
                yield word


def _overlap(one: str, other: str) -> bool:
    """Whether a text that holds one of two words may hold a part of the other too."""
    return one in other or other in one or bool(begun_at_end(one, [other]) or begun_at_end(other, [one]))
