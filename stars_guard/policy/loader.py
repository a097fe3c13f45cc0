"""From a name, a path or a mapping to a `Policy`; every problem with file, line and key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from stars_guard.errors import PolicyError
from stars_guard.policy.model import Policy
from stars_guard.policy.problems import describe

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
        source: the name of a shipped policy, a path, or what a YAML file would hold. A shipped name comes before a
            file of that name; write ``./name`` for the file.

    Raises:
        PolicyError: not found, not YAML, or not valid; the message lists every problem.
    """
    if isinstance(source, Policy):
        return source
    if isinstance(source, Mapping):
        return _validate(source, "policy")
    path = _find(source)
    return _validate(_parse(path), str(path))


def _find(source: str | Path) -> Path:
    path = Path(source)
    if isinstance(source, Path) or path.suffix in (".yaml", ".yml") or os.sep in source:
        return path
    shipped = shipped_policies()
    if source in shipped:
        return shipped[source]
    if path.is_file():
        return path
    near = difflib.get_close_matches(source, shipped, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped policies: {', '.join(shipped)}"
    raise PolicyError(f"there is no policy named {source!r}", hint=hint)


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise PolicyError(f"{path}: cannot read the policy: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise PolicyError(f"{path}: the policy is not UTF-8 text") from exc
    try:
        data = YAML(typ="rt").load(text)
    except DuplicateKeyError as exc:
        problem = str(exc.problem).partition(" with value")[0].removeprefix("found ")
        raise PolicyError(f"{path}:{_line(exc)}: {problem}") from exc
    except MarkedYAMLError as exc:
        raise PolicyError(f"{path}:{_line(exc)}: not valid YAML: {exc.problem}") from exc
    # ruamel.yaml lets a ValueError through for impossible dates and the like
    except (YAMLError, ValueError, RecursionError) as exc:
        raise PolicyError(f"{path}: not valid YAML") from exc
    if not isinstance(data, Mapping):
        raise PolicyError(f"{path}:1: a policy is a mapping of keys to values")
    return data


def _line(exc: MarkedYAMLError) -> int:
    mark = exc.problem_mark or exc.context_mark
    return mark.line + 1 if mark else 1


def _validate(data: Mapping[str, Any], where: str) -> Policy:
    try:
        return Policy.model_validate(_plain(data))
    except ValidationError as exc:
        raise PolicyError("\n".join(describe(where, data, exc))) from exc
    except RecursionError as exc:
        raise PolicyError(f"{where}: the policy contains itself") from exc


def _plain(value: Any) -> Any:
    """Without ruamel.yaml's own kinds of number, text and list, which strict models refuse."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if isinstance(value, ScalarBoolean):
        return bool(value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
