"""From a name, a path or a mapping to a `Policy`; every problem with file, line and key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stars_guard.errors import PolicyError
from stars_guard.policy import model
from stars_guard.policy.model import Policy

__all__ = ["load_policy", "shipped_policies"]

_PACKAGE = Path(__file__).parent.parent


def shipped_policies() -> dict[str, Path]:
    """The policies that come with stars-guard, by name."""
    installed = _PACKAGE / "_policies"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "policies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_policy(source: str | Path | Mapping[str, Any] | Policy) -> Policy:
    """Load and check a policy.

    Args:
        source: the name of a shipped policy, a path, or what a YAML file would hold.

    Raises:
        PolicyError: not found, not YAML, or not valid; the message lists every problem.
    """
    if isinstance(source, Policy):
        return source
    if isinstance(source, Mapping):
        return _validate(source, "policy")
    path = Path(source)
    if isinstance(source, str) and path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        shipped = shipped_policies()
        if source not in shipped:
            near = difflib.get_close_matches(source, shipped, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"shipped policies: {', '.join(shipped)}"
            raise PolicyError(f"there is no policy named {source!r}", hint=hint)
        path = shipped[source]
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise PolicyError(f"{path}: cannot read the policy: {exc.strerror}") from exc
    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise PolicyError(f"{path}:{line}: not valid YAML: {exc.problem}") from exc
    except YAMLError as exc:
        raise PolicyError(f"{path}: not valid YAML") from exc
    if not isinstance(data, Mapping):
        raise PolicyError(f"{path}:1: a policy is a mapping of keys to values")
    return _validate(data, str(path))


def _validate(data: Mapping[str, Any], where: str) -> Policy:
    try:
        return Policy.model_validate(_plain(data))
    except ValidationError as exc:
        problems = [_problem(where, data, error) for error in exc.errors(include_url=False)]
        raise PolicyError("\n".join(problems)) from exc


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _problem(where: str, data: Any, error: Any) -> str:
    keys: list[str] = []
    line = None
    node = data
    for part in error["loc"]:
        if isinstance(node, Mapping) and part not in node and part in ("sequence_classifier", "patterns"):
            continue  # pydantic names the union's branch in the path
        lc = getattr(node, "lc", None)
        if lc is not None:
            try:
                line = (lc.key(part) if isinstance(node, Mapping) else lc.item(part))[0] + 1
            except (KeyError, IndexError, TypeError):
                line = line or lc.line + 1
        keys.append(f"[{part}]" if isinstance(part, int) else str(part))
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            node = None
    key = ".".join(keys).replace(".[", "[") or "policy"
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(), 1)
        text = "unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    return f"{where}:{line}: {key}: {text}" if line else f"{where}: {key}: {text}"


def _known_keys() -> list[str]:
    names: set[str] = set()
    for value in vars(model).values():
        if isinstance(value, type) and issubclass(value, BaseModel):
            names |= {field.alias or name for name, field in value.model_fields.items()}
    return sorted(names)
