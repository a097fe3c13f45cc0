"""`make check` compares the public API with the last release."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("griffe")

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_api.py"
PROMISED = "def ask(text: str, limit: int = 3) -> str:\n    return text[:limit]\n"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("check_api", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Repository:
    """Both packages, each with one function, and a version."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.files = [where / "stars_guard/__init__.py", where / "integrations/langchain_stars/__init__.py"]
        for file in self.files:
            file.parent.mkdir(parents=True)
            file.write_text(PROMISED)
        self.version("0.3.1")
        self.git("init", "-q")
        self.git("add", ".")
        self.git("commit", "-q", "-m", "first")

    def git(self, *arguments: str) -> None:
        person = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *person, *arguments], cwd=self.where, check=True, capture_output=True)

    def version(self, version: str) -> None:
        (self.where / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_without_a_release_nothing_is_compared(script: Any, repository: Repository) -> None:
    repository.files[0].write_text("")
    assert script.main(repository.where) == 0
    repository.git("tag", "another")
    assert script.main(repository.where) == 0


@pytest.mark.parametrize("package", [0, 1], ids=["stars_guard", "langchain_stars"])
def test_a_break_is_an_error_until_the_version_says_so(
    script: Any, repository: Repository, package: int, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.git("tag", "v0.3.0")
    repository.files[package].write_text(PROMISED.replace("= 3", "= 3, more: str = ''") + "def more() -> None: ...\n")
    assert script.main(repository.where) == 0
    assert "nothing breaks" in capsys.readouterr().out
    repository.files[package].write_text(PROMISED.replace("limit", "bound"))
    assert script.main(repository.where) == 1
    assert "Parameter was removed" in capsys.readouterr().out
    repository.version("0.4.0")
    assert script.main(repository.where) == 0


def test_the_last_release_counts(script: Any, repository: Repository) -> None:
    repository.git("tag", "v0.2.0")
    repository.files[0].write_text("")
    repository.git("commit", "-q", "-a", "-m", "second")
    repository.git("tag", "v0.3.0")
    assert script.main(repository.where) == 0


def test_what_cannot_be_read_is_an_error(script: Any, repository: Repository) -> None:
    repository.git("tag", "v0.3.0")
    repository.version("0.4.0")
    shutil.rmtree(repository.files[0].parent)
    with pytest.raises(ModuleNotFoundError):
        script.main(repository.where)


@pytest.mark.parametrize(
    ("release", "version", "may"),
    [("v0.1.0", "0.1.9", False), ("v0.1.0", "0.2.0", True), ("v0.9.0", "1.0.0", True), ("v1.2.0", "1.9.0", False)],
)
def test_which_version_may_break(script: Any, release: str, version: str, may: bool) -> None:
    assert script.may_break(release, version) is may
