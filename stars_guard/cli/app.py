"""The commands, thin. Every one of them ends with the same exit codes; see `_Commands`."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stars_guard import __version__
from stars_guard.cli._console import Terminal
from stars_guard.cli._options import ConcurrencyOption, PromptsOption, PythonOption
from stars_guard.cli.audit_app import audit_app
from stars_guard.cli.probe_app import probe_app
from stars_guard.errors import StarsGuardError

__all__ = ["app", "main"]

FOUND, FAILED = 1, 2


class _Commands(TyperGroup):
    """All commands, with errors as one line.

    Exit codes: 0, all is well; 1, the command did its work and found something: a problem, a difference, a case that
    failed; 2, it could not do its work: an option or a file is wrong, or an engine or the audit log can't be reached.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except StarsGuardError as exc:
            reason = str(exc)
        except OSError as exc:
            if exc.filename is None:
                raise
            reason = f"{exc.filename}: {exc.strerror}"
        Terminal(stderr=True).print(f"error: {reason}", style="red", soft_wrap=True)
        raise typer.Exit(FAILED)


app = typer.Typer(
    cls=_Commands,
    help="A guardrail that works while the model writes. "
    "Exit codes: 0, all is well; 1, something was found; 2, the command could not do its work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stars-guard {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


app.add_typer(audit_app, name="audit")
app.add_typer(probe_app, name="probe")
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
    svg: Annotated[Path | None, typer.Option(help="also save what is shown as a picture")] = None,
) -> None:
    """Answer two prompts, unguarded and under the default policy, and judge what an agent asks for."""
    from stars_guard.cli.demo import run_demo

    console = Terminal(record=svg is not None)
    run_demo(console, audit, max_tokens, backend)
    if svg is not None:
        svg.write_text(_picture(console), encoding="utf-8")


def _picture(console: Terminal) -> str:
    """What was shown, as SVG that loads nothing from elsewhere: Rich's own names a font on another host."""
    text = console.export_svg(title="stars-guard demo")
    return re.sub(r"@font-face\s*{[^}]*}", "", text)


@app.command()
def run(
    prompts: Annotated[Path, typer.Argument(help="JSONL with prompt or messages on each line")],
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL of answers; a run that was cut off goes on")],
    policy: PolicyOption = "default",
    model: ModelOption = "embedded",
    backend: BackendOption = "auto",
    base_url: ServerOption = None,
    concurrency: ConcurrencyOption = 32,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer; default: the policy's")] = None,
    seed: Annotated[
        int | None, typer.Option(help="the first prompt gets this seed, and each later one the next number")
    ] = None,
    audit: Annotated[str | None, typer.Option(help="the audit log's URL; default: the policy's")] = None,
    allow_python: PythonOption = False,
) -> None:
    """Answer a file of prompts under a policy.

    Exit code 1 if a line is no prompt or can't be answered; the others are. Exit code 2 if the engine, a judge or the
    audit log fails: the run ends, and another one goes on from there.
    """
    from stars_guard.cli.run import run_file
    from stars_guard.guard import CallOptions, Guard

    guard = Guard(
        policy, model=model, backend=backend, options=_server(base_url), audit=audit, allow_python=allow_python
    )
    calls = CallOptions(max_tokens=max_tokens, seed=seed)
    _found(not run_file(Terminal(stderr=True), guard, prompts, output, calls, concurrency=concurrency))


@app.command()
def doctor(
    policy: PolicyOption = "default",
    model: ModelOption = "embedded",
    base_url: Annotated[str | None, typer.Option(help="a vLLM server that serves the model")] = None,
) -> None:
    """Check CUDA, vLLM, memory, models, policy and audit log, and say how to fix what is wrong.

    Exit code 1 if something is wrong.
    """
    from stars_guard.cli.doctor import diagnose

    _found(not diagnose(Terminal(), policy, model, base_url))


@app.command("serve-config")
def serve_config(policy: PolicyOption = "default", model: ModelOption = "embedded") -> None:
    """Print the `vllm serve` lines for a policy: generator and judges, and how they share one GPU."""
    from stars_guard.cli.serve_config import show_config

    show_config(Terminal(), policy, model)


def _known_schedule(name: str | None) -> str | None:
    from stars_guard.decoding import SCHEDULES

    if name is not None and name not in SCHEDULES:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(SCHEDULES)}")
    return name


