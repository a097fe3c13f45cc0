"""The YAML files beside the modules of this room."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from ruamel.yaml import YAML

__all__ = ["read_table"]


def read_table(name: str) -> Any:
    """What stands in a file of this folder. It is read each time, so keep it."""
    return YAML(typ="safe", pure=True).load(files(__package__).joinpath(name).read_text(encoding="utf-8"))
