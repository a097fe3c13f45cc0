"""Every error that stars-guard raises on purpose, split by whose fault it is.

    StarsGuardError
    ├── InputError              the caller's: messages, options or a prompt that cannot be served
    │   └── ContextTooLong      the prompt does not fit the model's context
    ├── PolicyError             the caller's: a policy that cannot be read or used
    ├── BackendError            the generating engine's: a model that is missing, broken or out of memory
    │   └── BackendUnavailable  the engine cannot be reached now; trying later may help
    ├── ScorerError             the judging engine's: a score that is missing, NaN or infinite
    │   └── ScorerInputError    the caller's: a text that a judge cannot take
    ├── AuditError              the record could not be written or read
    ├── MissingExtra            an optional dependency is not installed
    ├── ProtocolError           ours: a decoder or backend was driven out of order
    └── GuardVerdict            the guard's word, when a policy asks for it to be raised
        ├── Refused
        └── BudgetExhausted

A message says what was wrong and where; ``hint`` says what to do. Messages never hold prompt text or
answer text, nor a value that a policy took from the environment: `concealed` puts the variable's name there.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import OrderedDict
from urllib.parse import unquote

__all__ = [
    "AuditError",
    "BackendError",
    "BackendUnavailable",
    "BudgetExhausted",
    "ContextTooLong",
    "GuardVerdict",
    "InputError",
    "MissingExtra",
    "PolicyError",
    "ProtocolError",
    "Refused",
    "ScorerError",
    "ScorerInputError",
    "StarsGuardError",
    "conceal",
    "concealed",
    "fingerprinted",
    "without_concealed",
]

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
    """As `concealed`, with the start of each value's SHA-256, so that two values under one name can be told apart."""
    pattern = _pattern
    if pattern is None:
        return text
    return pattern.sub(
        lambda match: f"{concealed(match[0])}#{hashlib.sha256(match[0].encode()).hexdigest()[:12]}", text
    )


def without_concealed(exc: BaseException) -> BaseException:
    """An exception, and those that led to it, without what was given to `conceal`.

    It is the same exception, unless its own text shows a value. The chain behind it ends before the first one that
    does. Raise it outside of the ``except`` block, or the context is there again.
    """
    if _shows_a_value(exc):
        return ScorerError(f"{type(exc).__name__}: {exc}")
    seen: set[int] = set()
    here: BaseException | None = exc
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        for field in ("__cause__", "__context__"):
            behind = getattr(here, field)
            if behind is not None and _shows_a_value(behind):
                setattr(here, field, None)
        here = here.__cause__ or here.__context__
    return exc


def _shows_a_value(exc: BaseException) -> bool:
    inner = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    return any(text != concealed(text) for text in (str(exc), repr(exc))) or any(map(_shows_a_value, inner))


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


class StarsGuardError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what was wrong and where, without user text.
        hint: what the reader can do about it.
    """

    retryable = False
    """Whether the same call may succeed later without being changed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = concealed(message)
        self.hint = concealed(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(StarsGuardError):
    """The call itself cannot be served: empty messages, an unknown role, an option out of range."""


class ContextTooLong(InputError):
    """The prompt leaves no room for an answer in the model's context window."""


class PolicyError(StarsGuardError):
    """A policy cannot be found, read or used. ``str()`` lists every problem as ``file:line: key: text``."""


class BackendError(StarsGuardError):
    """The model that writes failed: not found, not loadable, or an error while drawing."""


class BackendUnavailable(BackendError):
    """The engine cannot be reached at present."""

    retryable = True


class ScorerError(StarsGuardError):
    """A judge failed, or gave a score that is not a finite number."""


class ScorerInputError(ScorerError):
    """A judge works, but cannot take this text: it is too long, or not in a form that the judge knows.

    It fails the call that the text belongs to, and never counts as an outage of the judge.
    """


class AuditError(StarsGuardError):
    """An audit record could not be written or read."""


class MissingExtra(StarsGuardError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: what needs it.
        extra: the extra of this distribution that installs it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency", hint=f'pip install "stars-guard[{extra}]"')


class ProtocolError(StarsGuardError):
    """A decoder or backend was driven out of order: a bug in stars-guard or in a custom part of it."""


class GuardVerdict(StarsGuardError):
    """The guard ended the call, and the policy says that this is an exception.

    Attributes:
        audit_id: the id of the call's audit record, once there is one.
    """

    audit_id: str | None = None


class Refused(GuardVerdict):
    """No answer was released because none was acceptable."""


class BudgetExhausted(GuardVerdict):
    """No candidate was accepted within the attempts or the tokens that the policy allows."""
