"""What a ChatStars is made of: a ready guard, known keywords, copies that have opened nothing, and no secret shown."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import guard, policy, rewarding, settled, vetoing, words
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr, ValidationError

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from langchain_stars._keywords import PER_CALL
from stars_guard.audit import MemoryStore
from stars_guard.core.segments import Passage
from stars_guard.errors import InputError, PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import load_policy
from stars_guard.testing.scripted import ScriptedBackend

# --- a ready guard


def test_a_ready_guard_answers_with_its_backend_judges_and_store() -> None:
    made = guard(vetoing("bad"), attempts=50)
    model = ChatStars(guard=made)
    answer = model.invoke("hi")
    assert answer.text
    assert "bad" not in answer.text
    (record,) = made.audit.read()
    assert record.call_id == answer.response_metadata["stars_guard"]["audit_id"]
    assert (record.backend["engine"], answer.response_metadata["model_name"]) == ("scripted", "scripted")
    assert model._get_ls_params()["ls_model_name"] == "scripted"
    assert model._identifying_params["policy_sha256"] == made.policy.sha256


@pytest.mark.parametrize(
    "given",
    [
        {"policy": "default"},
        {"policies": ["strict"]},
        {"model": "embedded"},
        {"backend": "vllm"},
        {"base_url": "http://127.0.0.1:1"},
        {"api_key": "k"},
        {"backend_options": {"dtype": "float32"}},
        {"timeout": 7.0},
        {"max_retries": 1},
        {"audit": "memory://"},
        {"allow_python": True},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_a_ready_guard_has_settled_is_not_given_beside_it(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given))} and guard are both given"):
        ChatStars(guard=guard(), **given)
    with pytest.raises(InputError, match="and guard are both given"):
        ChatStars(guard=guard()).model_copy(update=given)


@pytest.mark.parametrize("given", [{"policy": "strict"}, {"model": "embedded"}])
def test_a_call_chooses_neither_policy_nor_model_of_a_ready_guard(given: dict[str, Any]) -> None:
    model = ChatStars(guard=guard())
    for call in (model.invoke, lambda text, **more: list(model.stream(text, **more)), model.bind(**given).invoke):
        with pytest.raises(InputError, match="may not be chosen by a call"):
            call("hi", **given)


def test_configurable_fields_keep_a_ready_guard() -> None:
    model = ChatStars(guard=guard()).configurable_fields(max_tokens=ConfigurableField("longest"))
    answer = model.invoke("hi", {"configurable": {"longest": 3}})
    assert answer.usage_metadata["output_tokens"] == 3  # type: ignore[attr-defined]


def test_a_cache_tells_ready_guards_apart() -> None:
    """They may differ in judges that are objects, though their policy is the same."""
    cache = InMemoryCache()
    first, second = (ChatStars(guard=guard(vetoing(word), attempts=50), cache=cache) for word in ("bad", "good"))
    assert "bad" not in first.invoke("hi").text
    assert "good" not in second.invoke("hi").text
    assert copy.copy(first)._get_llm_string() == first._get_llm_string()


# --- policies


def test_a_mapping_is_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mapping = {"extends": "strict", "name": "mine"}
    model = ChatStars(policy=mapping, policies=[{"extends": "monitor", "name": "other"}])
    assert model._guard({}).policy.sha256 == load_policy(mapping).sha256
    assert model._guard({"policy": {"extends": "monitor", "name": "other"}}).policy.name == "other"
    with pytest.raises(InputError, match="may not be chosen"):
        model.invoke("hi", policy={"extends": "monitor", "name": "third"})
    with pytest.raises(PolicyError, match="did you mean"):
        ChatStars(policy={"extends": "strict", "mod": "monitor"}).invoke("hi")


def test_policies_of_one_name_are_told_apart() -> None:
    first, second = (load_policy(policy(attempts=attempts)) for attempts in (1, 2))
    model = ChatStars(policy=first, policies=[second])
    guards = [model._guard({"policy": chosen}) for chosen in (first, second, first, second)]
    assert guards[0] is guards[2]
    assert guards[1] is guards[3]
    assert [made.policy.decoding.attempts for made in guards[:2]] == [1, 2]


def answer_is_short(passage: Passage) -> float:
    """A judge of a policy."""
    return float(len(passage.answer) < 10_000)


def test_python_judges_run_where_they_are_allowed() -> None:
    judge = {"name": "short", "type": "python", "call": f"{__name__}:answer_is_short", "weight": 1.0}
    under = policy(judges=[judge])
    backend = ScriptedBackend(words())
    engine = Guard("default", model=backend, audit=MemoryStore())
    allowed = StarsGuardMiddleware(under, allow_python=True)
    model = ChatStars(guard=engine)._under(allowed._recipe, allowed._guards)
    assert model.invoke("hi").text
    forbidden = StarsGuardMiddleware(under)
    with pytest.raises(PolicyError, match="python judges are off"):
        ChatStars(guard=engine)._under(forbidden._recipe, forbidden._guards).invoke("hi")
    assert ChatStars(policy=under, allow_python=True)._recipe({}).allow_python
    assert not ChatStars(policy=under)._recipe({}).allow_python


# --- keywords


def test_an_unknown_keyword_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"'temprature'.*did you mean 'temperature'"):
        ChatStars(temprature=3)
    with pytest.raises(InputError, match=r"'xyzzy'.*known are .*backend"):
        ChatStars(xyzzy=3)
    with pytest.raises(InputError, match=r"'polices'.*did you mean 'policies'"):
        ChatStars().model_copy(update={"polices": []})


DOORS: dict[str, Callable[[ChatStars, dict[str, Any]], Any]] = {
    "invoke": lambda model, given: model.invoke("hi", **given),
    "stream": lambda model, given: list(model.stream("hi", **given)),
    "batch": lambda model, given: model.batch(["hi"], **given),
    "generate": lambda model, given: model.generate([[]], **given),
    "bind": lambda model, given: model.bind(**given),
    "bind_tools": lambda model, given: model.bind_tools([], **given),
    "with_structured_output": lambda model, given: model.with_structured_output({"title": "x"}, **given),
    "with_config": lambda model, given: model.with_config(tags=["x"]).invoke("hi", **given),
}


@pytest.mark.parametrize("door", DOORS)
def test_so_is_one_of_a_call(door: str) -> None:
    with pytest.raises(InputError, match=r"'temprature'.*did you mean 'temperature'"):
        DOORS[door](ChatStars(guard=guard()), {"temprature": 3})


async def test_so_is_one_of_an_async_call() -> None:
    model = ChatStars(guard=guard())
    with pytest.raises(InputError, match="temprature"):
        await model.ainvoke("hi", temprature=3)
    with pytest.raises(InputError, match="temprature"):
        [chunk async for chunk in model.astream("hi", temprature=3)]
    with pytest.raises(InputError, match="temprature"):
        [event async for event in model.astream_events("hi", version="v2", temprature=3)]
    with pytest.raises(InputError, match="temprature"):
        await model.abatch(["hi"], temprature=3)


def test_what_langchain_passes_is_known() -> None:
    """Each of these reaches a model from LangChain's own code: agents, structured output, streams, other providers."""
    model = ChatStars(guard=guard())
    known: dict[str, Any] = dict.fromkeys(PER_CALL)
    known |= {"stream": False, "stream_usage": True, "strict": True, "tool_choice": "none"}
    known["ls_structured_output_format"] = {"kwargs": {"method": "json_mode"}, "schema": {"title": "x"}}
    assert model.invoke("hi", **known).text
    assert list(model.stream("hi", **known))
    assert model.bind(**known).invoke("hi").text


