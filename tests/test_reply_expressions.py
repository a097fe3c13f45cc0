"""Whatever a policy accepts as an expression can be used on a reply."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jmespath.functions import Functions

from stars_guard.errors import ScorerError
from stars_guard.scorers._reply_expressions import ReplyExpression

FIELDS = st.sampled_from(["score", "results", "label", "@", "a.b", '"x y"'])
LITERALS = st.sampled_from(["`1`", "`null`", "'text'", "`[1, 2]`", '`["a"]`', '`{"a": 1}`', "`true`", "`[]`"])
NAMES = st.sampled_from([*Functions.FUNCTION_TABLE, "lenght", "score"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    number = st.sampled_from(["", "0", "-1", "1"])
    return st.one_of(
        st.builds(lambda name, args: f"{name}({', '.join(args)})", NAMES, st.lists(inner, max_size=3)),
        st.builds("{}[{}]".format, inner, st.sampled_from(["0", "-1", "*", "", "?score > `0`"])),
        st.builds("{}[{}:{}:{}] | [0]".format, inner, number, number, number),
        st.builds("{} | {}".format, inner, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from(["||", "&&", "==", "<", ">="]), inner),
        st.builds("&{}".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{k: {}}}".format, inner),
        st.builds("!{}".format, inner),
    )


EXPRESSIONS = st.recursive(st.one_of(FIELDS, LITERALS), combined, max_leaves=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.sampled_from(["", "a", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["score", "results", "label", "a"]), inner)
    ),
    max_leaves=8,
)


def said(expression: ReplyExpression, reply: object) -> str:
    """Why a reply has no number, or nothing."""
    try:
        assert isinstance(expression.number(reply), float)
    except ScorerError as exc:
        return str(exc)
    return ""


@settings(max_examples=600, deadline=None)
@given(EXPRESSIONS, st.lists(JSON, min_size=1, max_size=4))
def test_what_is_accepted_gives_a_number_or_says_that_the_reply_has_none(text: str, replies: list[object]) -> None:
    try:
        expression = ReplyExpression(text)
    except ValueError:
        return
    # what is wrong then is wrong with the reply: another one could have a number there
    problems = " ".join(said(expression, reply) for reply in replies)
    assert not [kind for kind in ("UnknownFunction", "Arity") if kind in problems]


@pytest.mark.parametrize(
    ("text", "reply", "expected"),
    [
        ("results[0].score", {"results": [{"score": 0.25}]}, 0.25),
        ("max(results[].score)", {"results": [{"score": 1}, {"score": 3}]}, 3.0),
        ("max_by(results, &score).score", {"results": [{"score": 1}, {"score": 3}]}, 3.0),
        ("results[?label == 'toxic'].score | [0]", {"results": [{"label": "toxic", "score": 0.5}]}, 0.5),
        ("score > `0.5`", {"score": 0.6}, 1.0),
        ("not_null(score, `0`)", {}, 0.0),
        ("length(results)", {"results": []}, 0.0),
    ],
)
def test_expressions_of_use(text: str, reply: object, expected: float) -> None:
    assert ReplyExpression(text).number(reply) == expected
