"""What a model's fields show of themselves where secrets may be in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from stars_guard.audit import AuditStore
from stars_guard.errors import InputError
from stars_guard.policy import Policy

__all__ = ["SECRETIVE", "check_not_hidden", "digest_of", "shown", "shown_policy"]

SECRETIVE = ("base_url", "backend_options", "audit", "policy", "policies")
"""The fields whose values may hold a password or a key. `SecretStr` hides the others by itself."""

_HIDDEN = "__hidden__"
_LOCAL = ("sqlite", "jsonl", "memory")


def shown(name: str, value: Any) -> Any:
    """A field's value without its secrets."""
    match name, value:
        case "base_url", str():
            return _url(value)
        case "base_url", list():
            return [_url(url) for url in value]
        case "audit", str():
            scheme, _, _ = value.partition("://")
            place, query, _ = value.partition("?")
            if scheme not in _LOCAL:
                return f"{scheme}://{_HIDDEN}" if "://" in value else _HIDDEN
            return f"{place}?{_HIDDEN}" if query else value
        case "audit", AuditStore():
            return type(value).__name__
        case "backend_options", Mapping():
            return dict.fromkeys(value, _HIDDEN)
        case "policy", Policy() | Mapping():
            return f"{_HIDDEN}: {shown_policy(value)}"
        case "policies", list():
            return [shown("policy", one) for one in value]
        case _:
            return value


def shown_policy(source: Any) -> Any:
    """A policy by its name, because all of it would be long and a mapping may hold secrets."""
    if isinstance(source, Policy):
        return f"{source.name} ({source.sha256[:12]})"
    return f"{source.get('name', '')} (a mapping)" if isinstance(source, Mapping) else source


def _url(url: str) -> str:
    """A server's URL without user, password, query and fragment, each of which may be a key."""
    place, *rest = re.split("[?#]", url, maxsplit=1)
    scheme, separator, host = place.rpartition("://")
    if "@" in host:
        host = f"{_HIDDEN}@{host.rpartition('@')[2]}"
    return f"{scheme}{separator}{host}{'?' + _HIDDEN if rest else ''}"


def check_not_hidden(given: Mapping[str, Any]) -> None:
    """See that no value is one that was hidden when the model was serialised.

    Raises:
        InputError: a value is hidden, so that the model could not do what it did before.
    """
    for name in SECRETIVE:
        value = given.get(name)
        if not isinstance(value, AuditStore) and _HIDDEN in str(value):
            raise InputError(f"{name} was hidden when the model was serialised", hint=f"give {name} again")


def digest_of(options: Mapping[str, Any]) -> str:
    """Tells options apart without showing them. `SecretStr` values do not count."""
    text = json.dumps({name: str(value) for name, value in options.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
