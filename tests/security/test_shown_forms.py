"""No form in which a model shows itself holds a secret: printed, serialised, or told to callbacks and tracers."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hidden_scenarios import _handler
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, dumps
from langchain_core.tracers.context import collect_runs

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from stars_guard.errors import StarsGuardError

pytestmark = pytest.mark.filterwarnings("ignore")

SECRET = "sEcReT9q"

PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "user of the server": lambda s: {"base_url": f"http://{s}@host:1/v1"},
    "password of the server": lambda s: {"base_url": f"http://user:{s}@host:1/v1"},
    "query of the server": lambda s: {"base_url": f"http://host:1/v1?key={s}"},
    "fragment of the server": lambda s: {"base_url": f"http://host:1/v1#{s}"},
    "password without a scheme": lambda s: {"base_url": f"user:{s}@host:1/v1"},
    "one of several servers": lambda s: {"base_url": ["http://a:1/v1", f"http://u:{s}@b:1/v1?x={s}"]},
    "an option": lambda s: {"backend": "vllm", "backend_options": {"hf_token": s}},
    "an option within": lambda s: {"backend": "vllm", "backend_options": {"a": {"b": [s, {"c": s}]}}},
    "a header": lambda s: {"base_url": "http://host:1/v1", "backend_options": {"headers": {"X-Key": s}}},
    "the key": lambda s: {"base_url": "http://host:1/v1", "api_key": s},
    "the audit log": lambda s: {"audit": f"postgresql://user:{s}@host/db?sslkey={s}"},
    "the audit log's query": lambda s: {"audit": f"sqlite:///tmp/x.db?key={s}"},
    "a policy's judge": lambda s: {"policy": _policy(s)},
    "a policy's log": lambda s: {"policy": {**_policy("x"), "audit": {"url": f"postgresql://u:{s}@host/db"}}},
    "a policy to choose": lambda s: {"policies": [_policy(s)]},
}


def _policy(secret: str) -> dict[str, Any]:
    judge = {"name": "remote", "type": "http", "url": f"http://u:{secret}@judge:1/?k={secret}", "reject_above": 0.5}
    return {"apiVersion": "stars-guard/v1", "name": "t", "judges": [judge]}


def _told(model: ChatStars) -> str:
    """What callbacks, event streams and tracers are told of a call that fails at once."""
    seen: list[Any] = []
    with collect_runs() as runs, contextlib.suppress(Exception):
        model.invoke("hi", {"callbacks": [_handler(BaseCallbackHandler, seen)]}, temperature="not a number")
    return repr(seen) + repr([run.model_dump() for run in runs.traced_runs])


def _rich(model: ChatStars) -> str:
    try:
        from rich.console import Console
    except ImportError:
        return ""
    out = io.StringIO()
    Console(file=out, width=10_000).print(model)
    return out.getvalue()


FORMS: dict[str, Callable[[ChatStars], str]] = {
    "repr": repr,
    "str": str,
    "format": lambda m: f"{m}{m!r}{m!s}",
    "rich": _rich,
    "repr of a binding": lambda m: repr(m.bind(stop=["x"])) + repr(m | (lambda x: x)) + repr(m.with_retry()),
    "dumps": dumps,
    "dumps of a chain": lambda m: dumps(m | m.bind(stop=["x"])),
    "dumpd": lambda m: repr(dumpd(m)),
    "to_json": lambda m: repr(m.to_json()),
    "model_dump": lambda m: repr(m.model_dump()),
    "model_dump in json": lambda m: repr(m.model_dump(mode="json")),
    "model_dump_json": lambda m: m.model_dump_json(),
    "dict": lambda m: repr(m.dict()),
    "json": lambda m: json.dumps(m.model_dump(mode="json"), default=repr),
    "serialised by pydantic": lambda m: repr(m.model_dump(warnings=False, round_trip=True)),
    "identifying": lambda m: repr(m._identifying_params),
    "key of a cache": lambda m: m._get_llm_string(stop=None),
    "langsmith": lambda m: repr(m._get_ls_params()),
    "graph": lambda m: repr(m.get_graph()) + repr(m.get_graph().to_json()),
    "middleware": lambda m: repr(StarsGuardMiddleware(model=m)),
    "runnable": lambda m: repr(guard_runnable(m)) + guard_runnable(m).get_name(),
}


def _made(place: str, secret: str = SECRET) -> ChatStars:
    return ChatStars(**PLACES[place](secret))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", PLACES)
def test_a_model_shows_no_secret(place: str, form: str) -> None:
    try:
        shown = FORMS[form](_made(place))
    except StarsGuardError as exc:
        shown = repr(exc)
    assert SECRET not in shown


@pytest.mark.parametrize("place", ["password of the server", "an option", "the audit log", "a policy's judge"])
def test_callbacks_and_tracers_are_told_no_secret(place: str) -> None:
    assert SECRET not in _told(_made(place))


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=30))
@settings(max_examples=5, deadline=None)
def test_whatever_the_secret_is(secret: str) -> None:
    for place in PLACES:
        model = _made(place, secret)
        assert all(secret not in FORMS[form](model) for form in ("repr", "dumps", "model_dump", "model_dump_json"))


def test_what_was_hidden_is_asked_for_again() -> None:
    for place in ("password of the server", "an option", "a policy's judge"):
        model = _made(place)
        with pytest.raises(StarsGuardError, match="hidden"):
            ChatStars(**model.model_dump(exclude={"api_key"}, exclude_unset=True))
