"""Models whose printed form shows nothing secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from stars_guard.concealing import concealed

__all__ = ["PrintableModel"]


class PrintableModel(BaseModel):
    """Its repr is without what came from the environment, and without users and queries of URLs."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _printable(value)


_SECRET_OF_URL = re.compile(r"(?<=://)[^/?#@\s]*@|(?<=\?)\S+")


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        text = concealed(value)
        return _SECRET_OF_URL.sub("***", text) if "://" in text else text
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return type(value)(map(_printable, value)) if type(value) in (list, tuple) else value
