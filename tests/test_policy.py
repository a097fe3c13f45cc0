"""Policies: what is accepted, and what a reader is told when one is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import printed_by
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stars_guard.cli.app import app
from stars_guard.core.sampling import Sampling
from stars_guard.errors import PolicyError
from stars_guard.policy import Policy, load_policy, shipped_policies, tree
from stars_guard.policy.schema import own_schema_text, policy_schema
from stars_guard.scorers.patterns import PatternsOptions
from stars_guard.scorers.sequence_classifier import SequenceClassifierOptions

REPOSITORY = Path(__file__).parent.parent


def minimal(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "stars-guard/v1", "name": "mine", **more}


def patterns(*regexes: str, **more: Any) -> dict[str, Any]:
    listed = [{"name": f"p{index}", "regex": regex} for index, regex in enumerate(regexes)]
    return {"name": "words", "type": "patterns", "patterns": listed, **more}


def problems(source: Any) -> str:
    with pytest.raises(PolicyError) as info:
        load_policy(source)
    return str(info.value)


def problems_in(folder: Path, text: str) -> str:
    path = folder / "p.yaml"
    path.write_text(text)
    return problems(path).replace(str(path), "p.yaml")


@pytest.mark.parametrize("name", ["default", "monitor", "strict"])
def test_shipped_policies_load_by_name_and_by_path(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy == load_policy(shipped_policies()[name]) == load_policy(str(shipped_policies()[name]))
    kinds = {judge.name: type(judge) for judge in policy.judges}
    assert kinds == {"secrets": PatternsOptions, "harmlessness": SequenceClassifierOptions}


GUARDS = {
    "llama-guard": ("llama-guard-3", "STARS_GUARD_LLAMA_GUARD"),
    "qwen3guard": ("qwen3guard", "STARS_GUARD_QWEN3GUARD"),
}


@pytest.mark.parametrize("name", shipped_policies())
def test_shipped_policies_say_what_they_are_for_and_pass_their_cases(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # their own models are on a model hub
    monkeypatch.setenv("STARS_GUARD_HH_REWARD", "embedded:reward")
    if name in GUARDS:
        from guard_models import random_guard

        preset, variable = GUARDS[name]
        random_guard(preset, request.getfixturevalue("embedded_model"), tmp_path)
        monkeypatch.setenv(variable, str(tmp_path))
    opening = shipped_policies()[name].read_text().partition("# yaml-language-server")[0]
    assert opening.startswith("# For ")
    assert "# Does not stop: " in opening
    assert load_policy(name).name == name
    cases = REPOSITORY / "tests" / "policy_cases" / f"{name}.yaml"
    done = CliRunner().invoke(app, ["policy", "test", str(cases), "--policy", name])
    assert done.exit_code == 0, done.output


def test_strict_is_stricter_and_monitor_only_watches() -> None:
    default, strict, monitor = map(load_policy, ("default", "strict", "monitor"))
    assert strict.decoding.r_star > default.decoding.r_star
    assert strict.decoding.beta < default.decoding.beta
    assert (default.decoding.on_exhausted, strict.decoding.on_exhausted) == ("best", "refuse")
    assert (default.mode, strict.mode, monitor.mode) == ("enforce", "enforce", "monitor")
    assert monitor.decoding == default.decoding


def test_the_written_schema_is_current() -> None:
    path = REPOSITORY / "policies" / "schema.json"
    assert path.read_text() == own_schema_text(), "write policies/schema.json again from own_schema_text()"


@pytest.mark.parametrize("path", shipped_policies().values(), ids=lambda path: path.stem)
def test_shipped_policies_fit_the_schema(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(policy_schema())
    data = json.loads(json.dumps(YAML(typ="safe").load(path.read_text())))
    assert not list(validator.iter_errors(data))
    assert list(validator.iter_errors({**data, "mdoe": "off"}))


def test_defaults() -> None:
    policy = load_policy(minimal())
    assert policy.mode == "enforce"
    assert policy.decoding.model_dump() == {
        "method": "stars",
        "segment_tokens": 16,
        "max_tokens": 512,
        "attempts": 8,
        "alpha": 0.5,
        "beta": 0.3,
        "r_star": 1.0,
        "schedule": "linear",
        "thresholds": (),
        "acceptance": "gibbs",
        "parallel": "auto",
        "on_exhausted": "best",
        "budget_tokens": None,
        "optimistic": True,
        "best_at_least": None,
        "hold_tokens": 0,
        "rewinds": 0,
        "recovery": None,
        "entropy_threshold": 3.0,
    }
    assert policy.sampling.to_sampling() == Sampling()
    assert policy.refusal.message == "I can't help with that."
    assert (policy.audit.url, policy.audit.content) == (None, "full")
    assert load_policy(policy) is policy


def test_judge_defaults() -> None:
    policy = load_policy(
        minimal(judges=[patterns("a"), {"name": "r", "type": "sequence_classifier", "model": "m", "weight": 1}])
    )
    words, reward = policy.judges
    assert (words.reject_above, words.weight, words.on_error, words.timeout) == (0.0, None, "reject", 30.0)
    assert isinstance(reward, SequenceClassifierOptions)
    assert (reward.reject_above, reward.max_length, reward.batch_size, reward.label) == (None, None, 32, None)


def test_flags_are_folded_into_the_regex() -> None:
    judge = patterns(r"a|b\.c")
    judge["patterns"][0]["flags"] = "is"
    policy = load_policy(minimal(judges=[judge]))
    words = policy.judges[0]
    assert isinstance(words, PatternsOptions)
    assert (words.patterns[0].regex, words.patterns[0].flags) == (r"(?is:a|b\.c)", "")
    assert load_policy(policy.model_dump(mode="json", by_alias=True)) == policy


def test_every_problem_is_listed_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    text = """\
apiVersion: stars-guard/v1
name: bad
mode: enforced
segment_tokens: 4
decoding:
  segment_token: 16
  attempts: true
  parallel: some
  beta: 0
  max_tokens: "20"
