"""The commands under `stars-guard probe`, thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stars_guard.audit import Filter, parse_time
from stars_guard.cli._console import Terminal
from stars_guard.cli._options import ConcurrencyOption, PromptsOption, PythonOption
from stars_guard.cli.audit_app import AsJson, PolicyName, Since, Until, Where
from stars_guard.core.vocabulary import NumberType, ProbeFit

__all__ = ["probe_app"]

probe_app = typer.Typer(
    help="Train, install and check probes: judges that read the generator's own hidden states.", no_args_is_help=True
)


@probe_app.command()
def train(
    prompts: PromptsOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="the probe's file, such as probe.safetensors")],
    policy: Annotated[str, typer.Option(help="a policy's name or path; one of its judges is the teacher")] = "default",
    teacher: Annotated[
        str | None, typer.Option(help="name of that judge; default: the only one that has a weight")
    ] = None,
    model: Annotated[str, typer.Option(help="the generator: a Hugging Face directory or name")] = "embedded",
    dtype: Annotated[
        NumberType | None,
        typer.Option(help="what the generator computes in; bfloat16 is faster on processors that have it"),
    ] = None,
    fit: Annotated[
        ProbeFit,
        typer.Option(help="ridge: the probe forecasts the teacher's score; logistic: the chance that it rejects"),
    ] = "ridge",
    inner: Annotated[
        int, typer.Option(min=0, max=64, help="size of a small layer on four directions; 0: one direction and no layer")
    ] = 0,
    reject: Annotated[
        float | None,
        typer.Option(help="where the teacher rejects; default: its reject_above, or else the policy's r_star"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="longest answer")] = 64,
    answers: Annotated[
        int, typer.Option(min=1, help="answers to each prompt, unguarded and under the policy each")
    ] = 1,
    samples: Annotated[
        Path | None,
        typer.Option(help="a folder for the states and scores, without text: a run that was cut off goes on from it"),
    ] = None,
    held_out: Annotated[float, typer.Option(min=0.05, max=0.9, help="share of the prompts that only measure")] = 0.3,
    seed: Annotated[int, typer.Option(help="answer i gets the seed plus i")] = 0,
    concurrency: ConcurrencyOption = 16,
    plot: Annotated[Path | None, typer.Option(help="write a picture: .png or .svg")] = None,
    allow_python: PythonOption = False,
) -> None:
    """Train a probe on a judge: generate answers, unguarded and under the policy, and learn the judge's scores from the
    generator's hidden states. Runs the model in transformers."""
    from stars_guard.cli.probe import Plan, train_probe

    plan = Plan(
        prompts=prompts,
        output=output,
        teacher=teacher,
        model=model,
        dtype=dtype,
        fit=fit,
        inner=inner,
        reject=reject,
        max_tokens=max_tokens,
        answers=answers,
        samples=samples,
        held_out=held_out,
        seed=seed,
        concurrency=concurrency,
        plot=plot,
        allow_python=allow_python,
    )
    train_probe(Terminal(), policy, plan)


@probe_app.command("install")
def install_probe(
    model: Annotated[
        str, typer.Argument(help="the checkpoint: a Hugging Face directory or name; 'embedded' works too")
    ],
    probe: Annotated[Path, typer.Argument(help="the probe's file")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the new directory")],
) -> None:
    """Copy a checkpoint and write a probe into output rows that no token uses, so that any vLLM reports its values."""
    from stars_guard.cli.probe import install_into

    install_into(Terminal(), model, probe, output)


@probe_app.command()
def check(
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Annotated[str | None, typer.Option(help="the judge that is asked in doubt; default: each")] = None,
    most: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="exit with 1 if the sample shows that more than this share is missed"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a cheap judge has missed, by the random share of texts about which the expensive one was asked too."""
    from stars_guard.cli.audit import opened
    from stars_guard.cli.probe_check import check_log

    begin, end = (None if time is None else parse_time(time) for time in (since, until))
    wanted = Filter(since=begin, until=end, policy=policy)
    with opened(where) as store:
        holds = check_log(Terminal(), store, wanted, judge, most, as_json=as_json)
    raise typer.Exit(0 if holds else 1)


@probe_app.command()
def show(probe: Annotated[Path, typer.Argument(help="the probe's file")]) -> None:
    """Print a probe's model card."""
    from stars_guard.engines.probes import load_probe

    typer.echo(load_probe(probe).card.model_dump_json(indent=2))
