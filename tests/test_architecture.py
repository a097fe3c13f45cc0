"""The shape of the house, checked."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import printed_by

import langchain_stars
import stars_guard
from stars_guard import errors
from stars_guard.guard import Blocking, Guard

REPOSITORY = Path(__file__).parent.parent
SOURCES = [*(REPOSITORY / "stars_guard").rglob("*.py"), *(REPOSITORY / "integrations").rglob("*.py")]
STANDARD = {"__future__", "abc", "collections", "dataclasses", "hashlib", "json", "math", "numbers", "re", "typing"}
PURE = {
    "core": STANDARD
    | {"bisect", "difflib", "functools", "importlib", "ipaddress", "itertools", "re2", "types", "unicodedata"}
    # encodings, and of urllib its parser
    | {"base64", "binascii", "codecs", "html", "urllib"}
    | {"stars_guard.core", "stars_guard.errors"},
    "decoding": STANDARD
    | {
        "bisect",
        "inspect",
        "itertools",
        "pydantic",
        "pydantic_core",
        "stars_guard.core",
        "stars_guard.decoding",
        "stars_guard.errors",
    },
    "rules": STANDARD
    | {"cel_expr_python", "contextlib", "contextvars", "decimal", "functools", "idna", "json", "math"}
    | {"pydantic", "struct", "urllib", "stars_guard.core", "stars_guard.errors", "stars_guard.rules"}
    | {
        "stars_guard.concealing",
        "array",
        "base64",
        "binascii",
        "codecs",
        "datetime",
        "html",
        "itertools",
        "threading",
        "unicodedata",
    },
}
"""What the rooms that decide may import: no torch, no httpx, no clock, no randomness of their own."""


def room_of(module: str) -> str:
    """``stars_guard.room`` of ours, the top package of others."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "stars_guard" else parts[0]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {room_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(room_of(node.module or ""))
    return found


@pytest.mark.parametrize("room", PURE)
def test_the_rooms_that_decide_are_pure(room: str) -> None:
    modules = [*(REPOSITORY / "stars_guard" / room).glob("*.py")]
    assert modules
    assert {path.name: imports_of(path) - PURE[room] for path in modules} == {path.name: set() for path in modules}


def test_nothing_lies_loose_at_the_top() -> None:
    assert {path.name for path in (REPOSITORY / "stars_guard").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "guard.py",
    }


def test_private_modules_stay_in_their_room() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            room, _, private = node.module.rpartition("._")
            if private:
                home = str(path.with_suffix("")).replace("/", ".")
                assert f"{room}." in f"{home}.", f"{path} imports {node.module}"


@pytest.mark.parametrize("package", ["stars_guard", "stars_guard.guard", "stars_guard.cli"])
def test_imports_are_light(package: str) -> None:
    code = (
        f"import sys, {package};"
        "print([m for m in ('torch', 'transformers', 'vllm', 'langchain_core') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_a_model_and_a_chain_need_no_agents() -> None:
    """Neither LangChain's agents nor LangGraph, which come with the extra ``agents``; the middleware names it."""
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("langchain", "langgraph"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
import langchain_stars
from langchain_core.messages import AIMessage
from stars_guard.errors import MissingExtra
words = {"name": "words", "type": "patterns", "patterns": [{"name": "never", "regex": "never"}], "reject_above": 0.5}
rails = {"input": {"judges": [words]}}
policy = {"apiVersion": "stars-guard/v1", "name": "plain", "rails": rails}
guarded = langchain_stars.guard_runnable(lambda said: AIMessage(f"you said {said}"), policy, audit="memory://")
print(guarded.invoke("hi").text, langchain_stars.ChatStars().policy)
try:
    langchain_stars.StarsGuardMiddleware
except MissingExtra as exc:
    print(exc)
"""
    answer, error = printed_by(code).splitlines()
    assert answer == "you said hi default"
    assert "stars-guard[agents]" in error


def test_exported_names_exist() -> None:
    for package in (stars_guard, langchain_stars):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if info.name.endswith("__main__"):
                continue
            module = importlib.import_module(info.name)
            assert all(hasattr(module, name) for name in module.__all__), info.name
    assert all(getattr(stars_guard, name) is not None for name in stars_guard.__all__)
    with pytest.raises(AttributeError):
        stars_guard.nothing  # noqa: B018


def test_sync_and_async_doors_are_alike() -> None:
    # what makes another guard or reads an attribute needs no loop, and so no second door
    doors = {name: name for name in vars(Guard) if not name.startswith("_")} | {"aclose": "close"}
    for apart in ("audit", "check_tools", "under"):
        del doors[apart]
    assert set(doors.values()) == {name for name in vars(Blocking) if not name.startswith("_")}
    assert "__aenter__" in vars(Guard)
    assert "__enter__" in vars(Blocking)
    for ours_name, theirs_name in doors.items():
        ours = inspect.signature(getattr(Guard, ours_name)).parameters
        theirs = inspect.signature(getattr(Blocking, theirs_name)).parameters
        assert list(ours) == list(theirs)
        assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


def test_every_error_is_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    for name in errors.__all__:
        assert name in tree
        assert issubclass(getattr(errors, name), errors.StarsGuardError)


def test_files_are_short() -> None:
    long = {str(path): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_the_wheel_holds_policies_models_and_types(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "stars_guard/_policies/default.yaml",
        "stars_guard/_policies/strict.yaml",
        "stars_guard/_policies/monitor.yaml",
        "stars_guard/prompting/guard_formats/llama-guard-3.yaml",
        "stars_guard/engines/_embedded_reward/trained.safetensors",
        "stars_guard/audit/viewer/static/page.css",
        "stars_guard/audit/viewer/templates/base.html",
        "stars_guard/py.typed",
        "langchain_stars/__init__.py",
        "langchain_stars/py.typed",
    } <= names
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks"))]


def test_a_closed_vocabulary_is_written_once() -> None:
    places: dict[frozenset[str], list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                words = frozenset(one.value for one in ast.walk(node.slice) if isinstance(one, ast.Constant))
                places.setdefault(words, []).append(f"{path.name}:{node.lineno}")
    assert len(places) > 40
    assert not {words: where for words, where in places.items() if len(words) > 1 and len(where) > 1}


def test_public_dataclasses_take_few_values_by_place() -> None:
    found = {}
    for name in stars_guard.__all__:
        made = getattr(stars_guard, name)
        if inspect.isclass(made) and dataclasses.is_dataclass(made):
            found[name] = [field.name for field in dataclasses.fields(made) if field.init and not field.kw_only]
    assert {"Finished", "OpenRequest", "Message", "Token"} <= found.keys()
    assert {name: fields for name, fields in found.items() if len(fields) > 2} == {}
