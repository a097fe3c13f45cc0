"""ChatStars: what it promises beyond LangChain's own tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import operator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from conftest import guard, policy, printed_by, rewarding, vetoing, words
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, load
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    message_to_dict,
    messages_from_dict,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter

from langchain_stars import ChatStars
from stars_guard.audit import open_store
from stars_guard.errors import InputError, PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.testing.scripted import ScriptedBackend


def scripted(*judges: Any, **settings: Any) -> ChatStars:
    """A ChatStars whose guard draws from a script."""
    return ChatStars(guard=guard(*judges, **settings))


def records(model: ChatStars) -> list[Any]:
    assert model.guard is not None
    return model.guard.audit.read()


async def test_every_door_gives_the_same_answer_for_a_seed() -> None:
    model = scripted()
    answers = {
        model.invoke("hi", seed=4).text,
        (await model.ainvoke("hi", seed=4)).text,
        "".join(chunk.text for chunk in model.stream("hi", seed=4)),
        "".join([chunk.text async for chunk in model.astream("hi", seed=4)]),
        model.batch(["hi"], seed=4)[0].text,
        (await model.abatch(["hi"], seed=4))[0].text,
    }
    assert len(answers) == 1
    assert answers != {""}


def test_a_chunk_per_accepted_segment() -> None:
    chunks = list(scripted().stream("hi", seed=1))
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert len(texts) == 12
    assert all(len(text.split()) == 2 for text in texts)
    whole = reduce(operator.add, chunks)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 24
    assert whole.response_metadata["stars_guard"]["audit_id"]


def test_metadata_leads_to_the_record() -> None:
    model = scripted(name="mine")
    run_ids: list[Any] = []
    message = (model | (lambda m: m)).invoke("hi", config={"run_id": None, "callbacks": [_RunIds(run_ids)]})
    about = message.response_metadata["stars_guard"]
    (record,) = records(model)
    assert about["audit_id"] == record.call_id
    assert (about["policy"], about["policy_sha256"]) == ("mine", record.policy_sha256)
    assert about["drawn"] == record.totals["drawn"] >= message.usage_metadata["output_tokens"]
    assert record.run_id in [str(run_id) for run_id in run_ids]
    json.dumps(message.response_metadata)


class _RunIds:
    def __new__(cls, into: list[Any]) -> Any:
        from langchain_core.callbacks import BaseCallbackHandler

        class Handler(BaseCallbackHandler):
            def on_chat_model_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
                into.append(run_id)

        return Handler()


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_refusal_is_a_message(door: str) -> None:
    model = scripted(vetoing(" "), on_exhausted="refuse", refusal={"message": "No."})
    message = model.invoke("hi") if door == "invoke" else reduce(operator.add, model.stream("hi"))
    assert message.response_metadata["finish_reason"] == "refused"
    assert message.text == "No."
    block, text = message.content_blocks
    assert (block["type"], text["type"]) == ("refusal", "text")
    assert block["refusal"] == "No."
    assert "words" in block["reason"]
    assert "attempts" in message.response_metadata["stars_guard"]["reason"]
    assert model.invoke([HumanMessage("hi"), message, HumanMessage("why?")]).response_metadata


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("good", [0, 3])
async def test_the_refusal_is_what_a_reader_gets(version: str, good: int) -> None:
    backend = ScriptedBackend(lambda messages, prefix, rng: "good " if len(prefix) < 2 * good else "bad ")
    model = scripted(rewarding(), vetoing("bad"), on_exhausted="refuse", refusal={"message": "No."}, backend=backend)
    model.output_version = version
    chain = ChatPromptTemplate.from_template("{x}") | model | StrOutputParser()
    expected = "good " * 2 * good + "\n\n" * (good > 0) + "No."
    assert chain.invoke({"x": "hi"}) == expected
    assert await chain.ainvoke({"x": "hi"}) == expected
    assert "".join(chain.stream({"x": "hi"})) == expected
    whole, added = model.invoke("hi"), reduce(operator.add, model.stream("hi"))
    for message in (whole, added, messages_from_dict([message_to_dict(whole)])[0]):
        assert message.text == expected
        assert "".join(b["text"] for b in message.content_blocks if b["type"] == "text") == expected
        (block,) = [block for block in message.content_blocks if block["type"] == "refusal"]
        assert block["refusal"] == "No."
    assert "".join([piece.text async for piece in model.astream("hi")]) == expected


async def test_32_calls_with_two_policies_keep_their_records_apart(tmp_path: Path) -> None:
    models = {}
    for name, word in (("no-awful", "awful"), ("no-bad", "bad")):
        made = Guard(
            policy(name=name),
            model=ScriptedBackend(words()),
            judges=[rewarding(), vetoing(word)],
            audit=f"jsonl://{tmp_path}/audit.jsonl",
        )
        models[name] = ChatStars(guard=made)
    calls = [(("no-awful", "no-bad")[i % 2], f"question {i}") for i in range(32)]
    answers = await asyncio.gather(*(models[name].ainvoke(question) for name, question in calls))
    store = open_store(f"jsonl://{tmp_path}/audit.jsonl")
    assert len(store.read()) == 32
    for (name, question), answer in zip(calls, answers, strict=True):
        record = store.get(answer.response_metadata["stars_guard"]["audit_id"])
        assert record.policy == name
        assert record.prompt[0].content.text == question
        refused = answer.response_metadata["finish_reason"] == "refused"
        shown = [record.answer.text, "I can't help with that."] if refused else [record.answer.text]
        assert "\n\n".join(text for text in shown if text) == answer.text
        assert name.removeprefix("no-") not in answer.text


def test_per_call_overrides() -> None:
    model = ChatStars(model="embedded", backend="transformers", audit="memory://", seed=1, policies=["monitor"])
    answer = model.invoke("Say yes.", policy="monitor", max_tokens=5, temperature=0.0, stop=["\n"])
    assert answer.usage_metadata["output_tokens"] <= 5
    assert answer.response_metadata["stars_guard"]["policy"] == "monitor"
    record = model._guard({"policy": "monitor"}).audit.read()[0]
    assert record.sampling["temperature"] == 0.0
    assert record.decoding["max_tokens"] == 5
    assert model.bind(max_tokens=2).invoke("Say yes.").usage_metadata["output_tokens"] <= 2  # type: ignore[union-attr]


def test_a_call_chooses_only_listed_policies() -> None:
    model = ChatStars(policy="strict", policies=["default"])
    assert model._guard({"policy": "default"}).policy.name == "default"
    assert model._guard({}) is model._guard({})
    for chosen in ("monitor", load_policy("monitor"), "./default"):
        with pytest.raises(InputError, match="may not be chosen by a call"):
            model.invoke("hi", policy=chosen)


def test_a_changed_policy_file_is_taken_whole_or_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", itertools.count(step=10).__next__)
    base, path = tmp_path / "base.yaml", tmp_path / "p.yaml"
    base.write_text("apiVersion: stars-guard/v1\nname: base\n")
    path.write_text("extends: base.yaml\nname: one\n")
    model = ChatStars(policy=path)
    first = model._guard({})
    assert model._guard({}) is first
    path.write_text("extends: base.yaml\nname: second\n")
    second = model._guard({})
    assert (first.policy.name, second.policy.name) == ("one", "second")
    path.write_text("extends: base.yaml\nmode: of\n")
    assert model._guard({}) is second
    assert "p.yaml:2: mode" in caplog.text
    base.unlink()
    assert model._guard({}) is second
    base.write_text("apiVersion: stars-guard/v1\nname: base\ndescription: new\n")
    path.write_text("extends: base.yaml\n")
    assert model._guard({}).policy.description == "new"


def test_a_cache_never_answers_for_another_policy() -> None:
    cache = InMemoryCache()
    listed: list[str | Path | Policy] = ["strict", "monitor"]
    strict, default = (ChatStars(policy=p, policies=listed, cache=cache, seed=None) for p in ("strict", "default"))
    keys = {
        strict._get_llm_string(),
        default._get_llm_string(),
        default._get_llm_string(policy="strict"),
        default._get_llm_string(policy="monitor"),
        default._get_llm_string(temperature=0.1),
    }
    assert len(keys) == 5
    model = scripted()
    model.cache = cache
    first = model.invoke("hi")
    assert model.invoke("hi").text == first.text
    assert len(records(model)) == 1


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_serialisation_round_trip() -> None:
    model = ChatStars(policy="strict", max_tokens=7, stop=["x"])
    again = load(dumpd(model), valid_namespaces=["langchain_stars"], allowed_objects=[ChatStars])
    assert isinstance(again, ChatStars)
    assert (again.policy, again.max_tokens, again.stop) == ("strict", 7, ["x"])
    assert again._get_llm_string() == model._get_llm_string()


def test_bad_input_is_named() -> None:
    model = scripted()
    with pytest.raises(InputError, match="no messages"):
        model.invoke([])
    with pytest.raises(InputError, match="critic"):
        model.invoke([ChatMessage("x", role="critic")])
    with pytest.raises(InputError, match="image"):
        model.invoke([HumanMessage([{"type": "image", "base64": "x", "mime_type": "image/png"}])])
    with pytest.raises(PolicyError, match="did you mean 'strict'"):
        ChatStars(policy="strikt").invoke("hi")
    with pytest.raises(InputError, match="max_tokens"):
        model.invoke("hi", max_tokens=-1)
    assert model.invoke([SystemMessage("s"), HumanMessage("a"), AIMessage("b"), HumanMessage("c")]).text


def test_in_a_chain_with_a_rate_limiter() -> None:
    model = scripted()
    model.rate_limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001)
    chain = ChatPromptTemplate.from_template("Tell me about {x}") | model | StrOutputParser()
    assert chain.invoke({"x": "tea"})
    assert "".join(chain.stream({"x": "tea"}))


def test_langsmith_parameters() -> None:
    params = ChatStars(temperature=0.3, max_tokens=9)._get_ls_params(stop=["x"])
    assert params["ls_provider"] == "stars-guard"
    assert params["ls_model_name"] == "embedded"
    assert (params["ls_temperature"], params["ls_max_tokens"], params["ls_stop"]) == (0.3, 9, ["x"])


def test_import_and_constructor_are_light() -> None:
    code = (
        "import sys; from langchain_stars import ChatStars; ChatStars(policy='default')._identifying_params;"
        "print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    )
    assert printed_by(code) == "[]"


def test_a_policy_object_and_a_path_are_the_same_policy() -> None:
    path = Path(__file__).parent.parent / "policies" / "default.yaml"
    models = [ChatStars(policy=p) for p in ("default", path, str(path), load_policy("default"))]
    assert len({model._identifying_params["policy_sha256"] for model in models}) == 1
