"""Every code block of README and docs, and every example, runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from stars_guard.policy import load_policy
from stars_guard.policy.cases import load_cases

REPOSITORY = Path(__file__).parent.parent
PAGES = [p for p in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))) if "```" in p.read_text()]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_code_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks of a page run in order in one namespace, as a reader would paste them.

    A Python block whose first line names a file can also be imported.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if page.name != "README.md":  # which is read before there is a checkout
        (tmp_path / "policies").symlink_to(REPOSITORY / "policies")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    namespace = {"__name__": "__main__"}
    for language, block in blocks:
        if language == "python":
            if named := re.match(r"# (\w+\.py)\n", block):
                (tmp_path / named[1]).write_text(block)
            exec(compile(block, str(page), "exec"), namespace)
        else:
            assert language == "yaml"
            check_yaml(block, tmp_path)
    assert blocks


def check_yaml(block: str, folder: Path) -> None:
    """A policy, or cases; a first comment with a file name lets later blocks name it."""
    named = re.match(r"# (\S+\.yaml)\n", block)
    path = folder / (named[1] if named else "block.yaml")
    whole = re.search(r"^(apiVersion|extends|cases):", block, re.MULTILINE)
    path.write_text(block if whole else f"apiVersion: stars-guard/v1\nname: part\n{block}")
    if "cases:" in block:
        assert load_cases(path)
    else:
        policy = load_policy(path)
        assert policy.judges or policy.rails.tool_call.rules or re.match("decoding:", block)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(example), run_name="__main__")
    out = capsys.readouterr().out
    wanted = {
        "chain": "- ",
        "streaming": "generated tokens",
        "audit_log": "answer:",
        "agent_shell": "the tool ran: ['git status', 'ls -la']",
        "rag_injection": "the model read 2 of 3 documents",
        "switch_provider": "guarded: An otter.",
    }
    assert wanted.get(example.stem, "") in out
    assert out


def test_every_test_that_shows_a_guarantee_is_there() -> None:
    page = (REPOSITORY / "docs" / "guarantees.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert not [name for name in sorted(named) if not (REPOSITORY / name).exists()]
    ours = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "tests" / "security").glob("test_*.py")}
    assert ours <= named
    promises = [
        line for line in page.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| promise"))
    ]
    assert all("`tests/" in line for line in promises)


def tables(text: str) -> list[dict[str, dict[str, str]]]:
    """Markdown tables: cells by their row's first cell and their column's head."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        found.append({row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows})
    return found


@pytest.mark.parametrize(
    ("told_on", "title", "results", "rows"),
    [
        ("docs/evaluation.md", "In one table", "alignment, full", 12),
        ("README.md", "Beside other guardrails", "peers", 6),
    ],
)
def test_figures_are_those_of_the_results(told_on: str, title: str, results: str, rows: int) -> None:
    readme = (REPOSITORY / told_on).read_text()
    page = (REPOSITORY / "benchmarks" / "RESULTS.md").read_text()
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    (measured,) = re.findall(rf"^## {results}\n(.*?)(?:^## |\Z)", page, re.DOTALL | re.MULTILINE)
    (told,) = tables(section)
    found = tables(measured)[0]
    assert len(told) >= rows
    for row, cells in told.items():
        assert cells.items() <= found[row].items()
    date, command = re.search(r"Measured (\S+) on .*?`(.+?)`", measured, re.DOTALL).groups()  # type: ignore[union-attr]
    assert date in section
    assert command.split(" --out")[0] in section
