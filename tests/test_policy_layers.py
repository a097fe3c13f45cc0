"""Policies on top of policies, environment variables, and the loader under mutated files."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stars_guard.cli.app import app
from stars_guard.errors import PolicyError
from stars_guard.policy import Policy, load_policy, resolve_policy, shipped_policies
from stars_guard.policy.cases import load_cases
from stars_guard.policy.schema import policy_schema

BASE = """\
apiVersion: stars-guard/v1
name: base
decoding: {attempts: 4, on_exhausted: refuse}
judges:
  - name: words
    type: patterns
    patterns:
      - {name: bomb, regex: bomb}
  - name: toxic
    type: sequence_classifier
    model: some/model
    label: toxic
    reject_above: 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def child(folder: Path, text: str, name: str = "child") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"extends: base.yaml\n{text}")
    return path


def problems(path: Path) -> str:
    with pytest.raises(PolicyError) as info:
        load_policy(path)
    return str(info.value).replace(str(path.parent.resolve()) + "/", "").replace(str(path.parent) + "/", "")


def test_a_child_changes_what_it_names(folder: Path) -> None:
    path = child(
        folder,
        "name: child\ndecoding: {attempts: 9}\njudges:\n"
        "  - {name: toxic, reject_above: 0.2}\n"
        "  - {name: words, patterns: [{name: knife, regex: knife}]}\n"
        "  - {name: more, type: patterns, patterns: [{name: gun, regex: gun}]}\n",
    )
    policy = load_policy(path)
    assert (policy.name, policy.decoding.attempts, policy.decoding.on_exhausted) == ("child", 9, "refuse")
    words, toxic, more = policy.judges
    assert [p.name for p in words.patterns] == ["bomb", "knife"]  # type: ignore[union-attr]
    assert (toxic.name, toxic.reject_above, toxic.model) == ("toxic", 0.2, "some/model")  # type: ignore[union-attr]
    assert more.name == "more"
    validator = jsonschema.Draft202012Validator(policy_schema())
    assert not list(validator.iter_errors(YAML(typ="safe").load(path.read_text())))


def test_a_shipped_name_can_be_extended(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: strict\nname: mine\n")
    assert load_policy(tmp_path / "mine.yaml").judges == load_policy("strict").judges
    assert load_policy({"extends": "strict", "name": "x"}).decoding == load_policy("strict").decoding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: monitor\n", "child.yaml:2: mode: looser than 'base': enforce -> monitor"),
        (
            "decoding:\n  on_exhausted: best\n",
            "child.yaml:3: decoding.on_exhausted: looser than",
        ),
        ("decoding: {method: vanilla}\n", "decoding.method: looser"),
        ("judges:\n  - name: toxic\n    reject_above: 0.7\n", "child.yaml:4: judges[1].reject_above: looser"),
        (
            "judges: [{name: toxic, reject_above: null, weight: -1.0}]\n",
            "looser than 'base': 0.5 -> None",
        ),
        ("judges: [{name: toxic, on_error: ignore}]\n", "on_error: looser than 'base': reject -> ignore"),
        ("judges: [{name: toxic, model: other}]\n", "judges[1].model: looser than 'base': another judge"),
        ("judges: [{name: words, patterns: [{name: bomb, regex: bombast}]}]\n", "pattern 'bomb' is not the parent's"),
    ],
)
def test_loosening_needs_a_word(folder: Path, text: str, expected: str) -> None:
    told = problems(child(folder, text))
    assert expected in told
    assert "override: true" in told
    if "judges" in text:
        name = "words" if "words" in text else "toxic"
        allowed = (
            text.replace(f"name: {name}", f"name: {name}, override: true")
            if "[{" in text
            else (text + "    override: true\n")
        )
        wrong = "override: true\n" + text
        assert expected in problems(child(folder, wrong)).replace("child.yaml:5", "child.yaml:4")
    else:
        allowed = "override: true\n" + text
    resolved = resolve_policy(child(folder, allowed))
    assert len(resolved.loosened) == 1
    again = folder / "grandchild.yaml"
    again.write_text("extends: child.yaml\n")
    assert resolve_policy(again).loosened == resolved.loosened


def test_cycles_and_missing_parents_are_named(folder: Path) -> None:
    (folder / "base.yaml").write_text("extends: ./child.yaml\n")
    assert problems(child(folder, "")).endswith("policies extend each other: child.yaml -> base.yaml -> child.yaml")
    (folder / "a.yaml").write_text("extends: strickt\n")
    assert problems(folder / "a.yaml") == (
        "a.yaml:1: extends: there is no policy named 'strickt' (did you mean 'strict'?)"
    )
    (folder / "a.yaml").write_text("name: a\nextends: [x]\n")
    assert problems(folder / "a.yaml") == "a.yaml:2: extends: should be a policy's name or path"
    for number in range(12):
        (folder / f"n{number}.yaml").write_text(f"extends: n{number + 1}.yaml\n")
    assert "more than 8 policies" in problems(folder / "n0.yaml")


