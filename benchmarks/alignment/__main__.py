"""``python -m benchmarks.alignment [full|quick|smoke]``: evaluate and write JSON, HTML and a section of RESULTS.md."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.alignment.plans import PLANS
from benchmarks.alignment.report import write
from benchmarks.alignment.run import evaluate
from benchmarks.measure import RESULTS
from stars_guard.calling import portal

__all__ = ["main"]

OUT = Path(__file__).parent.parent / "out"


def main(arguments: list[str]) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__)
    parser.add_argument("plan", choices=PLANS, nargs="?", default="quick")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--out", type=Path, help="folder of the answers; a run goes on with what it holds")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the page that gets the tables")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="draw it alone, e.g. 'CARDS, x2'")
    parser.add_argument("--report", action="store_true", help="draw nothing: tell of the methods that are whole")
    given = parser.parse_args(arguments)
    plan = PLANS[given.plan]
    out = given.out or OUT / f"alignment-{plan.name}"
    draw, only = not given.report, given.only
    evaluation = portal.call(lambda: evaluate(plan, given.model, given.backend, out, draw=draw, only=only))
    write(evaluation, out, given.results, command=f"python -m benchmarks.alignment {shlex.join(arguments)}")


if __name__ == "__main__":
    main(sys.argv[1:])
