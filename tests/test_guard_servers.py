"""A guard model on vLLM servers of several versions: newer ones give the labels asked for, older ones the likeliest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from json_servers import JsonServer

from stars_guard.engines.vllm_client import parse_options
from stars_guard.errors import ScorerError
from stars_guard.scorers._guard_engines import ServerGuard
from stars_guard.scorers._guard_writing import Writing

VOCABULARY = {number: -0.1 * number for number in range(1, 40)}
"""Log probabilities of a model's next token; the smaller the id, the likelier."""


class Completions(JsonServer):
    """Answers as ``/v1/completions`` does. ``by_label`` is what vLLM 0.26 brought."""

    def __init__(self, by_label: bool) -> None:
        self.by_label = by_label
        super().__init__()

    def answer(self, body: Any) -> Any:
        choices = [
            {"index": at, "logprobs": {"top_logprobs": [self.tops(body)]}} for at, _ in enumerate(body["prompt"])
        ]
        return {"choices": choices[::-1]}

    def tops(self, body: dict[str, Any]) -> dict[str, float]:
        wanted = body.get("logprob_token_ids") if self.by_label else None
        ids = wanted or sorted(VOCABULARY, key=lambda number: -VOCABULARY[number])[: min(20, body["logprobs"])]
        return {f"token_id:{number}": VOCABULARY[number] for number in ids}


@pytest.fixture(params=[True, False], ids=["0.26", "0.22"])
def server(request: pytest.FixtureRequest) -> Iterator[Completions]:
    with Completions(request.param) as made:
        yield made


def guard(server: Completions) -> ServerGuard:
    return ServerGuard("guard", parse_options({"base_url": server.url}))


async def test_labels_among_the_likeliest_are_found_by_any_version(server: Completions) -> None:
    engine = guard(server)
    for _ in range(2):
        rows = await engine.labels([[1, 2], [3]], (7, 15))
        assert rows == [([VOCABULARY[7], VOCABULARY[15]], None)] * 2
    # an older server is asked both ways once, and then the way that it understands
    assert len(server.bodies) == (2 if server.by_label else 3)
    await engine.aclose()


async def test_labels_that_are_unlikely_need_a_newer_server(server: Completions) -> None:
    engine = guard(server)
    if server.by_label:
        assert await engine.labels([[1]], (7, 35)) == [([VOCABULARY[7], VOCABULARY[35]], None)]
    else:
        with pytest.raises(ScorerError, match=r"no probabilities of the labels \(it should be vLLM 0\.26 or newer"):
            await engine.labels([[1]], (7, 35))
    await engine.aclose()


class Writer(JsonServer):
    """Answers as ``/v1/completions`` does with generated text: of prompts that begin with 1 it ends with token 9."""

    def answer(self, body: Any) -> Any:
        written = [5, 5, 9] if body["prompt"][0] == 1 else [5] * body["max_tokens"]
        return {"choices": [{"index": 0, "logprobs": {"tokens": [f"token_id:{token}" for token in written]}}]}


async def test_what_a_server_writes_is_taken_by_token() -> None:
    writing = Writing(
        until="<verdict>",
        limit=4,
        temperature=0.5,
        ends=frozenset(),
        text_of=lambda ids: "".join("<verdict>" if token == 9 else "hm " for token in ids),
    )
    with Writer() as server:
        engine = ServerGuard("guard", parse_options({"base_url": server.url}))
        assert await engine.write([[1, 2], [3]], writing) == [[1, 2, 5, 5, 9], None]
        again = await engine.write([[1, 2]], writing)
        await engine.aclose()
    assert again == [[1, 2, 5, 5, 9]]
    asked = {tuple(body["prompt"]): body for body in server.bodies[:2]}
    assert [body["max_tokens"] for body in asked.values()] == [4, 4]
    assert asked[1, 2]["stop"] == ["<verdict>"]
    # one question has one seed, and another has another
    assert server.bodies[2]["seed"] == asked[1, 2]["seed"] != asked[3,]["seed"]
