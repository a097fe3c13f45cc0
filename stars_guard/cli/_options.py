"""Options that several groups of commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["ConcurrencyOption", "ListForm", "PromptsOption", "PythonOption"]

ListForm = Literal["table", "json", "csv"]
"""How a list is printed."""

PromptsOption = Annotated[Path, typer.Option(help="JSONL with prompt or messages on each line")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="answers generated at once")]
PythonOption = Annotated[
    bool, typer.Option("--allow-python", help="run the Python code that the policy's judges name: trust the policy")
]
