"""The commands under `stars-guard audit`, thin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from stars_guard.audit import Filter, parse_time
from stars_guard.cli._console import Terminal
from stars_guard.cli._options import ListForm
from stars_guard.core.arguments import chosen
from stars_guard.core.vocabulary import AnswerFinish, CheckFinish, ExportRows, FailureFinish
from stars_guard.core.vocabulary import Stage as Vocabulary

__all__ = ["audit_app"]

_FINISHES = (AnswerFinish, CheckFinish, FailureFinish)
_OUTCOMES = tuple(dict.fromkeys(word for words in _FINISHES for word in get_args(words)))
_STAGES = ("answer", *get_args(Vocabulary))

audit_app = typer.Typer(help="Read the audit log.", no_args_is_help=True)

Where = Annotated[
    str | None, typer.Argument(help="the log's URL or path, or the policy that names it; default: the default policy's")
]
Since = Annotated[
    str | None, typer.Option(help="only calls that started at this time or later: 90d, 2h, 2026-01-31T10:00")
]
Until = Annotated[str | None, typer.Option(help="only calls that started before this time: 90d, 2h, 2026-01-31T10:00")]
PolicyName = Annotated[str | None, typer.Option(help="only calls under the policy of this name")]
Judge = Annotated[str | None, typer.Option(help="only calls in which this judge caused a rejection")]
Outcome = Annotated[str | None, typer.Option(help=f"how the answer ended: {', '.join(_OUTCOMES)}")]
Stage = Annotated[str | None, typer.Option(help=f"what was judged: {', '.join(_STAGES)}")]
Run = Annotated[
    str | None, typer.Option("--run-id", help="only calls of this run, by its id in the caller, such as LangChain")
]
Words = Annotated[
    str | None, typer.Option(help="only calls with these words in prompt, candidates or answer, where text is kept")
]
Rejected = Annotated[bool, typer.Option("--rejected", help="only calls with a rejected segment")]
LangSmith = Annotated[str | None, typer.Option(help="address of a run in LangSmith, with {run_id} in it")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one value a line")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV")]


@audit_app.command("list")
def audit_list(
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    run_id: Run = None,
    text: Words = None,
    rejected: Rejected = False,
    limit: Annotated[int | None, typer.Option(min=1, help="how many of the newest calls; default: 50")] = None,
    every_call: Annotated[bool, typer.Option("--all", help="every call, whatever --limit says")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List calls, one on each line, the newest last."""
    from stars_guard.cli.audit import list_calls, opened

    wanted = _wanted(since, until, policy, judge, outcome, stage, run_id, text, rejected)
    form: ListForm = "json" if as_json else "csv" if as_csv else "table"
    with opened(where) as store:
        list_calls(Terminal(), store, wanted, 0 if every_call else limit, form)


@audit_app.command("show")
def audit_show(
    where: Where = None,
    call: Annotated[str | None, typer.Option("--id", help="a call or run id; default: newest")] = None,
    as_json: AsJson = False,
) -> None:
    """Show one call: every segment, candidate and decision. An id alone is one in the log of the default policy."""
    from stars_guard.cli.audit import is_id, opened, show_record

    if where is not None and call is None and is_id(where):
        where, call = None, where
    with opened(where) as store:
        show_record(Terminal(), store, call, as_json=as_json)


