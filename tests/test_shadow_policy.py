"""Shadows as policies name them: found, checked, shown, watched and digested with the policy that names them."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import USER, policy, words
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.calling.shadowing import ShadowPolicy
from stars_guard.cli.app import app
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import LivePolicy, load_policy, policy_schema
from stars_guard.policy.layers import loosened
from stars_guard.policy.show import differences
from stars_guard.testing.scripted import ScriptedBackend

LIVE = """\
apiVersion: stars-guard/v1
name: live
judges:
  - {name: words, type: patterns, patterns: [{name: word, regex: awful}]}
"""
NEXT = """\
extends: ../live.yaml
name: next
judges:
  - {name: words, patterns: [{name: more, regex: bad}]}
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    (tmp_path / "next").mkdir()
    (tmp_path / "live.yaml").write_text(LIVE + "shadow: [next/next.yaml]\n")
    (tmp_path / "next" / "next.yaml").write_text(NEXT)
    return tmp_path


def test_a_shadow_may_extend_the_policy_that_it_is_a_shadow_of(house: Path) -> None:
    live, after = load_policy(house / "live.yaml"), load_policy(house / "next" / "next.yaml")
    (shadow,) = live.shadow
    assert (shadow.share, shadow.wait, shadow.at_once) == (1.0, 1.0, 64)
    assert shadow.policy == after.without_shadows
    assert shadow.policy.sha256 == after.without_shadows.sha256
    assert live.without_shadows.shadow == ()
    assert live.without_shadows.without_shadows is not live


def test_its_files_count_for_the_digest(house: Path) -> None:
    before = load_policy(house / "live.yaml")
    (house / "next" / "next.yaml").write_text(NEXT.replace("bad", "worse"))
    after = load_policy(house / "live.yaml")
    assert before.sha256 != after.sha256
    assert before.without_shadows.sha256 == after.without_shadows.sha256