def test_langchains_standard_parameters_reach_the_servers() -> None:
    served = ChatStars(base_url="http://127.0.0.1:1", timeout=7, max_retries=1)
    assert {"timeout": 7.0, "retries": 1}.items() <= served._recipe({}).options.items()
    assert ChatStars(base_url="http://127.0.0.1:1").backend_options == {}
    precise = ChatStars(backend_options={"base_url": "http://127.0.0.1:1", "retries": 4}, timeout=7, max_retries=1)
    assert precise._recipe({}).options == {"base_url": "http://127.0.0.1:1", "retries": 4, "timeout": 7.0}
    assert ChatStars(timeout=7, max_retries=1)._recipe({}).options == {}


def test_streaming_gives_callbacks_each_segment() -> None:
    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            told.append(token)

    told: list[str] = []
    for streaming in (True, False):
        told.clear()
        answer = ChatStars(guard=guard(), seed=1, streaming=streaming).invoke("hi", {"callbacks": [Tokens()]})
        assert "".join(told) == (answer.text if streaming else "")


# --- copies


def copies(model: ChatStars) -> dict[str, ChatStars]:
    return {
        "copy": copy.copy(model),
        "deepcopy": copy.deepcopy(model),
        "model_copy": model.model_copy(),
        "deep model_copy": model.model_copy(deep=True),
        "pickle": pickle.loads(pickle.dumps(model)),
    }


