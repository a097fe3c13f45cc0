"""Errors travel: between processes, and into copies."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re
import sys
import tomllib
import types
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stars_guard import errors

KINDS = [getattr(errors, name) for name in errors.__all__]


def made(kind: type[Any]) -> Any:
    if issubclass(kind, errors.MissingExtra):
        error = kind("a feature", "vllm")
    else:
        error = kind("what was wrong", hint="what to do")
    if issubclass(kind, errors.GuardVerdict):
        error.audit_id = "0123"
    error.add_note("a note")
    return error


def fail(name: str) -> None:
    raise made(getattr(errors, name))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_can_be_pickled_and_copied(kind: type[Any]) -> None:
    error = made(kind)
    copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in (*copies, copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
        assert again.__notes__ == ["a note"]
        assert pickle.loads(pickle.dumps(again)).hint == error.hint


def test_an_error_of_a_subclass_with_its_own_arguments_too() -> None:
    again = pickle.loads(pickle.dumps(Custom(3, place="here")))
    assert (again.number, again.place, again.message) == (3, "here", "number 3")


class Custom(errors.BackendError):
    def __init__(self, number: int, *, place: str) -> None:
        super().__init__(f"number {number}")
        self.number, self.place = number, place


def test_an_error_of_a_worker_process_reaches_its_parent() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind in KINDS:
            with pytest.raises(kind) as caught:
                pool.submit(fail, kind.__name__).result(60)
            assert caught.value.hint


def test_what_is_too_old_is_not_called_missing() -> None:
    """Such as a langchain of last year. Its error must not say to install what is installed."""
    with pytest.raises(ImportError) as caught:
        exec("from pytest import a_name_of_tomorrow")
    error = errors.MissingExtra.because_of(caught.value, "the feature", "agents")
    assert f"than pytest {pytest.__version__}, which is installed" in error.message
    assert "--upgrade" in error.hint
    for cause in (ModuleNotFoundError(name="no_such_package.part"), ImportError(), ImportError(name="json")):
        error = errors.MissingExtra.because_of(cause, "the feature", "agents")
        assert error.message == "the feature needs an optional dependency"
        assert error.hint == 'pip install "stars-guard[agents]"'


@pytest.mark.parametrize("module", ["langchain", "langgraph"])
def test_the_middleware_says_which_package_is_too_old(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    langchain_stars = pytest.importorskip("langchain_stars")
    pytest.importorskip(module)
    place = {"langchain": "langchain.agents.middleware.types", "langgraph": "langgraph.runtime"}[module]
    monkeypatch.setitem(sys.modules, place, types.ModuleType(place))
    monkeypatch.delitem(sys.modules, "langchain_stars.middleware", raising=False)
    with pytest.raises(errors.MissingExtra, match=f"newer version than {module} ") as caught:
        _ = langchain_stars.StarsGuardMiddleware
    assert "--upgrade" in caught.value.hint


def test_lower_bounds_are_versions_that_work() -> None:
    """Each was the first that did, when all of them were tried; ``make test-oldest`` tries them again."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    bounds = dict(re.findall(r"^([\w.-]+)>=([\d.]+)", "\n".join([*project["dependencies"], *extras]), re.MULTILINE))
    for package, first in {"typer": (0, 19), "anyio": (4, 10), "langchain": (1, 3, 15)}.items():
        assert tuple(map(int, bounds[package].split("."))) >= first
