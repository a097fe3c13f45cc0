"""A policy that follows its files: any edits, in any order, and what the log says about them."""

from __future__ import annotations

import copy
import importlib
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.runnables import RunnableLambda

from langchain_stars import ChatStars, guard_runnable
from stars_guard.errors import AuditError, PolicyError, Refused
from stars_guard.policy import LivePolicy, Policy, load_policy

HEAD = "apiVersion: stars-guard/v1\nname: "
ROOT = [f"{HEAD}one\n", f"{HEAD}two\n"]
"""Two versions of the same size."""
CHILD = ["extends: base.yaml\nname: kid\n", "extends: base.yaml\nname: boy\n", "extends: ./other.yaml\nname: kid\n"]
WRONG = [
    "",
    HEAD,
    f"{HEAD}one\nmode: of\n",
    "extends: nothing.yaml\n",
    "extends: p.yaml\n",
    "[",
    "\ufeff\x00",
    "a: \xff",
]
NAMES = ["p.yaml", "base.yaml", "other.yaml"]
FOLDERS = ["v1", "v2"]
EDITS = st.one_of(
    st.tuples(st.sampled_from(["write", "replace"]), st.sampled_from(NAMES), st.sampled_from([*ROOT, *CHILD, *WRONG])),
    st.tuples(st.sampled_from(["delete", "link", "folder"]), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("write"), st.sampled_from([f"{f}/{n}" for f in FOLDERS for n in NAMES]), st.sampled_from(ROOT)),
    st.tuples(st.just("swap"), st.sampled_from(FOLDERS), st.just("")),
)


def edit(folder: Path, how: str, name: str, text: str) -> None:
    """Change one file, and leave its time as it was."""
    path = folder / name
    match how:
        case "write":
            if path.is_dir():
                path.rmdir()
            if not path.parent.is_dir():
                path.parent.mkdir()
            if not path.exists():
                path.unlink(missing_ok=True)
            path.write_bytes(text.encode("latin-1") if "\xff" in text else text.encode())
            os.utime(path, ns=(0, 0))
        case "replace":
            edit(folder, "write", "new", text)
            edit(folder, "delete", name, "")
            (folder / "new").replace(path)
        case "delete":
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            path.unlink(missing_ok=True)
        case "link":
            edit(folder, "delete", name, "")
            path.symlink_to(Path("..data") / name)
        case "folder":
            edit(folder, "delete", name, "")
            path.mkdir()
        case "swap":
            (folder / name).mkdir(exist_ok=True)
            (folder / "..new").symlink_to(name)
            (folder / "..new").replace(folder / "..data")


@contextmanager
def log_of_policies() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("stars_guard.policy")
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ROOT), st.lists(EDITS, max_size=25))
def test_the_last_valid_version_on_disk_is_current(first: str, edits: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name, log_of_policies() as log:
        folder = Path(name)
        edit(folder, "swap", "v1", "")
        edit(folder, "write", "p.yaml", first)
        live = LivePolicy(folder / "p.yaml", interval=0)
        expected = load_policy(folder / "p.yaml")
        for change in edits:
            edit(folder, *change)
            valid = True
            try:
                expected = load_policy(folder / "p.yaml")
            except PolicyError:
                valid = False
            log.clear()
            assert live.current == expected, change
            assert len(log) <= 1
            assert valid or all(record.levelno == logging.WARNING for record in log)
            assert live.current is live.current
            assert len(log) <= 1


def test_a_parent_that_appears_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}one\n")
    live = LivePolicy(str(path), interval=0)
    path.write_text("extends: base.yaml\nname: two\n")
    assert [live.current.name for _ in range(3)] == ["one"] * 3
    assert caplog.text.count("base.yaml: cannot read the policy") == 1
    (tmp_path / "base.yaml").write_text(f"{HEAD}base\n")
    assert live.current.name == "two"


def test_a_mapping_follows_what_it_extends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(f"{HEAD}base\ndescription: old\n")
    Path("p.yaml").write_text("extends: base.yaml\n")
    follow = [LivePolicy({"extends": "base.yaml"}, interval=0), LivePolicy("p.yaml", interval=0)]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "base.yaml").write_text(f"{HEAD}base\ndescription: new\n")
    assert [live.current.description for live in follow] == ["new", "new"]
    fixed = load_policy("default")
    assert LivePolicy(fixed, interval=0).current is fixed


def test_a_model_keeps_the_file_that_its_path_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing was read before the working directory changed, and in copies."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "base.yaml").write_text(f"{HEAD}base\ndescription: {folder}\n")
        (tmp_path / folder / "p.yaml").write_text("extends: base.yaml\n")
    monkeypatch.chdir(tmp_path / "here")
    models = [ChatStars(policy=source) for source in ("p.yaml", "./p.yaml", Path("p.yaml"), {"extends": "base.yaml"})]
    monkeypatch.chdir(tmp_path / "there")
    models += [copy.deepcopy(model) for model in models] + [model.model_copy(update={"seed": 1}) for model in models]
    assert {model._current_policy({}).description for model in models} == {"here"}
    assert ChatStars(policy="p.yaml")._current_policy({}).description == "there"


def test_a_version_that_cannot_be_used_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, down = tmp_path / "p.yaml", True

    def usable(policy: Policy) -> None:
        if down:
            raise AuditError("the log is down") if policy.name == "two" else ValueError("sk-secret")

    path.write_text(f"{HEAD}one\n")
    live = LivePolicy(path, interval=0, usable=usable)
    path.write_text(f"{HEAD}two\n")
    assert [live.current.name for _ in range(3)] == ["one"] * 3
    path.write_text(f"{HEAD}three\n")
    assert [live.current.name for _ in range(3)] == ["one"] * 3
    assert [record.getMessage().partition("\n")[2] for record in caplog.records] == ["the log is down", "ValueError"]
    down = False
    assert live.current.name == "three"


