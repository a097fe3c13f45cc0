"""A policy's own template of a guard model fails when the policy is read, not at each call."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import policy

from stars_guard.errors import PolicyError
from stars_guard.policy import LivePolicy, load_policy


def guard(**more: Any) -> dict[str, Any]:
    labels = {"harmful": ["Yes"], "safe": ["No"]}
    return {"name": "g", "type": "guard_model", "model": "m", **labels, "reject_above": 0.5, **more}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ answer", "not a Jinja2 template: "),
        ("{% if answer %}{{ answer }}", "not a Jinja2 template: "),
        ("{{ answer | shout }}", "there is no filter 'shout'"),
        ("{% if messages | length > 9 %}{{ prompt | shout }}{% endif %}{{ answer }}", "there is no filter 'shout'"),
        ("{% if answer is loud %}{{ answer }}{% endif %}", "there is no test 'loud'"),
        ("{{ question }}{{ answer }}", "a template has no question; only prompt, answer, segment, messages"),
        ("{{ answer }}{{ messages[5].content }}", "the template cannot be used: "),
        ("{{ answer }}{{ messages[0].text }}", "the template cannot be used: "),
        ("{{ answer }}{{ 1 / 0 }}", "fails: ZeroDivisionError"),
        ("{{ answer }}{{ answer + 1 }}", "fails: TypeError"),
        ("{% include 'other' %}{{ answer }}", "the template cannot be used: "),
        ("{{ answer.__class__.__mro__ }}{{ answer }}", "the template cannot be used: "),
        ("{{ prompt }}", "every answer would get the same score"),
        ("{% if answer %}yes{% endif %}", "every answer would get the same score"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", "the same score"),
        ("{{ answer | tojson }}", "every answer would get the same score"),
    ],
)
def test_a_template_that_cannot_be_used_is_a_policy_error(template: str, expected: str) -> None:
    with pytest.raises(PolicyError) as info:
        load_policy(policy(judges=[guard(template=template)]))
    assert str(info.value).startswith("policy: judges[0].template: ")
    assert expected in str(info.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ answer }}",
        "{{ prompt }} -> {{ segment }}",
        "{% for i in range(2) %}{{ messages[-1].content }}{% endfor %}",
        "{% set last = messages | last %}{{ last.role | upper }}: {{ last.content | trim }}",
        "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ answer }}",
    ],
)
def test_a_template_of_use_is_taken(template: str) -> None:
    assert load_policy(policy(judges=[guard(template=template)])).judges


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"harmful": ["Yes", "No"]}, "both harmful and safe have the label 'No'"),
        ({"safe": [""]}, "a label should not be empty"),
    ],
)
def test_labels_that_cannot_be_used_are_a_policy_error(more: dict[str, Any], expected: str) -> None:
    with pytest.raises(PolicyError) as info:
        load_policy(policy(judges=[guard(template="{{ answer }}", **more)]))
    assert expected in str(info.value)


HTTP = {"name": "h", "type": "http", "url": "http://127.0.0.1:1", "body": "{answer}", "score": "a", "reject_above": 0.5}


@pytest.mark.parametrize(
    "broken",
    [{**HTTP, "score": "lenght(a)"}, guard(template="{{ answer | shout }}"), guard(template="{{ answer }}{{ 1 / 0 }}")],
)
def test_a_hot_reload_keeps_the_last_good_policy(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(policy(judges=[HTTP])))
    live = LivePolicy(path, interval=0)
    good = live.current
    path.write_text(json.dumps(policy(judges=[broken])))
    os.utime(path, ns=(1, 1))
    assert live.current is good
    path.write_text(json.dumps(policy(judges=[{**HTTP, "score": "b"}])))
    os.utime(path, ns=(2, 2))
    assert live.current.sha256 != good.sha256
