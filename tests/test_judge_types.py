"""Judges of other packages: found by their entry points, and as much a part of a policy as ours."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import USER, policy, words
from typer.testing import CliRunner

from stars_guard.audit import MemoryStore
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.cli.app import app
from stars_guard.core.segments import Passage
from stars_guard.engines.sharing import Shared
from stars_guard.errors import PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import judge_types, load_policy, policy_schema, resolve_policy
from stars_guard.policy.schema import own_schema_text
from stars_guard.testing.scripted import ScriptedBackend

MODULE = '''
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from pydantic import Field, field_validator

from stars_guard.core.segments import Passage
from stars_guard.scorers import JudgeOptions, Loosening, Rating, Scorer, Strict

closed = []


class Word(Strict):
    name: str = Field(min_length=1)
    harm: float = 1.0


class ToxicityOptions(JudgeOptions):
    """Counts words."""

    free: ClassVar = frozenset({"words", "threads"})
    by_name: ClassVar = frozenset({"words"})
    shared: ClassVar = True

    words: tuple[Word, ...] = Field(min_length=1, strict=False)
    threads: int = 1
    language: str = "en"

    @field_validator("words")
    @classmethod
    def _lower(cls, words: tuple[Word, ...]) -> tuple[Word, ...]:
        if any(word.name != word.name.lower() for word in words):
            raise ValueError("words are written in lower case")
        return words

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        harm = {word.name: word.harm for word in child.words}
        for word in self.words:
            if harm.get(word.name, 0.0) < word.harm:
                yield "words", f"word {word.name!r} counts less"

    async def load(self) -> Scorer:
        return ToxicityScorer(self.words)


class ToxicityScorer(Scorer):
    def __init__(self, words: Sequence[Word]) -> None:
        self.identity = {"kind": "acme/toxicity"}
        self.words = words

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [Rating(sum(word.harm * p.answer.count(word.name) for word in self.words)) for p in passages]

    async def aclose(self) -> None:
        closed.append(self)


class Abstract(JudgeOptions):
    pass


def function(passage):
    return 0.0
'''
ENTRY_POINTS = """
[stars_guard.judges]
acme/toxicity = acme_judges:ToxicityOptions
acme/function = acme_judges:function
acme/abstract = acme_judges:Abstract
acme/broken = acme_judges.missing:Nothing
acme/twice = acme_judges:ToxicityOptions
"""


def install(folder: Path, name: str, entry_points: str) -> None:
    """What `pip install` leaves behind, for a package without files of its own."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "acme_judges.py").write_text(MODULE)
    install(site, "acme_judges", ENTRY_POINTS)
    install(site, "other", "[stars_guard.judges]\nacme/twice = acme_judges:Other\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("stars_guard.policy._judges.JUDGES._loaded", {})
    monkeypatch.setattr("stars_guard.calling.judge_loading._scorers", Shared())
    yield
    sys.modules.pop("acme_judges", None)


def toxicity(**more: Any) -> dict[str, Any]:
    return {"name": "toxic", "type": "acme/toxicity", "words": [{"name": "awful"}], "reject_above": 0.5, **more}


def passage(answer: str) -> Passage:
    return Passage(call_id="c", messages=tuple(USER), accepted="", segment=answer)


async def test_an_installed_judge_judges_without_allow_python() -> None:
    guard = Guard(policy(judges=[toxicity()]), model=ScriptedBackend(words()), audit=MemoryStore())
    done = await guard.generate(USER)
    assert "awful" not in done.text
    record = guard.audit.read()[0]  # type: ignore[attr-defined]
    assert record.scorers["toxic"]["kind"] == "acme/toxicity"
    assert record.totals["rejections"] > 0


def test_its_options_are_part_of_the_policy() -> None:
    loaded = load_policy(policy(judges=[toxicity()]))
    written = loaded.model_dump(mode="json", by_alias=True)
    assert written["judges"][0]["words"] == [{"name": "awful", "harm": 1.0}]
    assert written["judges"][0]["language"] == "en"
    assert load_policy(written) == loaded
    digests = {load_policy(policy(judges=[toxicity(**more)])).sha256 for more in ({}, {"threads": 2}, {"weight": 1.0})}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("words: [{name: a}]\n    langauge: de", "p.yaml:6: judges[0].langauge: unknown key; did you mean `language`?"),
        ("words: [{name: a, harms: 2}]", "p.yaml:5: judges[0].words[0].harms: unknown key; did you mean `harm`?"),
        ("words: [{name: A}]", "p.yaml:5: judges[0].words: words are written in lower case"),
        ("threads: 2", "p.yaml:4: judges[0].words: this key is required"),
        ("words: [{name: a}]\n    threads: two", "p.yaml:6: judges[0].threads: should be a valid integer"),
    ],
)
def test_its_problems_have_file_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "apiVersion: stars-guard/v1\nname: x\njudges:\n"
        f"  - name: t\n    {text}\n    type: acme/toxicity\n    reject_above: 0.5\n"
    )
    with pytest.raises(PolicyError) as info:
        load_policy(path)
    assert str(info.value).replace(f"{tmp_path}/", "") == expected
    checked = CliRunner().invoke(app, ["policy", "check", str(path)])
    assert checked.exit_code == 1
    assert expected in checked.output.replace(f"{tmp_path}/", "").replace("\n", "")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("acme/toxcity", "unknown type 'acme/toxcity'; installed: acme/abstract, "),
        ("acme/toxcity", "; did you mean `acme/toxicity`?"),
        ("acme/function", "should be a class derived from stars_guard.scorers.JudgeOptions"),
        ("acme/abstract", "cannot be used: it has no method load"),
        ("acme/broken", "cannot load the judge 'acme/broken' from acme_judges.missing:Nothing: ModuleNotFoundError"),
        ("acme/twice", "two packages register a judge named 'acme/twice'"),
        (7, "`type` should be a word: acme/abstract, "),
    ],
)
def test_a_type_that_cannot_be_used_is_named(kind: Any, expected: str) -> None:
    with pytest.raises(PolicyError) as info:
        load_policy(policy(judges=[toxicity(type=kind)]))
    assert str(info.value).startswith("policy: judges[0]: ")
    assert expected in str(info.value)


