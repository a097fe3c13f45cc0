"""``python -m benchmarks.scorecard [full|quick|smoke]``: measure, and write the scorecard as Markdown and HTML.

A run goes on with what its folder holds. ``full`` publishes its results into ``benchmarks/results/scorecard`` and
``docs/scorecard.md``; the others write their page beside their results.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.scorecard.page import write
from benchmarks.scorecard.run import SECTIONS, held, measured
from benchmarks.scorecard.sizes import SIZES

__all__ = ["PUBLISHED", "main"]

HERE = Path(__file__).parent.parent
OUT = HERE / "out"
PUBLISHED = HERE / "results" / "scorecard"
"""The results that the page of the docs shows."""


def main(arguments: Sequence[str]) -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description=__doc__)
    parser.add_argument("size", choices=SIZES, nargs="?", default="quick")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS], metavar="SECTION")
    parser.add_argument("--anew", action="store_true", help="measure again what the folder holds")
    parser.add_argument("--report", action="store_true", help="measure nothing, and write the page")
    parser.add_argument("--no-models", action="store_true", help="leave out what needs a model")
    parser.add_argument("--out", type=Path, help="folder of the results; a run goes on with what it holds")
    given = parser.parse_args(arguments)
    size = replace(SIZES[given.size], models=False) if given.no_models else SIZES[given.size]
    out = given.out or OUT / f"scorecard-{given.size}"
    if given.anew:
        for name in given.only:
            (out / f"{name}.json").unlink(missing_ok=True)
    names = [] if given.report else given.only
    command = f"python -m benchmarks.scorecard {size.name}{' --no-models' if given.no_models else ''}"
    missing = measured(names, size, out, command)
    page = out / "scorecard.md"
    if size.name == "full" and given.out is None:
        PUBLISHED.mkdir(parents=True, exist_ok=True)
        for name in held(out):
            shutil.copyfile(out / f"{name}.json", PUBLISHED / f"{name}.json")
        # the page says what the published results say, whoever writes it; why a section is missing is on the terminal
        page, out, missing = HERE.parent / "docs" / "scorecard.md", PUBLISHED, {}
    write(held(out), missing, page=page, html=out / "scorecard.html")
    print(f"{page}\n{out / 'scorecard.html'}")


if __name__ == "__main__":
    main(sys.argv[1:])
