"""Plain English: words that must not come back in docstrings, comments, messages and docs.

A file is held to it once it is in `CLEAN`. To clean a room, reword what `python tests/test_words.py PATH...` prints,
and add the room here.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

INSTEAD = {
    r"(re)?draw(n|s|ing|ings)?|drew": "generate",
    r"proposals?": "candidate",
    r"dear(er|est|ly)?": "expensive",
    r"(not to be|(can|could) ?(not|n't)? be) had": "isn't supported, isn't known",
    r"(is|are|was|were) (?-i:none)": "there is no ..., isn't ...",
    r"save (for|that|where|when|at|in|by|the)": "except",
    r"told": "reported, said",
    r"mend(s|ed|ing)?": "fix",
    r"laws?": "output distribution",
    r"anew": "again",
    r"ere|lest|thereof|therein|wherein|whence|hence": "a plain word",
    r"for ever": "forever",
    r"by and by|in vain|of old|at will": "a plain word",
}
"""Each with what to write instead; STYLE.md of the project, "Plain English"."""

CLEAN = [
    "README.md",
    "SECURITY.md",
    "docs/*.md",
    "integrations/langchain_stars/[!_]*.py",
    "integrations/langchain_stars/_[!m]*.py",
    "scripts/*.py",
    "stars_guard/auditing/counterfactual.py",
    "stars_guard/auditing/replay.py",
    "stars_guard/calibration/*.py",
    "stars_guard/calling/metrics.py",
    "stars_guard/calling/telemetry.py",
    "stars_guard/cli/*.py",
    "stars_guard/policy/_files.py",
    "stars_guard/policy/_hot_reload.py",
    "stars_guard/policy/_loader.py",
    "stars_guard/policy/cases.py",
    "stars_guard/policy/edit.py",
    "stars_guard/policy/tree.py",
    "stars_guard/prompting/_*.py",
    "stars_guard/prompting/call_rendering.py",
    "stars_guard/prompting/chat_encoding.py",
    "stars_guard/prompting/guard_formats/*.py",
    "stars_guard/prompting/plain_text.py",
    "stars_guard/prompting/tool_calls.py",
]
"""Files that hold none of these words, as patterns."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """What a reader reads as English, with its line: of Python files strings and comments, of others all but code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        blocks = re.sub(r"^```.*?^```|`[^`\n]*`", lambda code: "\n" * code[0].count("\n"), text, flags=re.M | re.S)
        yield from enumerate(blocks.split("\n"), start=1)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(node.value.split("\n"), start=node.lineno):
                yield number, re.sub(r"``?[^`]*``?", "", line)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def bad_words(path: Path) -> list[str]:
    """``line: word (what to write instead)`` for each."""
    return [
        f"{path}:{number}: {found[0]!r} ({instead})"
        for number, line in prose(path)
        for pattern, instead in INSTEAD.items()
        for found in re.finditer(rf"\b({pattern})\b", line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("pattern", CLEAN)
def test_clean_files_stay_plain(pattern: str) -> None:
    files = sorted(REPOSITORY.glob(pattern))
    assert files, f"{pattern} fits no file: take it out, or correct it"
    assert [word for file in files for word in bad_words(file)] == []


def test_words_are_found_where_people_read_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""It is drawn again."""\n\ndrawn = told = None  # the law\nif drawn is None:\n'
        "    raise ValueError(f'{told} is none, None is None, and not to be had')\n"
    )
    (tmp_path / "a.md").write_text("dearer\n\n```python\ndraw = told\n```\nas `law` says, save for\n")
    found = [
        word.rpartition("/")[2].partition(" (")[0] for name in ("a.py", "a.md") for word in bad_words(tmp_path / name)
    ]
    assert sorted(found) == [
        "a.md:1: 'dearer'",
        "a.md:6: 'save for'",
        "a.py:1: 'drawn'",
        "a.py:3: 'law'",
        "a.py:5: 'is none'",
        "a.py:5: 'not to be had'",
    ]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            sys.stdout.write("".join(f"{word}\n" for word in bad_words(file)))
