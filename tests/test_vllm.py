"""vLLM, the real engine on the CPU: in process and over HTTP, beside the transformers backend."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import load, policy, rewarding
from laws import FALSE_ALARM, chance
from scipy.stats import norm
from vllm_servers import Relay, Server

from langchain_stars import ChatStars
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend, OpenRequest
from stars_guard.backends.vllm_engine import VllmEngineBackend, _warm_up, entropy_of
from stars_guard.backends.vllm_server import VllmServerBackend, VllmServerOptions
from stars_guard.calling import portal
from stars_guard.calling.backend_loading import load_backend
from stars_guard.core.events import Finished, Released
from stars_guard.core.grammar import Grammar
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool, Toolset
from stars_guard.engines.vllm_client import Servers, parse_options
from stars_guard.errors import BackendError, BackendUnavailable, ContextTooLong, InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing import BackendTests

ASK = [Message("user", "What is a lake?")]
STORY = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


@pytest.fixture
def relay(vllm_server: Server, tmp_path: Path) -> Iterator[Relay]:
    """A second replica, which a test may kill."""
    made = Relay(vllm_server, tmp_path / "relay.log")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def over_http(vllm_server: Server) -> Backend:
    return portal.call(lambda: load_backend("embedded", "vllm-server", {"base_url": vllm_server.url}))


@pytest.fixture(params=["vllm", "vllm-server"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue({"vllm": "vllm_engine", "vllm-server": "over_http"}[request.param])


class _VllmTests(BackendTests):
    @pytest.fixture
    def control_texts(self) -> Sequence[str]:
        return ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


class TestInProcess(_VllmTests):
    @pytest.fixture
    def backend(self, vllm_engine: Backend) -> Backend:
        return vllm_engine


class TestOverHttp(_VllmTests):
    @pytest.fixture
    def backend(self, over_http: Backend) -> Backend:
        return over_http

    @pytest.fixture
    def make(self, embedded_model: Path, vllm_server: Server) -> Callable[[], Awaitable[Backend]]:
        return lambda: VllmServerBackend.load(
            str(embedded_model), VllmServerOptions.model_validate({"base_url": vllm_server.url})
        )


def guard_of(engine: Backend, *judges: Any, **more: Any) -> Guard:
    return Guard(policy(**more), model=engine, judges=judges or [rewarding(lambda p: 9.0)], audit=MemoryStore())


def greedy(engine: Backend, **more: Any) -> str:
    made = guard_of(engine, max_tokens=64, segment_tokens=16, sampling={"temperature": 0.0}, **more)
    return made.blocking.generate(ASK).text


def test_greedy_text_is_that_of_transformers(engine: Backend, transformers_engine: Backend) -> None:
    wanted = greedy(transformers_engine)
    assert greedy(engine) == greedy(engine, optimistic=False, parallel=2) == wanted
    assert len(wanted) > 100


PERSON = Grammar.json_schema(
    {
        "type": "object",
        "required": ["name", "age"],
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    }
)
WEATHER = Tool(
    name="get_weather",
    description="The weather in a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
)


@pytest.fixture(scope="module")
def guided() -> list[Finished]:
    return under_grammars(load("transformers"))


def under_grammars(engine: Backend) -> list[Finished]:
    made = guard_of(engine, max_tokens=48, segment_tokens=4, sampling={"temperature": 0.0}, parallel=1)
    forced = Toolset((WEATHER,), forced=("get_weather",))
    asks = ("Alice is 7. Give name and age as JSON.", "What is the weather in Paris?")
    options = (CallOptions(grammar=PERSON), CallOptions(tools=forced))
    return [made.blocking.generate([Message("user", ask)], how) for ask, how in zip(asks, options, strict=True)]


def test_answers_under_a_grammar_are_those_of_transformers(engine: Backend, guided: list[Finished]) -> None:
    person, call = under_grammars(engine)
    assert (person.text, person.totals.segments) == (guided[0].text, 1)
    assert list(json.loads(person.text)) == ["name", "age"]
    assert [(c.name, c.arguments) for c in call.tool_calls] == [(c.name, c.arguments) for c in guided[1].tool_calls]
    assert call.tool_calls[0].arguments == {"city": "Paris"}
    with pytest.raises((BackendError, InputError)):
        guard_of(engine).blocking.generate(ASK, CallOptions(grammar=Grammar.json_schema({"type": "soup"})))
    assert greedy(engine)


def no_e(passage: Passage) -> float:
    return -0.4 * passage.segment.count("e")


def accepted_of_proposed(backend: Backend) -> tuple[int, int]:
    made = guard_of(
        backend,
        rewarding(no_e),
        r_star=0.0,
        beta=1.0,
        schedule="constant",
        segment_tokens=4,
        max_tokens=16,
        attempts=20,
        parallel=1,
    )
    done = made.blocking.batch([ASK] * 32)
    return sum(d.totals.segments for d in done), sum(d.totals.proposals for d in done)


@pytest.fixture(scope="module")
def plain_acceptance() -> tuple[int, int]:
    return accepted_of_proposed(load("transformers"))


def test_acceptance_statistics_agree(engine: Backend, plain_acceptance: tuple[int, int]) -> None:
    """The share of proposals accepted, by a judge of the text, is that of the transformers backend."""
    (a, n), (b, m) = accepted_of_proposed(engine), plain_acceptance
    pooled = (a + b) / (n + m)
    z = (a / n - b / m) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    assert 0.1 < pooled < 0.9
    assert abs(z) < norm.ppf(1 - FALSE_ALARM / 2)


@pytest.mark.parametrize("optimistic", [True, False])
def test_law_on_the_real_model(engine: Backend, optimistic: bool) -> None:
    """Two segments of one token from a vocabulary of three: the law is the closed form, drawn ahead or not."""
    top = dict(portal.call(lambda: _top_three(engine)))
    # the likelier, the worse: so the law is far from the model's own
    weights = dict(zip(sorted(top, key=top.__getitem__), (0.0, -1.0, -2.0), strict=True))
    made = guard_of(
        engine,
        rewarding(lambda p: weights.get(p.answer.split("|")[0], 0.0) if not p.accepted else 9.0),
        r_star=0.0,
        beta=1.0,
        schedule="constant",
        segment_tokens=1,
        max_tokens=2,
        attempts=8,
        on_exhausted="refuse",
        optimistic=optimistic,
        parallel=2,
        sampling={"top_k": 3},
    )
    n = 60
    seen: Counter[str] = Counter()
    for done in made.blocking.batch([ASK] * n, concurrency=48):
        record = made.audit.get(done.call_id)
        first = record.segments[0]
        seen["refused" if first.kept is None else str(first.attempts[first.kept].text.text)] += 1
    z = sum(p * math.exp(weights[text]) for text, p in top.items())
    law = {text: p * math.exp(weights[text]) * (1 - (1 - z) ** 8) / z for text, p in top.items()}
    assert seen.keys() <= {*law, "refused"}
    assert chance(law, seen) > FALSE_ALARM
    assert chance(dict(top), seen) < FALSE_ALARM


async def _top_three(engine: Backend) -> list[tuple[str, float]]:
    """The model's own law of the first token, from the transformers backend's weights."""
    import torch

    from stars_guard.backends.transformers import TransformersBackend
    from stars_guard.prompting.chat_encoding import encode_chat

    backend = await load_backend("embedded", "transformers")
    assert isinstance(backend, TransformersBackend)
    ids = encode_chat(backend.tokenizer, ASK)
    with torch.inference_mode():
        values, index = backend.slots.model(torch.tensor([ids])).logits[0, -1].float().topk(3)
    probs = values.softmax(-1).tolist()
    return [(backend.decode([i]), p) for i, p in zip(index.tolist(), probs, strict=True)]


async def test_streaming_and_totals(engine: Backend) -> None:
    made = guard_of(engine, rewarding(no_e), r_star=0.0, beta=1.0, segment_tokens=4, max_tokens=40)
    texts = []
    async for event in made.stream(STORY):
        if isinstance(event, Released):
            texts.append(event.text)
    record = made.audit.read()[0]
    # an answer may end early by itself, with a segment that holds its end alone
    assert len(texts) in (len(record.segments), len(record.segments) - 1)
    assert len(texts) > 1
    assert "".join(texts) == record.answer.text
    totals = record.totals
    assert totals["drawn"] == totals["kept"] + totals["rejected"] + totals["surplus"] + totals["overrun"]


async def test_stop_strings_end_the_answer(engine: Backend) -> None:
    whole = greedy_text = await asyncio.to_thread(greedy, engine)
    stop = greedy_text[40:44]
    made = guard_of(engine, max_tokens=64, segment_tokens=3, sampling={"temperature": 0.0})
    done = await made.generate(ASK, CallOptions(stop=(stop,)))
    assert done.finish == "stop"
    assert done.text == whole[: whole.index(stop)]


async def test_characters_are_never_split_between_chunks(engine: Backend) -> None:
    messages = [Message("user", "Repeat after me: 日本語のテキスト 🎉🎊 naïve अनुच्छेद")]
    made = guard_of(engine, segment_tokens=1, max_tokens=40, sampling={"temperature": 0.0})
    texts = [e.text async for e in made.stream(messages) if isinstance(e, Released)]
    assert any(len(text.encode()) > len(text) for text in texts)
    assert "\ufffd" not in "".join(texts)


async def test_entropies_come_with_tokens_when_asked(engine: Backend) -> None:
    session = await portal.acall(lambda: engine.open(OpenRequest(messages=ASK, entropies=True)))

    async def draw() -> list[Any]:
        (proposal,) = await session.propose([1], 6)
        tokens = [token async for chunk in proposal for token in chunk]
        await session.aclose()
        return tokens

    tokens = await portal.acall(draw)
    assert all(token.entropy is not None and 0 <= token.entropy < 12 for token in tokens)
    assert len({token.entropy for token in tokens}) > 1
    assert entropy_of([math.log(0.5), math.log(0.5)]) == pytest.approx(math.log(2))
    done = await guard_of(engine, method="cards", entropy_threshold=2.0, max_tokens=32, segment_tokens=32).generate(ASK)
    assert done.totals.segments > 1


def unfinished(engine: Backend, server: Server) -> int:
    if isinstance(engine, VllmEngineBackend):
        return int(engine.engine.get_num_unfinished_requests())
    return server.running()


async def test_cancelling_frees_the_engine(engine: Backend, vllm_server: Server) -> None:
    made = guard_of(engine, max_tokens=2000, segment_tokens=16, parallel=2)
    stream = made.stream(STORY)
    async for event in stream:
        if isinstance(event, Released):
            break
    assert await asyncio.to_thread(unfinished, engine, vllm_server) > 0
    await stream.aclose()
    # Far less than what the answer would still take.
    async with asyncio.timeout(10):
        while await asyncio.to_thread(unfinished, engine, vllm_server):
            await asyncio.sleep(0.05)
    assert made.audit.read()[0].finish == "cancelled"


async def test_64_calls_at_once(engine: Backend) -> None:
    made = guard_of(engine, rewarding(no_e), r_star=0.0, beta=1.0, segment_tokens=4, max_tokens=8)
    prompts = [[Message("user", f"Say the number {i}.")] for i in range(64)]
    answers = await made.batch(prompts, concurrency=64)
    assert len({answer.call_id for answer in answers}) == 64
    for i, answer in enumerate(answers):
        assert answer.text
        record = made.audit.get(answer.call_id)
        assert record.prompt[0].content.text == f"Say the number {i}."
        assert record.answer.text == answer.text
    if isinstance(engine, VllmServerBackend):
        pool = engine.servers._client._transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) <= 64
        assert await _idle(pool)


async def _idle(pool: Any) -> bool:
    """Whether every connection of the pool comes to rest."""
    for _ in range(50):
        if all(connection.is_idle() for connection in pool.connections):
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_long_prompt_is_named(engine: Backend) -> None:
    with pytest.raises(ContextTooLong):
        await guard_of(engine).generate([Message("user", "many different words here " * 4000)])


def test_a_killed_server_is_named_and_the_other_serves_on(vllm_server: Server, relay: Relay, tmp_path: Path) -> None:
    options = {"base_url": [relay.url, vllm_server.url], "retries": 1, "rest": 600}
    made = Guard(
        policy(max_tokens=400, segment_tokens=8, optimistic=True),  # one request, which is under way when it dies
        judges=[rewarding(lambda p: 9.0)],
        audit=MemoryStore(),
        backend="vllm-server",
        options=options,
    )
    stream = made.blocking.stream(STORY)
    released = (event for event in stream if isinstance(event, Released))
    for _ in range(3):
        next(released)
    relay.kill()
    with pytest.raises(BackendUnavailable, match=str(relay.port)) as caught:
        list(released)
    assert caught.value.retryable
    record = made.audit.read()[0]
    assert (record.finish, record.error) == ("failed", "BackendUnavailable")
    assert record.answer.text
    assert len(record.segments) >= 3
    assert made.blocking.generate(ASK, CallOptions(max_tokens=8)).text
    again = Relay(vllm_server, tmp_path / "again.log", port=relay.port)
    try:
        engine = portal.call(lambda: load_backend("embedded", "vllm-server", made._given.options))
        replica = engine.servers.replicas[0]  # type: ignore[attr-defined]
        assert replica.rests_until > time.monotonic()
        assert again.connections() == 0
        replica.rests_until = 0.0
        made.blocking.batch([ASK] * 2, CallOptions(max_tokens=8))
        assert again.connections() > 0
    finally:
        again.kill()


def test_a_server_killed_between_two_segments_ends_no_call(vllm_server: Server, relay: Relay) -> None:
    guard = Guard(
        policy(max_tokens=48, segment_tokens=8, optimistic=False),  # a request for each segment
        judges=[rewarding(lambda p: 9.0)],
        audit=MemoryStore(),
        backend="vllm-server",
        options={"base_url": [relay.url, vllm_server.url], "retries": 1, "rest": 600},
    )
    stream = guard.blocking.stream(STORY)
    released = (event for event in stream if isinstance(event, Released))
    next(released)
    relay.kill()
    list(released)
    record = guard.audit.read()[0]
    assert record.finish == "length"


def test_wrong_servers_and_options_are_named(vllm_server: Server) -> None:
    def failing(model: str = "embedded", **options: Any) -> str:
        with pytest.raises((BackendError, InputError)) as caught:
            portal.call(lambda: load_backend(model, "vllm-server", options))
        return str(caught.value)

    assert "cannot be reached" in failing(base_url="http://127.0.0.1:9", retries=0)
    assert "does not serve 'other'" in failing("other", base_url=vllm_server.url)
    shown = failing(base_url=vllm_server.url, api_kee="sk-secret")
    assert "api_kee" in shown
    assert "secret" not in shown
    assert "base_url" in failing(timeout=1.0)
    with pytest.raises(InputError, match="dtype: Input should be"):
        portal.call(lambda: load_backend("embedded", "vllm", {"dtype": "no-such-type"}))
    with pytest.raises(BackendError, match="vLLM could not start"):
        portal.call(lambda: load_backend("embedded", "vllm", {"max_model_len": 10**6}))
    with pytest.raises(InputError, match="no option 'max_modell_len', did you mean 'max_model_len'"):
        portal.call(lambda: load_backend("embedded", "vllm", {"max_modell_len": 1}))


def test_the_key_is_sent_and_never_shown(embedded_model: Path) -> None:
    model = ChatStars(model=str(embedded_model), base_url="http://127.0.0.1:9", api_key="sk-secret")  # type: ignore[arg-type]
    assert "sk-secret" not in repr(model) + model._get_llm_string() + str(model.to_json())
    guard = model._guard({})
    assert guard._given.options["api_key"].get_secret_value() == "sk-secret"
    made = Servers(parse_options({"base_url": "https://x.test/v1/", "api_key": "sk-secret"}))
    assert made._client.headers["authorization"] == "Bearer sk-secret"
    assert made.replicas[0].url == "https://x.test"
    assert "sk-secret" not in repr(made.options)


def test_the_identity_says_in_which_numbers_it_computes(vllm_engine: VllmEngineBackend) -> None:
    assert f"torch.{vllm_engine.identity['dtype']}" == str(vllm_engine.engine.model_config.dtype)


def test_an_engine_says_that_it_warms_up(vllm_engine: VllmEngineBackend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stars_guard")
    portal.call(lambda: _warm_up(vllm_engine.engine, "a/model", 60.0))
    assert "'a/model' is warming up" in caplog.text


def test_auto_takes_vllm_and_says_so(caplog: pytest.LogCaptureFixture, vllm_engine: Backend) -> None:
    with caplog.at_level("INFO", logger="stars_guard"):
        chosen = portal.call(lambda: load_backend("embedded", "auto"))
    assert chosen is vllm_engine
    assert "backend auto: vllm for embedded" in caplog.text
    assert chosen.identity["engine"].startswith("vllm 0")


def test_chat_stars_on_both(vllm_server: Server, vllm_engine: Backend) -> None:
    models = [
        ChatStars(policy="default", backend="vllm", max_tokens=24),
        ChatStars(policy="default", backend="vllm-server", base_url=vllm_server.url, max_tokens=24),
    ]
    for model in models:
        message = model.invoke("Name a river.", temperature=0.0)
        assert message.text
        assert "".join(chunk.text for chunk in model.stream("Name a river.", temperature=0.0)) == message.text
        record = model._guard({}).audit.read()[0]
        assert record.backend["engine"].startswith("vllm")
        assert os.path.basename(record.backend["model"]) == "smollm2-135m-instruct"


def test_a_termination_of_the_command_ends_its_engine(tmp_path: Path) -> None:
    source, target = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    source.write_text('{"prompt": "Count to a thousand."}\n' * 4000)
    command = ["run", str(source), "-o", str(target), "--backend", "vllm", "--policy", "monitor", "--max-tokens", "8"]
    said = tmp_path / "stderr"
    with said.open("w") as errors:
        worker = subprocess.Popen(
            [sys.executable, "-c", "from stars_guard.cli import main; main()", *command],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        )
    try:
        end = time.monotonic() + 300
        while not (target.exists() and target.stat().st_size) and time.monotonic() < end and worker.poll() is None:
            time.sleep(0.2)
        children = psutil.Process(worker.pid).children(recursive=True)
        assert any("VLLM" in " ".join(child.cmdline()) for child in children)
        worker.terminate()
        assert worker.wait(60) == 128 + signal.SIGTERM
        gone, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        assert gone
        assert "Exception ignored" not in said.read_text()
    finally:
        worker.kill()
        worker.wait()