@app.command()
def calibrate(
    prompts: PromptsOption,
    policy: PolicyOption = "default",
    model: ModelOption = "embedded",
    backend: BackendOption = "auto",
    base_url: ServerOption = None,
    samples: Annotated[int, typer.Option(min=1, help="answers generated for each prompt")] = 4,
    acceptance: Annotated[float, typer.Option(min=0.01, max=0.99, help="the wanted mean acceptance rate")] = 0.5,
    schedule: Annotated[
        str | None, typer.Option(help="find numbers for this schedule; default: the policy's", callback=_known_schedule)
    ] = None,
    worth: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="also find attempts by position: those of which at least this share is accepted",
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer; default: the policy's")] = None,
    seed: Annotated[int, typer.Option(help="the first answer gets this seed, and each later one the next number")] = 0,
    concurrency: ConcurrencyOption = 8,
    plot: Annotated[Path | None, typer.Option(help="write a picture: .png, .svg or .html")] = None,
    write: Annotated[bool, typer.Option("--write", help="write what was found into the policy's file")] = False,
    allow_python: PythonOption = False,
) -> None:
    """Find a policy's thresholds: generate answers, show their rewards, propose numbers, and say the cost."""
    from stars_guard.cli.calibrate import Plan
    from stars_guard.cli.calibrate import calibrate as find
    from stars_guard.guard import Guard

    plan = Plan(
        prompts=prompts,
        samples=samples,
        acceptance=acceptance,
        max_tokens=max_tokens,
        seed=seed,
        concurrency=concurrency,
        schedule=schedule,
        worth=worth,
        plot=plot,
        write=write,
    )

    def guard_of(watching: Any, store: Any) -> Guard:
        return Guard(
            watching,
            model=model,
            backend=backend,
            options=_server(base_url),
            audit=store,
            allow_python=allow_python,
        )

    find(Terminal(), policy, guard_of, plan)


@policy_app.command("list")
def policy_list() -> None:
    """List the policies that come with stars-guard, with what each is for."""
    from stars_guard.cli.policy import list_policies

    list_policies(Terminal())


@policy_app.command("check")
def policy_check(policies: Annotated[list[str], typer.Argument(help="names or paths")]) -> None:
    """Say whether policies are valid: every problem with its file, line and key. Exit code 1 if one is not."""
    from stars_guard.cli.policy import check_policies

    _found(not check_policies(Terminal(), policies))


@policy_app.command("show")
def policy_show(policy: PolicyArgument = "default") -> None:
    """Print the resolved policy, with where each value came from."""
    from stars_guard.cli.policy import show_policy

    show_policy(Terminal(), policy)


@policy_app.command("schema")
def policy_schema() -> None:
    """Print the JSON Schema of a policy file."""
    from stars_guard.policy.schema import schema_text

    typer.echo(schema_text(), nl=False)


@policy_app.command("diff")
def policy_diff(first: PolicyArgument, second: PolicyArgument) -> None:
    """Show what differs between two policies, and what the second lets through. Exit code 1 if they differ."""
    from stars_guard.cli.policy import diff_policies

    _found(not diff_policies(Terminal(), first, second))


@policy_app.command("test")
def policy_test(
    cases: Annotated[Path, typer.Argument(help="YAML with texts and what the judges should say of them")],
    policy: PolicyOption = "default",
    allow_python: PythonOption = False,
) -> None:
    """Run a policy's unit tests. Exit code 1 if one fails."""
    from stars_guard.cli.policy import run_cases

    _found(not run_cases(Terminal(), policy, cases, allow_python=allow_python))


@policy_app.command("explain")
def policy_explain(
    policy: PolicyArgument,
    call: Annotated[Path, typer.Argument(help="JSON or YAML: name, args, and run and context where rules need them")],
) -> None:
    """Say what each rule about tool calls says about one call, and which one decides."""
    from stars_guard.cli.policy import explain_call

    explain_call(Terminal(), policy, call)


def _found(something: bool) -> None:
    if something:
        raise typer.Exit(FOUND)


def _server(base_url: list[str] | None) -> dict[str, Any]:
    """A backend's options for servers."""
    return {"base_url": base_url, "api_key": os.environ.get("STARS_GUARD_API_KEY")} if base_url else {}


def main() -> None:
    """Entry point, also of ``python -m stars_guard``.

    A termination ends the process in order, because a vLLM engine would otherwise outlive it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app(prog_name="stars-guard")