def test_problems_name_the_layer_they_are_in(folder: Path) -> None:
    assert problems(child(folder, "decoding:\n  beta: 0\n  attempt: 3\n")).splitlines() == [
        "child.yaml:3: decoding.beta: should be greater than 0",
        "child.yaml:4: decoding.attempt: unknown key; did you mean `attempts`?",
    ]
    assert problems(child(folder, "override: maybe\n")) == "child.yaml:2: override: should be true or false"


def test_environment_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "decoding: {attempts: ${TRIES:-7}, beta: ${BETA:-0.25}}\njudges:\n  - {name: toxic, revision: '${REV}'}\n"
    path = child(folder, text.replace("{attempts", "{\n  attempts"), "env")
    (folder / "env.yaml").write_text(
        "extends: base.yaml\ndecoding:\n  attempts: ${TRIES:-7}\n  beta: ${BETA:-0.25}\n"
        "name: '${WHO:-x}-$${WHO}'\ndescription: ${TEXT}\n"
    )
    assert problems(path) == ("env.yaml:6: description: the environment has no TEXT; set it or write ${TEXT:-default}")
    monkeypatch.setenv("TEXT", "a: b # c")
    policy = load_policy(path)
    assert (policy.decoding.attempts, policy.decoding.beta) == (7, 0.25)
    assert (policy.name, policy.description) == ("x-${WHO}", "a: b # c")
    monkeypatch.setenv("TRIES", "12")
    assert load_policy(path).decoding.attempts == 12
    monkeypatch.setenv("TRIES", "sk-secret")
    told = problems(path)
    assert told == "env.yaml:3: decoding.attempts: the value of ${TRIES} is not valid"
    assert load_policy({**load_policy("default").model_dump(mode="json", by_alias=True), "name": "${X}"}).name == "${X}"


def test_show_tells_where_values_come_from_and_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_REV", "sk-secret")
    path = child(
        folder, "override: true\nmode: monitor\njudges:\n  - {name: toxic, override: true, revision: '${MODEL_REV}'}\n"
    )
    shown = CliRunner().invoke(app, ["policy", "show", str(path)])
    assert shown.exit_code == 0
    text = shown.output.replace(str(folder) + "/", "")
    assert (
        "mode: monitor  # child.yaml:3" in text.replace("    #", " #").replace("   #", "  #") or "child.yaml:3" in text
    )
    assert "${MODEL_REV}" in text
    assert "sk-secret" not in text
    assert text.count("# loosened") == 2
    assert load_policy(YAML(typ="safe").load(shown.output)).mode == "monitor"


def test_commands(folder: Path) -> None:
    run = CliRunner().invoke
    good, bad = str(child(folder, "mode: enforce\n")), str(child(folder, "mode: of\n", "bad"))
    done = run(app, ["policy", "check", good, bad])
    assert done.exit_code == 1
    assert "valid (" in done.output
    assert "bad.yaml:2: mode: should be 'enforce', 'monitor' or 'off'; did you mean `off`?" in done.output
    assert run(app, ["policy", "check", *shipped_policies()]).exit_code == 0
    assert run(app, ["policy", "diff", "default", "default"]).exit_code == 0
    differs = run(app, ["policy", "diff", "strict", "default"])
    assert differs.exit_code == 1
    assert "decoding.r_star" in differs.output
    assert "default is looser: decoding.on_exhausted: refuse -> best" in differs.output
    assert run(app, ["policy", "schema"]).output == (shipped_policies()["default"].parent / "schema.json").read_text()


