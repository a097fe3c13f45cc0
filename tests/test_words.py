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

PROPOSAL = r"(?-i:proposals?)"

INSTEAD = {
    r"(re)?draw(n|s|ing|ings)?|drew": "generate",
    PROPOSAL: "candidate",
    r"dear(er|est|ly)?": "expensive",
    r"(not to be|(can|could) ?(not|n't)? be) had": "isn't supported, isn't known",
    r"(?<!there )(is|are|was|were) (?-i:none)": "there is no ..., isn't ...",
    r"save (for|that|where|when|at|in|by|the)": "except",
    r"told": "reported, said",
    r"mend(s|ed|ing)?": "fix",
    r"laws?": "output distribution",
    r"anew": "again",
    r"as ever": "as usual",
    r"needs? not": "needn't, doesn't need to",
    r"shall|upon|whilst|thus|amongst|hitherto|likewise|stead": "a plain word",
    r"ere|lest|thereof|therein|wherein|whence|hence|thereby|unto|ought": "a plain word",
    r"for ever": "forever",
    r"by and by|in vain|of old|at will": "a plain word",
}
"""Each with what to write instead; STYLE.md of the project, "Plain English"."""

CLEAN = [
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "Makefile",
    "docs/*.md",
    "policies/*.yaml",
    "examples/*.py",
    "scripts/*.py",
    "scripts/*.sh",
    "benchmarks/*/*.md",
    "integrations/langchain_stars/*.py",
    "stars_guard/**/*.py",
    "stars_guard/**/*.md",
    "stars_guard/**/*.html",
    "stars_guard/parsing/*.yaml",
    "tests/acme_guard/**/*.py",
]
"""Files that hold none of these words, as patterns: all that a reader of stars-guard reads, and its code."""

A_PROPOSAL = {"stars_guard/backends", "stars_guard/testing", "stars_guard/calling", "tests/acme_guard/acme_guard"}
"""Where `Proposal` is meant, the class of what a backend generates for one candidate."""

NOT_ENGLISH = {
    "stars_guard/engines/injection_model.py",  # words that other people use
    "stars_guard/audit/_tables.py",  # these two say what databases hold already
    "stars_guard/audit/migrations/versions/0001_the_log.py",
}

CODE = re.compile(r"(?s:(?m:^)```.*?(?m:^)```|\{%.*?%\}|\{\{.*?\}\}|<style.*?</style>)|`[^`\n]*`|\bregex: .*")
"""What is code in files that aren't Python."""


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """What a reader reads as English, with its line: of Python files strings and comments, of others all but code.

    A string that is one word of code, such as the name of a column, isn't English.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        english = CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
        yield from enumerate(english.split("\n"), start=1)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            for number, line in enumerate(node.value.split("\n"), start=node.lineno):
                yield number, re.sub(r"``?[^`]*``?|^ +\w+:", "", line)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def bad_words(path: Path) -> list[str]:
    """``line: word (what to write instead)`` for each."""
    home = path.resolve()
    room = home.relative_to(REPOSITORY) if home.is_relative_to(REPOSITORY) else home
    if room.as_posix() in NOT_ENGLISH:
        return []
    words = {
        word: instead for word, instead in INSTEAD.items() if word != PROPOSAL or str(room.parent) not in A_PROPOSAL
    }
    return [
        f"{path}:{number}: {found[0]!r} ({instead})"
        for number, line in prose(path)
        for pattern, instead in words.items()
        for found in re.finditer(rf"\b({pattern})\b", line, re.IGNORECASE)
    ]


@pytest.mark.parametrize("pattern", CLEAN)
def test_clean_files_stay_plain(pattern: str) -> None:
    files = sorted(REPOSITORY.glob(pattern))
    assert files, f"{pattern} fits no file: take it out, or correct it"
    assert [word for file in files for word in bad_words(file)] == []


def test_pages_speak_to_their_reader_in_whole_sentences() -> None:
    """Per 1,000 words of all pages: few semicolons and colons, which often stand for a word that is missing."""
    # the scorecard is written by a program
    pages = [page for page in (REPOSITORY / "docs").glob("*.md") if page.name != "scorecard.md"]
    pages.append(REPOSITORY / "README.md")
    lines = [line for page in pages for _, line in prose(page) if not line.startswith("    ")]
    english = re.sub(r"\]\([^)]*\)", "", "\n".join(lines))
    thousands = len(english.split()) / 1000
    assert thousands > 15
    assert len(re.findall(r";|:(?=\s)", english)) / thousands < 13
    assert len(re.findall(r"\b(?:you|yours?|we|ours?|us)\b", english, re.IGNORECASE)) / thousands > 6


def test_words_are_found_where_people_read_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        '"""It is drawn again."""\n\ndrawn = told = None  # the law\nif drawn is None:\n'
        "    raise ValueError(f'{told} is none, None is None, and not to be had')\n"
    )
    (tmp_path / "a.md").write_text("dearer\n\n```python\ndraw = told\n```\nas `law` says, save for\n")
    (tmp_path / "a.yaml").write_text("# no draw passes, `draw` does\nregex: drawn\ndescription: what was drawn\n")
    names = ("a.py", "a.md", "a.yaml")
    found = [word.rpartition("/")[2].partition(" (")[0] for name in names for word in bad_words(tmp_path / name)]
    assert sorted(found) == [
        "a.md:1: 'dearer'",
        "a.md:6: 'save for'",
        "a.py:1: 'drawn'",
        "a.py:3: 'law'",
        "a.py:5: 'is none'",
        "a.py:5: 'not to be had'",
        "a.yaml:1: 'draw'",
        "a.yaml:3: 'drawn'",
    ]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            sys.stdout.write("".join(f"{word}\n" for word in bad_words(file)))
