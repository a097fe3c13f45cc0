"""Values that are used and never shown: those that a policy takes from the environment, and credentials of URLs.

Who knows such a value gives it to `conceal`. From then on errors, commands, logs and records show a name in its place.
It is a net below the places that know by themselves what they may show.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from urllib.parse import unquote

__all__ = ["conceal", "concealed", "fingerprinted", "shows_concealed"]

_SHORTEST = 8
"""Characters that a value must have to be looked for: shorter ones may be part of any word."""

_MOST = 4096
_forms: OrderedDict[str, str] = OrderedDict()
_pattern: re.Pattern[str] | None = None
_lock = threading.Lock()


def conceal(value: str, name: str) -> None:
    """From now on, show a name where this value would stand in an error, a log line or a record.

    Args:
        value: a secret, or a URL that may hold some. What is shorter than 8 characters is not looked for.
        name: such as ``${API_KEY}``.
    """
    global _pattern
    parts = [value, *_parts_of_url(value)]
    forms = {form for part in parts for form in (part, repr(part)[1:-1], *_as_json(part)) if len(form) >= _SHORTEST}
    with _lock:
        if forms <= _forms.keys():
            return
        _forms.update(dict.fromkeys(forms, name))
        while len(_forms) > _MOST:
            _forms.popitem(last=False)
        # the longest first, so that nothing is left of what holds another
        _pattern = re.compile("|".join(map(re.escape, sorted(_forms, key=len, reverse=True))))


def concealed(text: str) -> str:
    """The text with names in the place of what was given to `conceal`."""
    pattern = _pattern
    return text if pattern is None else pattern.sub(lambda match: _forms.get(match[0], "${...}"), text)


def fingerprinted(text: str) -> str:
    """As `concealed`, with the start of each value's SHA-256, so that two values of one name look different."""
    pattern = _pattern
    if pattern is None:
        return text
    return pattern.sub(
        lambda match: f"{concealed(match[0])}#{hashlib.sha256(match[0].encode()).hexdigest()[:12]}", text
    )


def shows_concealed(exc: BaseException) -> bool:
    """Whether an exception's own text shows a value that was given to `conceal`."""
    inner = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return any(text != concealed(text) for text in (str(exc), repr(exc))) or any(map(shows_concealed, inner))


def _as_json(text: str) -> tuple[str, str]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]


def _parts_of_url(value: str) -> list[str]:
    """What a URL may hold in secret: the user's name and password, the path, and the values of its query."""
    _, mark, rest = value.partition("://")
    if not mark:
        return []
    place, _, query = rest.partition("?")
    authority, slash, path = place.partition("/")
    user = authority.rpartition("@")[0]
    found = [user, user.rpartition(":")[2], slash + path, query]
    found += [pair.partition("=")[2] for pair in re.split("[&;#]", query)]
    return [form for part in found for form in (part, unquote(part))]