def test_unit_tests_of_a_policy(folder: Path) -> None:
    (folder / "words.yaml").write_text(BASE.partition("  - name: toxic")[0])
    cases = folder / "cases.yaml"
    good = "cases:\n  - {name: hit, prompt: p, answer: a bomb, expect: vetoed, judges: {words: vetoes}}\n"
    cases.write_text(good + "  - {prompt: p, answer: fine, expect: allowed, judges: {words: {below: 0.5}}}\n")
    done = CliRunner().invoke(app, ["policy", "test", str(cases), "--policy", str(folder / "words.yaml")])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "2 passed, 0 failed")
    cases.write_text(
        good + "  - {prompt: p, answer: fine, expect: vetoed, reward: {above: 1}, judges: {words: vetoes, x: allows}}\n"
    )
    done = CliRunner().invoke(app, ["policy", "test", str(cases), "--policy", str(folder / "words.yaml")])
    assert done.exit_code == 1
    for text in (
        "no judge vetoes",
        "reward: no judge gives one",
        "words: allows at 0",
        "no such judge; it has words",
        "1 failed",
    ):
        assert text in done.output
    cases.write_text("cases:\n  - {prompt: p, answer: x}\n  - {prompt: p, answer: x, expect: maybe}\n")
    with pytest.raises(PolicyError) as info:
        load_cases(cases)
    assert "cases.yaml:2: cases[0]: give expect, reward or judges" in str(info.value)
    assert "cases.yaml:3: cases[1].expect" in str(info.value)


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(), "more than 20000 values"),
        ("name: !!python/object/apply:os.system ['true']\n", "tags are not supported"),
        ("name: !!python/name:os.system\n", "tags are not supported"),
        ("decoding: !!python/dict {a: 1}\n", "tags are not supported"),
        ("[" * 5000, "p.yaml"),
        ("a: " + "x" * 1_000_001, "larger than"),
    ],
)
def test_hostile_files_are_refused_at_once(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    assert expected in problems(tmp_path / "p.yaml")


SEEDS = [BASE, "extends: default\nname: x\n", *(path.read_text() for path in shipped_policies().values())]
PIECES = [
    *("\n", " ", "  ", ":", "- ", "&a ", "*a", "<<: *a", "!!int ", "!x ", "'", '"', "{", "}", "[", "]", "|", ">", "#"),
    *("null", "1e999", ".nan", "${A}", "${A:-1}", "0o7", "2001-99-99", "\t", "\x00", "\ufeff", "%YAML 1.1\n", "---\n"),
    *("...\n", "? ", "~", "=", "\U0001f642"),
]

VALUES = [
    *(
        "2001-99-99",
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "!!binary x",
        "!!set x",
        "!!null x",
        "!!bool 7",
        "0o9",
        "0b2",
    ),
    *(
        "1e999",
        "-.inf",
        ".nan",
        "9" * 400,
        "*none",
        "&x *x",
        "${A:-1}",
        "${",
        "null",
        "[]",
        "{}",
        "{[]: 1}",
        "? x",
        "''",
    ),
    *("1:60:60", "1_000", "+12e03", "\U0001f642", "{<<: 1}", "{<<: *a}", "2001-01-01t99:99:99z", "~"),
]


def mutated(rng: random.Random) -> str:
    text = rng.choice(SEEDS)
    for _ in range(rng.randint(1, 6)):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        end = min(end, at + 40)
        match rng.randrange(6):
            case 0:
                text = text[:at] + text[end:]
            case 1:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 2:
                text = text[:end] + text[at:end] + text[end:]
            case 3 | 4:
                # most of what is put anywhere is no YAML; a value is read by the code behind the parser
                places = [match.end() for match in re.finditer(r": (?=\S)|^- |\[|, ", text, re.MULTILINE)]
                at = rng.choice(places or [0])
                text = text[:at] + rng.choice(VALUES) + re.sub(r"^[^\s,\]}]*", "", text[at:])
            case _:
                lines = text.split("\n")
                rng.shuffle(lines[: rng.randrange(len(lines) + 1)])
                i = rng.randrange(len(lines))
                lines[i] = " " * rng.randrange(6) + lines[i].lstrip()
                text = "\n".join(lines)
    return text


@given(st.integers(0, 2**63))
def test_any_text_is_a_policy_or_a_policy_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    for _ in range(10):
        path.write_text(mutated(rng), encoding="utf-8")
        with contextlib.suppress(PolicyError):
            assert isinstance(load_policy(path), Policy)


@pytest.mark.parametrize("method", ["vanilla", "best_of_n", "blockwise_best_of_k"])
def test_a_method_that_never_goes_back_does_not_inherit_going_back(method: str) -> None:
    parent = load_policy("default")
    assert parent.decoding.rewinds > 0
    child = {"extends": "default", "name": "child", "override": True, "decoding": {"method": method}}
    assert load_policy(child).decoding == parent.decoding.model_copy(
        update={"method": method, "rewinds": 0, "best_at_least": None}
    )
    with pytest.raises(PolicyError, match=f"rewinds isn't supported by the method {method}"):
        load_policy({**child, "decoding": {"method": method, "rewinds": 1}})
    again = load_policy({"extends": "default", "name": "child", "decoding": {"method": "cards"}, "override": True})
    assert again.decoding.rewinds == parent.decoding.rewinds