judges:
  - name: a
    type: patterns
    patterns:
      - name: x
        regex: "(a"
        flag: i
  - name: b
    type: sequence_clasifier
  - name: c
    type: sequence_classifier
    modle: x
    template: "{question}"
  - type: sequence_classifier
    name: d
    model: m
  - name: q
audit: full
zzz: 1
"""
    assert problems_in(tmp_path, text).splitlines() == [
        "p.yaml:3: mode: should be 'enforce', 'monitor' or 'off'; did you mean `enforce`?",
        "p.yaml:4: segment_tokens: unknown key; did you mean `decoding.segment_tokens`?",
        "p.yaml:6: decoding.segment_token: unknown key; did you mean `segment_tokens`?",
        "p.yaml:7: decoding.attempts: should be a valid integer or a list",
        "p.yaml:8: decoding.parallel: should be 'auto' or a valid integer",
        "p.yaml:9: decoding.beta: should be greater than 0",
        "p.yaml:10: decoding.max_tokens: should be a valid integer",
        "p.yaml:16: judges[0].patterns[0].regex: not a valid RE2 expression: missing ): (a",
        "p.yaml:17: judges[0].patterns[0].flag: unknown key; did you mean `flags`?",
        "p.yaml:18: judges[1]: unknown type 'sequence_clasifier'; installed: guard_model, guard_stream, hidden_text, http, injection, paths, patterns, pii, probe, python, sequence_classifier, shell, sql, urls, vllm_pooling; did you mean `sequence_classifier`?",  # noqa: E501
        "p.yaml:20: judges[2].model: this key is required",
        "p.yaml:22: judges[2].modle: unknown key; did you mean `model`?",
        "p.yaml:23: judges[2].template: only {prompt} and {answer} can be filled in; write {{ and }} for plain braces",
        "p.yaml:24: judges[3]: give the judge a weight (it rewards), reject_above (it vetoes), or both",
        "p.yaml:27: judges[4]: `type` is required: guard_model, guard_stream, hidden_text, http, injection, paths, patterns, pii, probe, python, sequence_classifier, shell, sql, urls, vllm_pooling",  # noqa: E501
        "p.yaml:28: audit: should be a mapping of keys to values",
        "p.yaml:29: zzz: unknown key; valid here: apiVersion, name, description, mode, decoding, sampling, judges, rails, refusal, audit, shadow, extends, override",  # noqa: E501
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", 'p.yaml:2: duplicate key "a"'),
        ("a: [1\nb: 2\n", "p.yaml:2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: \x07\n", "p.yaml: not valid YAML"),
        ("", "p.yaml:1: a policy is a mapping of keys to values"),
        ("- a\n", "p.yaml:1: a policy is a mapping of keys to values"),
    ],
)
def test_what_is_not_a_policy(tmp_path: Path, text: str, expected: str) -> None:
    assert problems_in(tmp_path, text) == expected


def test_a_policy_that_contains_itself(tmp_path: Path) -> None:
    loop = minimal()
    loop["decoding"] = loop
    assert problems(loop) == "policy: the policy contains itself"
    assert problems_in(tmp_path, "apiVersion: stars-guard/v1\nname: x\ndecoding: &a\n  beta: *a\n")


def test_missing_files_and_names(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: cannot read the policy: No such file or directory"
    assert problems("defualt") == "there is no policy named 'defualt' (did you mean 'default'?)"
    assert problems("xyz") == f"there is no policy named 'xyz' (shipped policies: {', '.join(shipped_policies())})"
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    assert problems(tmp_path / "latin.yaml") == f"{tmp_path}/latin.yaml: the policy is not UTF-8 text"


def test_a_shipped_name_comes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "apiVersion: stars-guard/v1\nname: local\n"
    for name in ("default", "mine"):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert load_policy("default").name == "default"
    assert load_policy("./default").name == load_policy("mine").name == load_policy(Path("default")).name == "local"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"judges": [patterns("a", reject_above=None)]}, "policy: judges[0]: give the judge a weight"),
        ({"judges": [patterns("a"), patterns("b")]}, "policy: judges: two judges have the same name: words"),
        ({"judges": [patterns("(?=a)")]}, "policy: judges[0].patterns[0].regex: not a valid RE2 expression"),
        ({"judges": [patterns()]}, "policy: judges[0].patterns: should not be empty"),
        ({"judges": [{**patterns("a"), "on_error": "rejct"}]}, "did you mean `reject`?"),
        ({"decoding": {"segment_tokens": 4097}}, "segment_tokens: should be less than or equal to 4096"),
        ({"decoding": {"r_star": float("nan")}}, "policy: decoding.r_star: should be a finite number"),
        ({"decoding": {"parallel": 0}}, "policy: decoding.parallel: should be 'auto' or greater than or equal to 1"),
        ({"sampling": {"top_p": 0}}, "policy: sampling.top_p: should be greater than 0"),
        ({"sampling": {"top_q": 0.5}}, "policy: sampling.top_q: unknown key; did you mean `top_p`?"),
        ({"audit": {"content": "hashed"}}, "did you mean `hash`?"),
        ({"apiVersion": "stars-guard/v2"}, "policy: apiVersion: should be 'stars-guard/v1'"),
    ],
)
def test_single_problems(more: dict[str, Any], expected: str) -> None:
    assert expected in problems(minimal(**more))


def test_broken_regex_with_flags_is_not_mended_by_the_wrapping() -> None:
    judge = patterns("a)(b")
    judge["patterns"][0]["flags"] = "i"
    assert "not a valid RE2 expression" in problems(minimal(judges=[judge]))
    judge["patterns"][0] = {"name": "p", "regex": "a", "flags": "x"}
    assert "judges[0].patterns[0].flags" in problems(minimal(judges=[judge]))


@pytest.mark.parametrize("template", ["{prompt}", "{answer!r}", "{answer:>3}", "{0} {answer}", "{answer", "{answer.x}"])
def test_bad_templates(template: str) -> None:
    judge = {"name": "r", "type": "sequence_classifier", "model": "m", "weight": 1.0, "template": template}
    assert problems(minimal(judges=[judge])).startswith("policy: judges[0].template: ")
    fine = {**judge, "template": "Q: {prompt} {{}} A: {answer}"}
    assert load_policy(minimal(judges=[fine])).judges


def test_the_digest_is_of_the_values_not_of_the_writing(tmp_path: Path) -> None:
    plain = load_policy(minimal())
    assert len(plain.sha256) == 64
    (tmp_path / "p.yaml").write_text(
        "# a comment\nname: mine\ndecoding: {beta: 0.3, r_star: 1}\napiVersion: stars-guard/v1\n"
    )
    assert load_policy(tmp_path / "p.yaml").sha256 == plain.sha256
    changed = [{"description": "x"}, {"decoding": {"beta": 0.4}}, {"judges": [patterns("a")]}, {"mode": "off"}]
    assert len({plain.sha256, *(load_policy(minimal(**more)).sha256 for more in changed)}) == 1 + len(changed)
    for deep in (False, True):  # what was known of a policy isn't known of a copy that says something else
        other = plain.model_copy(update={"mode": "off"}, deep=deep)
        assert other.sha256 == load_policy(minimal(mode="off")).sha256 != plain.sha256


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "apiVersion: stars-guard/v1\nname: x\n"
        "decoding: {attempts: &n 3, max_tokens: *n, parallel: 2}\n"
        "sampling: {temperature: 1_0.0e-1, top_k: 0x10}\n"
    )
    policy = load_policy(tmp_path / "p.yaml")
    assert (policy.decoding.attempts, policy.decoding.max_tokens, policy.decoding.parallel) == (3, 3, 2)
    assert (policy.sampling.temperature, policy.sampling.top_k) == (1.0, 16)


def test_a_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_policy(minimal()).name = "other"  # type: ignore[misc]


def test_policies_need_no_models_or_langchain() -> None:
    code = (
        "import sys, stars_guard.policy;"
        "stars_guard.policy.load_policy({'apiVersion': 'stars-guard/v1', 'name': 'x'});"
        "heavy = {'torch', 'transformers', 'vllm', 'langchain_core', 'httpx', 'jmespath', 're2', 'jinja2'};"
        "print([m for m in sys.modules if m.split('.')[0] in heavy"
        " or m.startswith(('stars_guard.backends', 'stars_guard.engines'))])"
    )
    assert printed_by(code) == "[]"


def test_a_policy_imports_only_the_judges_that_it_names() -> None:
    code = (
        "import sys; from stars_guard.policy import load_policy;"
        "load_policy('default');"
        "names = {'torch', 'transformers', 'vllm', 'httpx', 'jmespath', 'phonenumbers'};"
        "print(sorted(names & set(sys.modules)), 'stars_guard.scorers.patterns' in sys.modules)"
    )
    assert printed_by(code) == "[] True"


def test_a_file_is_parsed_once_and_filled_in_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("apiVersion: stars-guard/v1\nname: '${NAME_OF_IT}'\n")
    names, parsed = [], tree._parsed.cache_info().misses
    for name in ("one", "two", "one"):
        monkeypatch.setenv("NAME_OF_IT", name)
        names.append(load_policy(path).name)
    assert names == ["one", "two", "one"]
    assert tree._parsed.cache_info().misses == parsed + 1
    path.write_text("apiVersion: stars-guard/v1\nname: three\n")
    assert load_policy(path).name == "three"


def test_policy_can_be_made_in_python() -> None:
    policy = Policy.model_validate({**minimal(), "judges": [patterns("a")]})
    assert policy == load_policy(minimal(judges=(patterns("a"),)))