def test_a_checkout_that_was_not_installed_again_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from stars_guard.policy import _judges

    monkeypatch.setattr(type(_judges.JUDGES), "_points", lambda self: {})
    with pytest.raises(PolicyError, match=r"run `pip install -e \.` again"):
        load_policy("default")
    with pytest.raises(PolicyError, match=r"run `pip install -e \.` again"):
        load_policy(policy(judges=[{"name": "x"}]))


def test_the_schema_holds_what_is_installed_and_the_written_one_ours() -> None:
    usable = [name for name in judge_types() if not name.startswith("acme/") or name == "acme/toxicity"]
    schema = policy_schema(usable)
    validator = jsonschema.Draft202012Validator(schema)
    good = json.loads(json.dumps(policy(judges=[toxicity()])))
    assert not list(validator.iter_errors(good))
    for wrong in ({"langauge": "de"}, {"words": []}, {"type": "acme/other"}):
        assert list(validator.iter_errors(json.loads(json.dumps(policy(judges=[toxicity(**wrong)])))))
    assert "ToxicityOptions" in schema["$defs"]
    assert "acme" not in own_schema_text()


PARENT = """\
apiVersion: stars-guard/v1
name: parent
judges:
  - name: toxic
    type: acme/toxicity
    words: [{name: awful, harm: 0.8}, {name: bad}]
    reject_above: 0.5
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("words: [{name: awful, harm: 0.9}]", None),
        ("words: [{name: worse}]", None),
        ("threads: 8", None),
        ("words: [{name: awful, harm: 0.1}]", "judges[0].words: looser than 'parent': word 'awful' counts less"),
        ("language: de", "judges[0].language: looser than 'parent': another judge than the parent's"),
        ("type: patterns", "judges[0].words: unknown key"),
    ],
)
def test_a_child_changes_it_by_its_own_rules(tmp_path: Path, change: str, expected: str | None) -> None:
    (tmp_path / "parent.yaml").write_text(PARENT)
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: ./parent.yaml\nname: child\njudges:\n  - name: toxic\n    {change}\n")
    if expected is None:
        judge: Any = resolve_policy(child).policy.judges[0]
        assert [word.name for word in judge.words][:2] == ["awful", "bad"]
        return
    with pytest.raises(PolicyError) as info:
        load_policy(child)
    assert expected in str(info.value)


async def test_judges_with_the_same_options_are_one_scorer_that_the_last_user_frees() -> None:
    judges = [toxicity(), toxicity(name="again", reject_above=None, weight=1.0, timeout=3.0)]
    one = await load_cascade(load_policy(policy(judges=judges)))
    two = await load_cascade(load_policy(policy(judges=judges[:1])))
    other = await load_cascade(load_policy(policy(judges=[toxicity(threads=2)])))
    scorer = one.judges[0].scorer
    assert one.judges[1].scorer is two.judges[0].scorer is scorer
    assert other.judges[0].scorer is not scorer
    closed: list[Any] = sys.modules["acme_judges"].closed
    await one.aclose()
    await one.aclose()
    assert closed == []
    assert (await two.judge([passage("awful")]))[0].veto == "toxic"
    await two.aclose()
    assert closed == [scorer]
    fresh = await load_cascade(load_policy(policy(judges=judges)))
    assert fresh.judges[0].scorer is not scorer
    await fresh.aclose()
    await other.aclose()
    assert len(closed) == 3


async def test_a_judge_that_fails_to_load_frees_those_before_it() -> None:
    broken = {"name": "own", "type": "python", "call": "no.such:thing", "reject_above": 0.5}
    with pytest.raises(Exception, match=r"no\.such"):
        await load_cascade(load_policy(policy(judges=[toxicity(), broken])), allow_python=True)
    assert len(sys.modules["acme_judges"].closed) == 1


async def test_loading_that_is_cancelled_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_policy(policy(judges=[toxicity()]))
    module = sys.modules["acme_judges"]
    begun, go_on = asyncio.Event(), asyncio.Event()
    load = module.ToxicityOptions.load

    async def slow(self: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await load(self)

    monkeypatch.setattr(module.ToxicityOptions, "load", slow)
    impatient = asyncio.create_task(load_cascade(loaded))
    patient = asyncio.create_task(load_cascade(loaded))
    await begun.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    go_on.set()
    cascade = await patient
    assert module.closed == []
    await cascade.aclose()
    assert len(module.closed) == 1
    begun.clear()
    go_on.clear()
    alone = asyncio.create_task(load_cascade(loaded))
    await begun.wait()
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    go_on.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(module.closed) == 2