@audit_app.command("tail")
def audit_tail(
    where: Where = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    text: Words = None,
    rejected: Rejected = False,
    limit: Annotated[int, typer.Option(min=0, help="how many of the newest calls come first")] = 10,
    every: Annotated[float, typer.Option(min=0.05, help="seconds between two looks at the log")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Follow the log: one line for each call as it is written, until Ctrl-C."""
    from stars_guard.cli.audit import follow, opened

    wanted = _wanted(None, None, policy, judge, outcome, stage, None, text, rejected)
    with opened(where) as store:
        follow(Terminal(), store, wanted, limit, every, as_json=as_json)


@audit_app.command("stats")
def audit_stats(
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    run_id: Run = None,
    text: Words = None,
    rejected: Rejected = False,
    as_json: AsJson = False,
) -> None:
    """Count rejections by judge, policy and time, acceptance by segment, tokens and seconds."""
    from stars_guard.cli.audit import opened, show_stats

    wanted = _wanted(since, until, policy, judge, outcome, stage, run_id, text, rejected)
    with opened(where) as store:
        show_stats(Terminal(), store, wanted, as_json=as_json)


@audit_app.command("compare")
def audit_compare(
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    run_id: Run = None,
    text: Words = None,
    rejected: Rejected = False,
    as_json: AsJson = False,
) -> None:
    """Compare what was decided with what shadow policies would have decided, and what that would have cost."""
    from stars_guard.cli.audit import opened
    from stars_guard.cli.audit_shadows import compare_log

    wanted = _wanted(since, until, policy, judge, outcome, stage, run_id, text, rejected)
    with opened(where) as store:
        compare_log(Terminal(), store, wanted, as_json=as_json)


@audit_app.command("export")
def audit_export(
    output: Annotated[Path, typer.Option("--output", "-o", help="a file: .jsonl, .csv or .parquet")],
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    run_id: Run = None,
    text: Words = None,
    rejected: Rejected = False,
    rows: Annotated[ExportRows, typer.Option(help="what a row of CSV or Parquet is")] = "candidates",
) -> None:
    """Write records to a file: as JSON lines, or as CSV or Parquet with a row for each candidate or call."""
    from stars_guard.audit.export import export
    from stars_guard.cli.audit import opened

    wanted = _wanted(since, until, policy, judge, outcome, stage, run_id, text, rejected)
    with opened(where) as store:
        count = export(store.select(wanted), output, rows)
    Terminal(stderr=True).print(f"{count} calls written to {output}")


@audit_app.command("report")
def audit_report(
    output: Annotated[Path, typer.Option("--output", "-o", help="the file, .html")],
    where: Where = None,
    since: Since = None,
    until: Until = None,
    policy: PolicyName = None,
    judge: Judge = None,
    outcome: Outcome = None,
    stage: Stage = None,
    run_id: Run = None,
    text: Words = None,
    rejected: Rejected = False,
    limit: Annotated[int, typer.Option(min=0, help="how many of the newest calls are shown in full")] = 100,
    langsmith_url: LangSmith = None,
) -> None:
    """Write the page as one file to send: counts of all calls that fit, and the newest in full."""
    from stars_guard.audit.viewer import report
    from stars_guard.cli.audit import opened, write_private

    wanted = _wanted(since, until, policy, judge, outcome, stage, run_id, text, rejected)
    with opened(where) as store:
        write_private(output, report(store, wanted, limit=limit, langsmith=langsmith_url))


@audit_app.command("ui")
def audit_ui(
    where: Where = None,
    host: Annotated[
        str, typer.Option(help="the address of this machine to listen on; visitors need a token unless it is loopback")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="the port; 0 chooses a free one")] = 8321,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="STARS_GUARD_UI_TOKEN",
            help="what visitors have to know; default: a new one, unless the address is loopback",
        ),
    ] = None,
    langsmith_url: LangSmith = None,
) -> None:
    """Serve the page: overview, search, every call segment by segment, live view."""
    from stars_guard.cli.audit import opened, serve_page

    with opened(where) as store:
        serve_page(Terminal(), store, host, port, token, langsmith_url)


@audit_app.command("replay")
def audit_replay(
    call: Annotated[str, typer.Argument(help="a call or run id")],
    url: Annotated[str | None, typer.Option(help="the log's URL, or the policy that names it")] = None,
    under: Annotated[
        str | None, typer.Option(help="the policy under which the call was made; default: the one with its name")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="ask what this other policy would have decided")] = None,
    model: Annotated[str | None, typer.Option(help="default: the one on record")] = None,
    backend: Annotated[str | None, typer.Option(help="default: the one on record")] = None,
    allow_python: Annotated[bool, typer.Option("--allow-python", help="the policy's judges may run Python")] = False,
) -> None:
    """Generate a call again from its seed and show what differs, or decide again under another policy.

    Exit code 1 if something differs.
    """
    from stars_guard.cli.replay import replay, replay_under

    if policy is not None:
        same = replay_under(Terminal(), url, call, policy, allow_python=allow_python)
    else:
        same = replay(Terminal(), url, call, under, model, backend, allow_python=allow_python)
    if not same:
        raise typer.Exit(1)


def _wanted(
    since: str | None,
    until: str | None,
    policy: str | None,
    judge: str | None,
    outcome: str | None,
    stage: str | None,
    run_id: str | None,
    text: str | None,
    rejected: bool,
) -> Filter:
    """The calls that the options name.

    Raises:
        InputError: there is no such outcome, stage or time.
    """
    if outcome is not None:
        chosen("--outcome", outcome, _OUTCOMES)
    if stage is not None:
        chosen("--stage", stage, _STAGES)
    return Filter(
        since=None if since is None else parse_time(since),
        until=None if until is None else parse_time(until),
        policy=policy,
        judge=judge,
        finish=outcome,
        stage=stage,
        run_id=run_id,
        text=text,
        rejected=rejected,
    )


@audit_app.command("verify")
def audit_verify(
    where: Where = None,
    head: Annotated[
        Path | None,
        typer.Option(help="a file with what `audit head` printed earlier, so that a tail that was cut off is found"),
    ] = None,
    allow_unsigned: Annotated[bool, typer.Option(help="accept unsigned entries although a key is set")] = False,
    allow_unsealed: Annotated[
        int,
        typer.Option(
            min=0, help="accept this number of records that are older than the chain, although a key or head is given"
        ),
    ] = 0,
) -> None:
    """Check that nothing was changed, also in what lists show, and redo every decision.

    Exit code 1 if something does not hold.
    """
    from stars_guard.cli.audit import opened
    from stars_guard.cli.audit_proof import verify_log

    with opened(where) as store:
        holds = verify_log(Terminal(), store, head, unsigned=allow_unsigned, unsealed=allow_unsealed)
    if not holds:
        raise typer.Exit(1)


@audit_app.command("rebuild")
def audit_rebuild(where: Where = None) -> None:
    """Make the tables of a database again from its records. Read first what `verify` says.

    Lists, searches and counts read these tables.
    """
    from stars_guard.cli.audit import opened
    from stars_guard.cli.audit_proof import rebuild_lists

    with opened(where) as store:
        rebuild_lists(Terminal(), store)


@audit_app.command("head")
def audit_head(where: Where = None) -> None:
    """Print the last hash of each chain, to be kept where whoever writes the log cannot write."""
    from stars_guard.cli.audit import opened
    from stars_guard.cli.audit_proof import print_heads

    with opened(where) as store:
        print_heads(store)


@audit_app.command("purge")
def audit_purge(
    older_than: Annotated[str, typer.Option(help="delete calls that ended before this time: 90d, 12w, 2026-01-31")],
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", help="don't ask, even if no record would be left")] = False,
) -> None:
    """Delete old records. The log then says how many went, and can be verified as before.

    Where no record would be left, you are asked first, or must give --yes.
    """
    from stars_guard.cli.audit import opened
    from stars_guard.cli.audit_proof import purge_records

    with opened(where) as store:
        purge_records(Terminal(), store, parse_time(older_than), yes=yes)
