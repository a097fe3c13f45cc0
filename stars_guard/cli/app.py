"""Commands, thin."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from stars_guard.cli.audit_app import audit_app
from stars_guard.errors import StarsGuardError

__all__ = ["app", "main"]

app = typer.Typer(help="A guardrail that works while the model writes.", no_args_is_help=True, add_completion=False)
app.add_typer(audit_app, name="audit")
policy_app = typer.Typer(help="Check, show, compare and test policies.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")

PolicyOption = Annotated[str, typer.Option(help="a policy's name or path")]
ModelOption = Annotated[str, typer.Option(help="a Hugging Face directory or name; 'embedded' is the built-in one")]
BackendOption = Annotated[str, typer.Option(help="auto, transformers, vllm or vllm-server")]
ServerOption = Annotated[list[str] | None, typer.Option("--base-url", help="a vLLM server; may be given several times")]
PolicyArgument = Annotated[str, typer.Argument(help="a policy's name or path")]


@app.command()
def demo(
    audit: Annotated[str | None, typer.Option(help="the audit log's URL")] = None,
    max_tokens: Annotated[int, typer.Option(help="longest answer in tokens", min=1)] = 48,
    backend: BackendOption = "transformers",
    svg: Annotated[Path | None, typer.Option(help="save what was shown as a picture")] = None,
) -> None:
    """Answer a few prompts twice, unguarded and under the default policy, with a live view."""
    from stars_guard.cli.demo import run_demo

    console = Console(record=svg is not None)
    run_demo(console, audit, max_tokens, backend)
    if svg is not None:
        console.save_svg(str(svg), title="stars-guard demo")


@app.command()
def run(
    prompts: Annotated[Path, typer.Argument(help="JSONL with prompt or messages on each line")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of answers; a run that was cut goes on")],
    policy: PolicyOption = "default",
    model: ModelOption = "embedded",
    backend: BackendOption = "auto",
    base_url: ServerOption = None,
    concurrency: Annotated[int, typer.Option(min=1, help="answers drawn at once")] = 32,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer; default: the policy's")] = None,
    seed: Annotated[int | None, typer.Option(help="prompt i is drawn with seed + i")] = None,
    audit: Annotated[str | None, typer.Option(help="the audit log's URL; default: the policy's")] = None,
) -> None:
    """Answer a file of prompts under a policy."""
    from stars_guard.cli.run import run_file
    from stars_guard.guard import CallOptions, Guard

    options = {"base_url": base_url, "api_key": os.environ.get("STARS_GUARD_API_KEY")} if base_url else {}
    guard = Guard(policy, model=model, backend=backend, options=options, audit=audit)
    calls = CallOptions(max_tokens=max_tokens, seed=seed)
    run_file(Console(stderr=True), guard, prompts, output, calls, concurrency=concurrency)


@app.command()
def doctor(policy: PolicyOption = "default", model: ModelOption = "embedded", base_url: str | None = None) -> None:
    """Check CUDA, vLLM, memory, models, policy and audit log; say what is wrong and how to mend it."""
    from stars_guard.cli.doctor import diagnose

    if not diagnose(Console(), policy, model, base_url):
        raise typer.Exit(1)


@app.command("serve-config")
def serve_config(policy: PolicyOption = "default", model: ModelOption = "embedded") -> None:
    """Print the `vllm serve` lines for a policy: generator and judges, and how they share one GPU."""
    from stars_guard.cli.serve_config import show_config

    show_config(Console(), policy, model)


def _known_schedule(name: str | None) -> str | None:
    from stars_guard.decoding import SCHEDULES

    if name is not None and name not in SCHEDULES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(SCHEDULES)}")
    return name


@app.command()
def calibrate(
    prompts: Annotated[Path, typer.Option(help="JSONL with prompt or messages on each line")],
    policy: PolicyOption = "default",
    model: ModelOption = "embedded",
    backend: BackendOption = "auto",
    base_url: ServerOption = None,
    samples: Annotated[int, typer.Option(min=1, help="answers drawn for each prompt")] = 4,
    acceptance: Annotated[float, typer.Option(min=0.01, max=0.99, help="the wanted mean acceptance rate")] = 0.5,
    schedule: Annotated[
        str | None, typer.Option(help="to find numbers for; default: the policy's", callback=_known_schedule)
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer; default: the policy's")] = None,
    seed: Annotated[int, typer.Option(help="answer i is drawn with seed + i")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="answers drawn at once")] = 8,
    plot: Annotated[Path | None, typer.Option(help="write a picture: .png, .svg or .html")] = None,
    write: Annotated[bool, typer.Option("--write", help="write what was found into the policy's file")] = False,
) -> None:
    """Find a policy's thresholds: draw unguarded answers, show their rewards, propose, and say what it would cost."""
    from stars_guard.cli.calibrate import Plan
    from stars_guard.cli.calibrate import calibrate as find

    options = {"base_url": base_url, "api_key": os.environ.get("STARS_GUARD_API_KEY")} if base_url else {}
    plan = Plan(prompts, samples, acceptance, max_tokens, seed, concurrency, schedule, plot, write)
    find(Console(), policy, model, backend, options, plan)


@policy_app.command("check")
def policy_check(policies: Annotated[list[str], typer.Argument(help="names or paths")]) -> None:
    """Say whether policies are valid: every problem with its file, line and key. Exit code 1 if one is not."""
    from stars_guard.cli.policy import check_policies

    if not check_policies(Console(), policies):
        raise typer.Exit(1)


@policy_app.command("show")
def policy_show(policy: PolicyArgument = "default") -> None:
    """Print the resolved policy, with where each value came from."""
    from stars_guard.cli.policy import show_policy

    show_policy(Console(), policy)


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of a policy file."""
    from stars_guard.policy.schema import schema_text

    typer.echo(schema_text(), nl=False)


@policy_app.command("diff")
def policy_diff(first: str, second: str) -> None:
    """Show what differs between two policies, and what the second lets through. Exit code 1 if they differ."""
    from stars_guard.cli.policy import diff_policies

    if not diff_policies(Console(), first, second):
        raise typer.Exit(1)


@policy_app.command("test")
def policy_test(
    cases: Annotated[Path, typer.Argument(help="YAML with texts and what should be said of them")],
    policy: PolicyOption = "default",
) -> None:
    """Run a policy's unit tests. Exit code 1 if one fails."""
    from stars_guard.cli.policy import test_policy

    if not test_policy(Console(), policy, cases):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors on purpose become one line and exit code 1.

    A termination ends the process in order: a vLLM engine would otherwise outlive it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except StarsGuardError as exc:
        Console(stderr=True).print(f"error: {exc}", style="red", markup=False)
        sys.exit(1)