HTTP = "judges: [{{name: j, type: http, url: 'http://a.example', body: {{x: '{body}'}}, score: '{score}', weight: 1}}]"
MODEL = "judges: [{{name: j, type: {type}, model: embedded, template: '{template}', reject_above: 0.5}}]"
NO_CATS = "{name: cats, type: patterns, patterns: [{name: cats, regex: cats}], reject_above: 0.5}"
UNUSABLE = {
    "a bad JMESPath": HTTP.format(body="{answer}", score="a["),
    "an unknown function": HTTP.format(body="{answer}", score="nope(a)"),
    "a body without the answer": HTTP.format(body="fixed", score="a"),
    "a bad template": MODEL.format(type="guard_model", template="{{ x"),
    "a bad format": MODEL.format(type="sequence_classifier", template="{prompt"),
    "a bad pattern": "judges: [{name: j, type: patterns, patterns: [{name: a, regex: '('}]}]",
    "a bad condition": "rails: {tool_call: {rules: [{name: a, tools: [x], when: 'args.(', action: reject}]}}",
    "code that may not run": "judges: [{name: j, type: python, call: 'os:getcwd', reject_above: 0.5}]",
    "code in a rail": "rails: {input: {judges: [{name: j, type: python, call: 'os:getcwd', reject_above: 0.5}]}}",
    "a log that is nowhere": "audit: {url: 'nothing://here'}",
}


@pytest.mark.parametrize("wrong", UNUSABLE.values(), ids=UNUSABLE)
def test_a_call_goes_on_under_the_last_version_that_can_be_used(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("stars_guard.policy._hot_reload.time", SimpleNamespace(monotonic=lambda: next(clock)))
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}one\n")
    model = ChatStars(policy=path)
    first = model._guard({})
    path.write_text(f"{HEAD}two\n{wrong}\n")
    assert [model._guard({}) is first for _ in range(3)] == [True] * 3
    path.write_text(f"{HEAD}three\n")
    assert model._guard({}).policy.name == "three"


MISSING = {
    "a module": "{type: python, call: 'nowhere_at_all:judge'}",
    "a module in a package": "{type: python, call: 'os.nowhere:judge'}",
    "a name": "{type: python, call: 'os:nowhere'}",
    "what is no judge": "{type: python, call: 'os:sep'}",
    "a factory's keyword": "{type: python, call: 'fractions:Fraction', options: {nope: 1}}",
    "a classifier": "{type: sequence_classifier, model: ./nowhere}",
    "a guard model": "{type: guard_model, model: ./nowhere, preset: llama-guard-3}",
    "a probe": "{type: probe, probe: ./nowhere.json}",
}
PLACES = {
    "answers": "judges: [%s]",
    "the input": "rails: {input: {judges: [%s]}}",
    "tool calls": "rails: {tool_call: {judges: [%s]}}",
    "tool results": "rails: {tool_result: {judges: [%s]}}",
}


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the files, and each try to load, is due."""
    clock = itertools.count(0, 100)
    for module in ("stars_guard.policy._hot_reload", "langchain_stars._guards"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: next(clock)))


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize(
    ("missing", "place"),
    [(missing, place) for missing in MISSING for place in PLACES if missing != "a probe" or place == "answers"],
)
def test_a_judge_that_cannot_be_loaded_leaves_the_last_good_version(
    missing: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}one\nrails: {{input: {{judges: [{NO_CATS}]}}}}\n")
    judge = MISSING[missing].replace("{", "{name: j, reject_above: 0.5, ", 1)
    with guard_runnable(RunnableLambda(str.upper), path, audit="memory://", allow_python=True) as chain:
        assert chain.invoke("dogs") == "DOGS"
        path.write_text(f"{HEAD}two\n{PLACES[place] % judge}\n")
        tries = 0
        while tries < 4 or (tries < 5000 and not caplog.records):
            tries += 1
            time.sleep(0.01)
            assert chain.invoke("dogs") == "DOGS"
            with pytest.raises(Refused):
                chain.invoke("cats")
        assert caplog.text.count("the last good one stays") == 1
        path.write_text(f"{HEAD}three\n")
        assert chain.invoke("cats") == "CATS"


@pytest.mark.usefixtures("ticking")
async def test_what_is_missing_may_arrive_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}one\n")
    async with guard_runnable(RunnableLambda(str.upper), path, audit="memory://", allow_python=True) as chain:
        assert await chain.ainvoke("cats") == "CATS"
        judge = "{name: j, type: python, call: 'comes_later:judge', reject_above: 0.5}"
        path.write_text(f"{HEAD}two\nrails: {{input: {{judges: [{judge}]}}}}\n")
        assert await chain.ainvoke("cats") == "CATS"
        (tmp_path / "comes_later.py").write_text("def judge(passage):\n    return 'cats' in passage.segment\n")
        importlib.invalidate_caches()
        for _ in range(200):
            with suppress(Refused):
                await chain.ainvoke("cats")
        with pytest.raises(Refused):
            await chain.ainvoke("cats")
        assert await chain.ainvoke("dogs") == "DOGS"


def test_files_are_looked_at_once_an_interval(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{HEAD}one\n")
    live = LivePolicy(path, interval=3600)
    path.write_text(f"{HEAD}two\n")
    assert live.current.name == "one"


def test_paths_that_no_system_takes_are_policy_errors(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path in (tmp_path / "loop.yaml", tmp_path / "a\0.yaml", tmp_path / ("x" * 300), tmp_path):
        with pytest.raises(PolicyError, match="cannot read the policy"):
            load_policy(path)
    with pytest.raises(PolicyError, match="no policy named"):
        load_policy("x" * 300)
