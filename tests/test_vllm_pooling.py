"""Judges on vLLM: a pooling engine in process and a server, beside the same model in transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER, policy, words
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from vllm_servers import Server

from stars_guard.audit import MemoryStore
from stars_guard.calling import portal
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import PolicyError, ScorerError
from stars_guard.guard import Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.scorers.vllm_pooling import VllmPoolingScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = (Message("user", "Tell me about the sea."),)
ANSWER = "The sea is wide and deep, and the old keeper of the light knows each of its moods by heart. " * 3


@pytest.fixture(scope="module")
def pooling_server(judge_dir: Path, vllm_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A vLLM server of the judge in ``judge_dir``. It starts once the engine of this process has ended."""
    with Server(judge_dir, tmp_path_factory.mktemp("pooling") / "log", ("--runner", "pooling")) as server:
        yield server


@pytest.fixture(scope="module", params=["in process", "server"])
def scorer(request: pytest.FixtureRequest, judge_dir: Path) -> Any:
    options: dict[str, Any] = {}
    if request.param == "server":
        options = {"base_url": request.getfixturevalue("pooling_server").url}
    made = portal.call(lambda: VllmPoolingScorer.load(str(judge_dir), **options))
    yield made
    portal.call(made.aclose)


def passages(*answers: str) -> list[Passage]:
    return [Passage(call_id="c", messages=ASK, accepted="", segment=answer) for answer in answers]


def test_scores_are_the_models_raw_logits(scorer: VllmPoolingScorer, judge_dir: Path) -> None:
    texts = [ANSWER, "No.", "Water " * 40, "<|im_end|> is text"]
    model = AutoModelForSequenceClassification.from_pretrained(judge_dir, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(judge_dir)
    expected = []
    with torch.inference_mode():
        for text in texts:
            ids = encode_chat(tokenizer, ASK, answer=text)
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
            expected.append(float(model.score(hidden)[0]))
    scores = [rating.value for rating in portal.call(lambda: scorer.score(passages(*texts)))]
    assert scores == pytest.approx(expected, abs=2e-3)
    assert len(set(scores)) == len(scores)


def test_one_more_segment_is_not_a_new_reading(scorer: VllmPoolingScorer, request: pytest.FixtureRequest) -> None:
    """A prefix that was judged before comes from the cache, save its last block."""
    cached: list[int] = []

    def judge(count: int) -> None:
        portal.call(lambda: scorer.score(passages("Once upon a time. " + ANSWER * count)))

    if scorer.identity["server"]:
        server = request.getfixturevalue("pooling_server")
        for count in (1, 2, 3):
            before = server.metric("vllm:prefix_cache_hits_total")
            judge(count)
            cached.append(server.metric("vllm:prefix_cache_hits_total") - before)
    else:
        engine = portal.call(scorer._classifier._engine._engine.ready)  # type: ignore[attr-defined]
        real = engine.encode

        async def watching(*args: Any, **kwargs: Any) -> Any:
            async for output in real(*args, **kwargs):
                cached.append(output.num_cached_tokens)
                yield output

        engine.encode = watching
        for count in (1, 2, 3):
            judge(count)
        engine.encode = real
    length = len(encode_chat(scorer._classifier._reader._tokenizer, ASK, answer="Once upon a time. " + ANSWER * 2))
    assert cached[0] < 64
    assert cached[2] >= length - 2 * 32


def test_many_calls_at_once(scorer: VllmPoolingScorer) -> None:
    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(scorer.score(passages(f"Answer {i}.")) for i in range(32))))

    together = [ratings[0].value for ratings in portal.call(ask)]
    alone = [portal.call(lambda i=i: scorer.score(passages(f"Answer {i}.")))[0].value for i in range(4)]
    assert together[:4] == pytest.approx(alone, abs=2e-3)


def test_in_a_policy(judge_dir: Path, pooling_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "name": "reward",
        "type": "vllm_pooling",
        "model": str(judge_dir),
        "base_url": pooling_server.url,
        "weight": 1.0,
        "api_key_env": "JUDGE_KEY",
    }
    loaded = load_policy(policy(judges=[spec], r_star=-100.0))
    with pytest.raises(PolicyError, match="JUDGE_KEY"):
        portal.call(lambda: load_cascade(loaded))
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    guard = Guard(loaded, model=ScriptedBackend(words()), audit=MemoryStore())
    assert guard.blocking.generate(USER).finish == "length"
    record = guard.audit.read()[0]
    assert record.scorers["reward"]["kind"] == "vllm_pooling"
    assert record.segments[0].attempts[0].reward is not None
    assert "sk-secret" not in record.model_dump_json()


def test_a_judge_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match="cannot load the judge model"):
        portal.call(lambda: VllmPoolingScorer.load(str(tmp_path / "no")))
