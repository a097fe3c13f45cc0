"""Commands, thin."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from stars_guard.errors import StarsGuardError

__all__ = ["app", "main"]

app = typer.Typer(help="A guardrail that works while the model writes.", no_args_is_help=True, add_completion=False)
audit_app = typer.Typer(help="Read the audit log.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

Url = Annotated[str | None, typer.Argument(help="jsonl:///path; default: the user's state directory")]


@app.command()
def demo(
    audit: Annotated[str | None, typer.Option(help="the audit log's URL")] = None,
    max_tokens: Annotated[int, typer.Option(help="longest answer in tokens", min=1)] = 48,
) -> None:
    """Answer a few prompts twice, unguarded and under the default policy, with a live view."""
    from stars_guard.cli.demo import run_demo

    run_demo(Console(), audit, max_tokens)


@audit_app.command("list")
def audit_list(url: Url = None) -> None:
    """One line a call, newest last."""
    from stars_guard.cli.audit import list_records

    list_records(Console(), url)


@audit_app.command("show")
def audit_show(
    url: Url = None, call: Annotated[str | None, typer.Option("--id", help="a call or run id; default: newest")] = None
) -> None:
    """One call: every segment, every proposal, every decision."""
    from stars_guard.cli.audit import show_record

    show_record(Console(), url, call)


def main() -> None:
    """Entry point: errors on purpose become one line and exit code 1."""
    try:
        app()
    except StarsGuardError as exc:
        Console(stderr=True).print(f"error: {exc}", style="red", markup=False)
        sys.exit(1)
