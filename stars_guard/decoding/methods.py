"""The decoding methods by name. Policy, schema and record take the names from here.

To add a method, derive a class from `stars_guard.decoding.Decoder` and name it in the entry points
``stars_guard.methods`` of its package. Ours are named in the same way.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar, Literal

from stars_guard.decoding.parts import PartOptions, Parts, is_abstract, name_of

__all__ = ["METHODS", "Method", "method_of"]


class Method(ABC):
    """What is known of a method before there is a call. Its only derived class is `stars_guard.decoding.Decoder`.

    Attributes:
        decides: how a segment is chosen, so that an auditor can redo it: ``each`` candidate is held against the
            threshold, the ``best`` of all is kept, or ``none`` is judged.
        needs_entropy: whether tokens must carry their entropy.
        whole: the method that does the same where the answer is one segment; None for this one.
        options_model: the method's own options. `PartOptions.of` gives them from ``settings.method``.
    """

    decides: ClassVar[Literal["each", "best", "none"]]
    needs_entropy: ClassVar[bool] = False
    whole: ClassVar[str | None] = None
    options_model: ClassVar[type[PartOptions]] = PartOptions


def _problem(part: Any) -> str | None:
    if not (isinstance(part, type) and issubclass(part, Method)):
        return "it is not a subclass of stars_guard.decoding.Decoder"
    if getattr(part, "decides", None) not in ("each", "best", "none"):
        return "its `decides` is not each, best or none"
    return "it lacks methods of a Decoder" if is_abstract(part) else None


METHODS: Parts[type[Method]] = Parts("method", _problem, lambda part: part.options_model)
"""Every method that is installed."""


def method_of(said: str | PartOptions) -> type[Method]:
    """The method that a policy names. Raises what `Parts.get` does."""
    return METHODS.get(name_of(said))