def test_a_copy_is_the_same_model_and_has_opened_nothing() -> None:
    model = ChatStars(policy="strict", api_key="secret", max_tokens=3, backend_options={"dtype": "float32"})
    opened = model._guard({})
    model._serialized  # noqa: B018  # LangChain keeps it
    for how, copied in copies(model).items():
        assert copied == model, how
        assert copied.api_key.get_secret_value() == "secret", how  # type: ignore[union-attr]
        assert copied._guard({}) is not opened, how
        copied.max_tokens = 4
        copied.backend_options = {}
        assert (model.max_tokens, model.backend_options) == (3, {"dtype": "float32"}), how
    assert model._guard({}) is opened


@pytest.mark.parametrize("deep", [False, True])
def test_what_a_copy_changes_takes_effect(deep: bool) -> None:
    model = ChatStars(policy="strict", audit="memory://", temperature=0.5)
    before = model._guard({}), model._get_llm_string()
    changed = model.model_copy(update={"policy": "monitor", "model": "other", "temperature": 0.1}, deep=deep)
    made = changed._guard({})
    assert (made.policy.name, made.model_name) == ("monitor", "other")
    assert changed._options(None, None, {}).sampling == {"temperature": 0.1}
    assert changed._get_llm_string() != before[1]
    assert changed._serialized["kwargs"]["policy"] == "monitor"
    assert model._guard({}) is before[0]


def test_copies_share_what_was_passed_in_ready() -> None:
    made, store = guard(), MemoryStore()
    for model in (ChatStars(guard=made), ChatStars(audit=store)):
        for copied in (copy.deepcopy(model), copy.copy(model), model.model_copy(deep=True, update={"max_tokens": 2})):
            assert copied.guard is model.guard
            assert copied.audit is model.audit
    assert copy.deepcopy(ChatStars(guard=made)).invoke("hi").text


@pytest.mark.parametrize(
    ("given", "hint"), [({"guard": guard()}, "ready guard"), ({"audit": MemoryStore()}, "ready audit store")]
)
def test_what_cannot_be_pickled_says_so(given: dict[str, Any], hint: str) -> None:
    with pytest.raises(InputError, match=f"{hint} cannot be pickled"):
        pickle.dumps(ChatStars(**given))


def test_a_field_that_is_set_later_takes_effect() -> None:
    model = ChatStars(policy="strict", audit="memory://")
    first = model._guard({})
    model.backend_options = {"dtype": "float32"}
    assert model._guard({}) is not first
    model.policy = "monitor"
    assert model._guard({}).policy.name == "monitor"


# --- secrets

SECRETS = {
    "api_key": "key-of-the-server",
    "base_url": ["https://user:word-of-the-proxy@host:8000/v1?token=token-of-the-proxy"],
    "backend_options": {"cache_salt": "salt-of-the-tenant", "password": SecretStr("word-of-the-engine")},
    "audit": "postgresql+psycopg://audit:word-of-the-log@database/log",
    "policy": {"extends": "strict", "description": "word-of-the-policy"},
}
HIDDEN = (
    "key-of-the-server",
    "word-of-the-proxy",
    "token-of-the-proxy",
    "salt-of-the-tenant",
    "word-of-the-engine",
    "word-of-the-log",
)


def test_nothing_that_is_shown_holds_a_secret() -> None:
    model = ChatStars(**SECRETS)
    shown = {
        "repr": repr(model),
        "str": str(model),
        "serialised": json.dumps(dumpd(model)),
        "json": model.model_dump_json(),
        "traced": str(model._get_invocation_params()),
        "cached": model._get_llm_string(),
    }
    for how, text in shown.items():
        assert [secret for secret in HIDDEN if secret in text] == [], how
        assert "host:8000" in text, how
        assert "cache_salt" in text or how in ("traced", "cached"), how
    assert "word-of-the-policy" not in repr(model)
    with pytest.raises(ValidationError) as caught:
        ChatStars(**{**SECRETS, "backend_options": "salt-of-the-tenant"})
    assert "salt-of-the-tenant" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
@pytest.mark.parametrize("name", ["base_url", "backend_options", "audit"])
def test_what_was_hidden_is_missed_when_it_is_loaded(name: str) -> None:
    stored = dumpd(ChatStars(**{name: SECRETS[name]}))
    with pytest.raises(InputError, match=f"{name} was hidden"):
        load(stored, valid_namespaces=["langchain_stars"], allowed_objects=[ChatStars])