def test_its_files_are_watched(house: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = LivePolicy(house / "live.yaml", interval=0.0)
    digest = watched.current.shadow[0].policy.sha256
    (house / "next" / "next.yaml").write_text(NEXT.replace("bad", "worse"))
    assert watched.current.shadow[0].policy.sha256 != digest
    kept = watched.current
    with caplog.at_level(logging.WARNING):
        (house / "next" / "next.yaml").write_text(NEXT.replace("name: next", "nam: next"))
        assert watched.current is kept
    assert "next.yaml:2" in caplog.text


@pytest.mark.parametrize(
    ("live", "shadow", "said"),
    [
        ("shadow: [other.yaml]", "", r"there is no policy|other\.yaml"),
        (
            "shadow: [next/next.yaml]",
            NEXT + "shadow: [../live.yaml]\n",
            "shadow: a shadow can't have shadows of its own",
        ),
        ("shadow: [live.yaml]", NEXT, "a shadow can't have shadows of its own"),
        ("shadow: [next/next.yaml]", "extends: next.yaml\n", "extend each other"),
        ("shadow: [next/next.yaml]", NEXT.replace("more", "more, reject_abov: 1"), "reject_abov"),
        ("shadow: [next/next.yaml, next/next.yaml]", NEXT, "same name: next"),
        ("shadow: [{policy: next/next.yaml, shar: 0.5}]", NEXT, "shar.*did you mean.*share"),
        ("shadow: [{policy: next/next.yaml, share: 1.5}]", NEXT, "share"),
        ("shadow: [{share: 0.5}]", NEXT, "policy.*required"),
        ("shadow: next/next.yaml", NEXT, "shadow: .*list"),
        ("shadow: [3]", NEXT, "shadow"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(house: Path, live: str, shadow: str, said: str) -> None:
    (house / "live.yaml").write_text(f"{LIVE}{live}\n")
    (house / "next" / "next.yaml").write_text(shadow)
    with pytest.raises(PolicyError, match=rf"(?s)\.yaml.*{said}"):
        load_policy(house / "live.yaml")


def test_python_judges_of_a_shadow_need_leave(house: Path) -> None:
    (house / "next" / "next.yaml").write_text(
        NEXT + "  - {name: code, type: python, call: 'test_shadow:reward', reject_above: 0}\n"
    )
    live = load_policy(house / "live.yaml")
    with pytest.raises(PolicyError, match="'code': python judges are off"):
        Guard(live, model=ScriptedBackend(words()), audit=MemoryStore())
    Guard(live, model=ScriptedBackend(words()), audit=MemoryStore(), allow_python=True).blocking.close()
    guard = Guard(live.without_shadows, model=ScriptedBackend(words()), audit=MemoryStore())
    with guard.blocking, pytest.raises(PolicyError, match="python judges are off"):
        guard.blocking.replaced(live)


def test_doctor_looks_at_the_judges_of_shadows(house: Path) -> None:
    (house / "next" / "next.yaml").write_text(
        NEXT + "  - {name: code, type: python, call: 'not_there_at_all:f', reject_above: 0}\n"
    )
    done = CliRunner().invoke(app, ["doctor", "--policy", str(house / "live.yaml"), "--model", "./no"])
    assert "judge code" in done.output


def test_shadows_are_no_loosening(house: Path) -> None:
    live = load_policy(house / "live.yaml")
    assert list(loosened(live, live.without_shadows)) == []
    assert list(loosened(live.without_shadows, live)) == []
    (house / "child.yaml").write_text("extends: live.yaml\nname: child\nshadow: []\n")
    assert load_policy(house / "child.yaml").shadow == ()
    (house / "child.yaml").write_text("extends: live.yaml\nname: child\nmode: monitor\noverride: true\n")
    assert load_policy(house / "child.yaml").shadow == live.shadow


def test_promotion_is_one_line(house: Path) -> None:
    (house / "app.yaml").write_text("extends: live.yaml\nshadow: [next/next.yaml]\n")
    before = load_policy(house / "app.yaml")
    (house / "app.yaml").write_text("extends: next/next.yaml\nshadow: [next/next.yaml]\n")
    after = load_policy(house / "app.yaml")
    assert after.without_shadows == before.shadow[0].policy == after.shadow[0].policy


def test_policy_commands_know_shadows(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARS_TEST_WORD", "hush-hush")
    (house / "next" / "next.yaml").write_text(NEXT.replace("bad", '"${STARS_TEST_WORD}"'))
    shown = CliRunner().invoke(app, ["policy", "show", str(house / "live.yaml")])
    assert shown.exit_code == 0, shown.output
    assert "${STARS_TEST_WORD}" in shown.output
    assert "hush-hush" not in shown.output
    assert "name: next # " in shown.output
    assert "next.yaml:2" in shown.output
    assert CliRunner().invoke(app, ["policy", "check", str(house / "live.yaml")]).exit_code == 0
    live = load_policy(house / "live.yaml")
    keys = [key for key, _, _ in differences(live.without_shadows, live)]
    assert all(key.startswith("shadow") for key in keys)
    (house / "next" / "next.yaml").write_text(NEXT.replace("bad", "worse"))
    ((key, was, now),) = differences(live, load_policy(house / "live.yaml"))
    assert (key, was, now) == (
        "shadow[next].policy.judges[words].patterns[more].regex",
        "${STARS_TEST_WORD}",
        "worse",
    )


@pytest.mark.parametrize(
    ("shadow", "valid"),
    [
        (["other.yaml"], True),
        ([{"policy": "other.yaml", "share": 0.1, "wait": 0, "at_once": 5}], True),
        ([], True),
        ("other.yaml", False),
        ([{"share": 0.1}], False),
        ([{"policy": "other.yaml", "shar": 0.1}], False),
        ([""], False),
    ],
)
def test_editors_know_shadows(shadow: Any, valid: bool) -> None:
    data = {**YAML(typ="safe").load(LIVE), "shadow": shadow}
    assert jsonschema.Draft202012Validator(policy_schema()).is_valid(data) == valid


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.uuids(), min_size=1, max_size=50))
def test_a_share_of_the_calls(less: float, more: float, calls: list[Any]) -> None:
    less, more = sorted((less, more))
    live = load_policy({**policy(), "shadow": [{"policy": policy(name="next"), "share": share} for share in (less,)]})
    few = ShadowPolicy(live.shadow[0], allow_python=False)
    many = ShadowPolicy(live.shadow[0].model_copy(update={"share": more}), allow_python=False)
    for call in calls:
        assert many.wants(call.hex) or not few.wants(call.hex)
        assert ShadowPolicy(live.shadow[0].model_copy(update={"share": 1.0}), allow_python=False).wants(call.hex)


def test_calls_outside_of_the_share_are_not_followed() -> None:
    live = {**policy(judges=[]), "shadow": [{"policy": policy(name="next"), "share": 0.5, "wait": 20.0}]}
    store = MemoryStore()
    with Guard(live, model=ScriptedBackend(words(2)), audit=store).blocking as guard:
        for seed in range(40):
            guard.generate(USER, CallOptions(seed=seed))

    def inside(record: CallRecord) -> bool:
        return int(hashlib.sha256(record.call_id.encode()).hexdigest()[:16], 16) < 2**63

    assert [bool(record.shadows) for record in store.records] == [inside(record) for record in store.records]
    assert 5 < sum(map(inside, store.records)) < 35
