"""What is uploaded to PyPI holds what it should, and nothing else."""

from __future__ import annotations

import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

REPOSITORY = Path(__file__).parent.parent
DIST: dict[str, Any] = runpy.run_path(str(REPOSITORY / "scripts" / "dist.py"))


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def wheel_names() -> list[str]:
    """The files of the wheel, by hatchling itself, without building it."""
    builder = WheelBuilder(str(REPOSITORY))
    return [file.distribution_path for file in builder.recurse_included_files()]


def test_the_wheel_has_the_packages_policies_and_models_and_no_more(tracked: list[str]) -> None:
    names = wheel_names()
    assert DIST["problems_of_wheel"](names, tracked) == []
    assert {name.split("/")[0] for name in names} == {"stars_guard", "langchain_stars"}
    assert any(name.startswith("stars_guard/audit/") and name.endswith(".html") for name in names)


def test_the_sdist_has_what_the_wheel_is_made_of(tracked: list[str]) -> None:
    names = [file.distribution_path for file in SdistBuilder(str(REPOSITORY)).recurse_included_files()]
    assert DIST["problems_of_sdist"](names, tracked) == []


@pytest.mark.parametrize("extra", ["tests/test_x.py", "benchmarks/run.py", "stars_guard/__pycache__/a.pyc", ".venv/x"])
def test_what_should_not_be_inside_is_named(extra: str, tracked: list[str]) -> None:
    names = wheel_names()
    assert DIST["problems_of_wheel"]([*names, extra], tracked) == [f"the wheel has {extra}"]


@pytest.mark.parametrize("kind", ["_policies/strict.yaml", "MODEL_CARD.md", "py.typed", "guard.py"])
def test_what_is_missing_is_named(kind: str, tracked: list[str]) -> None:
    names = [name for name in wheel_names() if not name.endswith(kind)]
    problems = DIST["problems_of_wheel"](names, tracked)
    assert problems
    assert all(problem.startswith("the wheel lacks ") for problem in problems)


def test_every_extra_is_on_the_page_that_lists_them() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    assert [
        extra for extra in project["optional-dependencies"] if extra != "dev" and f"| `{extra}` |" not in page
    ] == []