def test_a_serialised_form_allows_no_python_and_holds_no_ready_part() -> None:
    assert "allow_python" not in json.dumps(dumpd(ChatStars(allow_python=True)))
    for model in (ChatStars(guard=guard()), ChatStars(audit=MemoryStore())):
        assert dumpd(model)["type"] == "not_implemented"


def test_options_tell_caches_apart_without_being_shown() -> None:
    keys = {ChatStars(backend_options={"dtype": dtype})._get_llm_string() for dtype in ("float32", "bfloat16")}
    assert len(keys) == 2


# --- the end


class Watched(ScriptedBackend):
    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def closed(made: Guard) -> bool:
    try:
        made.blocking.generate([])
    except InputError as exc:
        return "closed" in str(exc)
    raise AssertionError("a call without messages was served")


def test_closing_ends_what_was_opened_and_a_later_call_opens_it_again() -> None:
    with ChatStars(policy="strict", audit="memory://", policies=["monitor"]) as model:
        opened = [model._guard({}), model._guard({"policy": "monitor"})]
        assert not any(closed(made) for made in opened)
    assert all(closed(made) for made in opened)
    assert model._guard({}) is not opened[0]
    model.close()
    model.close()


async def test_closing_in_async_code() -> None:
    async with ChatStars(policy="strict", audit="memory://") as model:
        made = model._guard({})
    with pytest.raises(InputError, match="closed"):
        await made.generate([])


def test_what_was_passed_in_stays_open() -> None:
    backend = Watched(words())
    made = Guard(policy(), model=backend, judges=[rewarding()], audit=MemoryStore())
    with ChatStars(guard=made) as model:
        assert model.invoke("hi").text
    assert model.invoke("hi").text
    assert not backend.closed
    with StarsGuardMiddleware(policy()) as middleware:
        ours = model._under(middleware._recipe, middleware._guards)
        assert ours.invoke("hi").text
    assert model.invoke("hi").text
    assert not backend.closed


def test_middleware_and_runnable_close_what_they_opened() -> None:
    with StarsGuardMiddleware("agent-tools", audit="memory://") as middleware:
        first = middleware._guards.guard(middleware._recipe)
    with guard_runnable(ChatStars(guard=guard()), audit="memory://") as chain:
        second = chain._guards.guard(chain._recipe)
    assert closed(first)
    assert closed(second)


def test_a_hot_reload_frees_the_guard_that_it_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("apiVersion: stars-guard/v1\nname: one\n")
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    middleware = StarsGuardMiddleware(path, audit="memory://")
    ready = ChatStars(guard=guard(), seed=1)
    first = ready._under(middleware._recipe, middleware._guards)
    assert first.invoke("hi").response_metadata["stars_guard"]["policy"] == "one"
    path.write_text("apiVersion: stars-guard/v1\nname: two\n")
    second = ready._under(middleware._recipe, middleware._guards)
    assert second.guard is not first.guard
    assert second.invoke("hi").response_metadata["stars_guard"]["policy"] == "two"
    assert len(middleware._guards._opened) == 1
    assert first.guard is not None
    assert settled(lambda: first.guard._loaded._retired)  # type: ignore[union-attr]


def test_a_policy_that_no_guard_can_be_made_of_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("apiVersion: stars-guard/v1\nname: one\n")
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    model = ChatStars(policy=path)
    first = model._guard({})
    path.write_text("apiVersion: stars-guard/v1\nname: two\naudit: {url: 'nothing://here'}\n")
    assert model._guard({}) is first
    assert model._guard({}) is first
    assert caplog.text.count("the last good one stays") == 1
    path.write_text("apiVersion: stars-guard/v1\nname: three\n")
    assert model._guard({}).policy.name == "three"


def test_the_middleware_keeps_nothing_of_models_that_are_gone() -> None:
    middleware = StarsGuardMiddleware("agent-tools", audit="memory://")
    derived = []
    for _ in range(5):
        model = ChatStars(guard=guard())
        derived.append(model._under(middleware._recipe, middleware._guards).guard)
        del model
    gc.collect()
    assert middleware._guards.guard(middleware._recipe) is not None  # the next call of the agent
    assert len(middleware._guards._opened) == 1
    assert all(settled(lambda made=made: made._loaded._closed) for made in derived)


def test_equal_models_share_a_guard_in_the_middleware() -> None:
    middleware = StarsGuardMiddleware("agent-tools", audit="memory://")
    guards = {
        id(ChatStars(max_tokens=n)._under(middleware._recipe, middleware._guards)._guard({})) for n in range(1, 20)
    }
    assert len(guards) == 1
