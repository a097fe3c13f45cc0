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
    ├── MissingExtra            an optional dependency is not installed, or too old
    ├── ProtocolError           ours: a decoder or backend was driven out of order
    └── GuardVerdict            the guard's word, when a policy asks for it to be raised
        ├── Refused
        └── BudgetExhausted

A message says what was wrong and where; ``hint`` says what to do. Messages never hold prompt text or
answer text, nor a value that a policy took from the environment: `concealed` puts the variable's name there.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any, Self

from stars_guard.concealing import concealed

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
]


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

    def __reduce__(self) -> tuple[Any, ...]:
        # an error of a worker process reaches its parent, whatever the arguments of its constructor are
        return _made_again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _made_again(kind: type[StarsGuardError], args: tuple[Any, ...], state: dict[str, Any]) -> StarsGuardError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(StarsGuardError):
    """The call itself cannot be served: empty messages, an unknown role, an option out of range."""


class ContextTooLong(InputError):
    """The prompt leaves no room for an answer in the model's context window."""


class PolicyError(StarsGuardError):
    """A policy cannot be found, read or used. ``str()`` lists every problem as ``file:line: key: text``."""


class BackendError(StarsGuardError):
    """The model that writes failed: not found, not loadable, or an error while it generates."""


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
    """An optional dependency is not installed, or is too old.

    Args:
        feature: what needs it.
        extra: the extra of this distribution that installs it.
        too_old: what is installed but too old, such as ``langchain 1.2.0``; empty where it is missing.
    """

    def __init__(self, feature: str, extra: str, *, too_old: str = "") -> None:
        needs = f"a newer version than {too_old}, which is installed" if too_old else "an optional dependency"
        upgrade = "--upgrade " if too_old else ""
        super().__init__(f"{feature} needs {needs}", hint=f'pip install {upgrade}"stars-guard[{extra}]"')

    @classmethod
    def because_of(cls, cause: ImportError, feature: str, extra: str) -> Self:
        """The error for an import that failed. What is there, but lacks what is imported, is too old.

        Args:
            cause: the failed import.
            feature: what needs it, in words.
            extra: the extra of stars-guard that brings it.
        """
        package = (cause.name or "").partition(".")[0]
        try:
            return cls(feature, extra, too_old=f"{package} {metadata.version(package)}")
        except (metadata.PackageNotFoundError, ValueError):
            return cls(feature, extra)


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
