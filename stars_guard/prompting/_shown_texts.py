"""What a guard model's template sees in the place of a text: something to show, of which nothing can be asked.

A template that decides by what a text says could leave texts out that the author never tried. So the template is
rendered with marks, which the texts replace afterwards, and whatever would look into a mark fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import jinja2.nodes

__all__ = ["ASKED", "AskedOfText", "Shown", "asks_about_texts"]

ASKED = "it can only show a text as it is: no condition on it, no length, no part of it"
"""What a template did that looks into a text."""


TEXTS = frozenset({"answer", "segment", "prompt", "question"})
"""Variables of templates that hold texts. A message's is its ``content``."""


class AskedOfText(TypeError):
    """A template asked for the content, the length or a part of a text."""


def _refused(*_: object, **__: object) -> NoReturn:
    raise AskedOfText(ASKED)


class Shown(str):
    """A mark. What is made of it is a mark too, and it is true, as if no text were empty."""

    __slots__ = ()
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refused
    __contains__ = __getitem__ = __len__ = __iter__ = _refused
    __hash__ = str.__hash__

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: str) -> Shown:
        return Shown(str.__add__(self, other))

    def __radd__(self, other: str) -> Shown:
        return Shown(str.__add__(other, self))


def _made_of(name: str) -> Any:
    method = getattr(str, name)

    def call(self: Shown, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        if isinstance(result, str):
            return Shown(result)
        if isinstance(result, list | tuple):
            return [Shown(part) for part in result]
        return _refused()

    return call


for _name in dir(str):
    if not _name.startswith("_") and _name != "maketrans":
        setattr(Shown, _name, _made_of(_name))


def asks_about_texts(template: jinja2.nodes.Template) -> bool:
    """Whether a condition of a template is about a text, in whatever form. Whether there is a text may be asked."""
    named = set(TEXTS)
    while True:
        more = {
            name
            for assign in template.find_all(jinja2.nodes.Assign)
            if _holds(assign.node, named)
            for name in _targets(assign.target)
        } | {
            name
            for loop in template.find_all(jinja2.nodes.For)
            if _holds(loop.iter, named)
            for name in _targets(loop.target)
        }
        if more <= named:
            break
        named |= more
    return any(_holds(asked, named) for asked in _asked(template))


def _asked(template: jinja2.nodes.Template) -> Iterator[jinja2.nodes.Node]:
    yield from template.find_all((jinja2.nodes.Compare, jinja2.nodes.Test))
    conditions = [choice.test for choice in template.find_all(jinja2.nodes.If)]
    for test in [*conditions, *(choice.test for choice in template.find_all(jinja2.nodes.CondExpr))]:
        while isinstance(test, jinja2.nodes.Not):
            test = test.node
        if not isinstance(test, jinja2.nodes.Name | jinja2.nodes.Getattr | jinja2.nodes.And | jinja2.nodes.Or):
            yield test
    for loop in template.find_all(jinja2.nodes.For):
        if loop.test is not None:
            yield loop.test


def _holds(node: jinja2.nodes.Node, named: set[str]) -> bool:
    inside = [node, *node.find_all(jinja2.nodes.Node)]
    return any(
        (isinstance(part, jinja2.nodes.Name) and part.name in named)
        or (isinstance(part, jinja2.nodes.Getattr) and part.attr == "content")
        or (isinstance(part, jinja2.nodes.Const) and part.value == "content")
        for part in inside
    )


def _targets(target: jinja2.nodes.Node) -> list[str]:
    inside = [target, *target.find_all(jinja2.nodes.Name)]
    return [part.name for part in inside if isinstance(part, jinja2.nodes.Name)]
