"""Variables that a chat template is given beside the messages, such as ``enable_thinking``, as a record shows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["read_variables", "shown_variables"]

_DIGEST = "sha256:"


def shown_variables(variables: Mapping[str, Any]) -> str:
    """Switches and numbers as JSON, and a digest of all where some hold text, which may be somebody's."""
    text = json.dumps(dict(variables), sort_keys=True)
    plain = all(name.isidentifier() for name in variables) and all(
        value is None or isinstance(value, bool | int | float) for value in variables.values()
    )
    return text if plain else _DIGEST + hashlib.sha256(text.encode()).hexdigest()


def read_variables(shown: str) -> dict[str, Any] | None:
    """The variables, or None where only their digest is known."""
    return None if shown.startswith(_DIGEST) else dict(json.loads(shown or "{}"))
