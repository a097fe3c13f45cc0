"""A probe on vLLM, in process and over HTTP: values, texts, scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER, missing, policy
from probe_files import a_model, a_probe, pass_of, rows_of
from transformers import AutoModelForCausalLM
from vllm_servers import Server

from stars_guard.audit import MemoryStore
from stars_guard.auditing.redoing import redo
from stars_guard.backends.base import Backend, OpenRequest
from stars_guard.backends.vllm_engine import VllmEngineBackend, VllmOptions
from stars_guard.backends.vllm_server import VllmServerBackend, VllmServerOptions
from stars_guard.calling import portal
from stars_guard.core.directions import Directions
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.engines import vllm_process
from stars_guard.engines.probe_install import install
from stars_guard.errors import InputError
from stars_guard.guard import Guard

pytestmark = pytest.mark.skipif(not vllm_process.installed(), reason="vLLM is not installed")

FLOAT32 = 1e-4
"""How far a value may be off: this share of the product of lengths of state and direction."""


class Case:
    """A small checkpoint, two probes for it, and the copy in which the first is installed."""

    def __init__(self, where: Path, embedded_model: Path) -> None:
        self.model = a_model(where / "model", embedded_model, tie_word_embeddings=True)
        self.file, self.other = where / "probe.safetensors", where / "other.safetensors"
        # long rows, which would win wherever they are not forbidden
        rows = [[40 * one for one in row] for row in rows_of(3, 64)]
        self.probe = a_probe(self.file, rows, model=self.model, weight=[0.01, 0.02, -0.01])
        a_probe(self.other, rows_of(1, 64, seed=8), model=self.model)
        self.copy = where / "copy"
        install(self.model, self.probe, self.copy)

    def states(self, ids: list[int]) -> torch.Tensor:
        """The final hidden states after each token."""
        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32).eval()
        return pass_of(model, ids)[1]


@pytest.fixture(scope="module")
def case(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("probe"), embedded_model)


@pytest.fixture(scope="module")
def server(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not vllm_process.installed():
        missing("vLLM", "make setup installs it on Linux")
    made = Server(case.copy, tmp_path_factory.mktemp("server") / "log")
    yield made
    made.kill()


@pytest.fixture(scope="module")
def backends(case: Case, server: Server) -> Iterator[dict[str, Backend]]:
    async def load() -> dict[str, Backend]:
        engine = await VllmEngineBackend.load(str(case.copy), VllmOptions(dtype="float32", max_model_len=256))
        return {"in process": engine}

    made = portal.call(load)
    server.wait()
    options = VllmServerOptions(base_url=(server.url,), tokenizer=str(case.copy))
    made["server"] = portal.call(lambda: VllmServerBackend.load(str(case.copy), options))
    yield made
    for backend in made.values():
        portal.call(backend.aclose)


async def generate(
    backend: Backend, directions: tuple[Directions, ...], *, temperature: float = 0.0, count: int = 1, tokens: int = 12
) -> tuple[list[int], list[list[Token]]]:
    await backend.check_directions(directions)
    session = await backend.open(
        OpenRequest(messages=USER, sampling=Sampling(temperature=temperature), seeded=True, directions=directions)
    )
    proposals = await session.propose(range(count), tokens)
    found = [[token async for chunk in proposal for token in chunk] for proposal in proposals]
    ids = list(session.ids)  # type: ignore[attr-defined]
    await session.aclose()
    return ids, found


@pytest.mark.parametrize("kind", ["in process", "server"])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_values_agree_with_the_states(case: Case, backends: dict[str, Backend], kind: str, temperature: float) -> None:
    directions = (case.probe.directions,)
    ids, answers = portal.call(lambda: generate(backends[kind], directions, temperature=temperature, count=3))
    matrix = torch.tensor(case.probe.directions.rows).T
    for answer in answers:
        assert answer
        states = case.states([*ids, *(token.id for token in answer)])[len(ids) - 1 :]
        for token, state in zip(answer, states, strict=False):
            size = state.norm() * matrix.norm(dim=0)
            assert ((torch.tensor(token.projections) - state @ matrix).abs() <= FLOAT32 * size).all()


@pytest.mark.parametrize("kind", ["in process", "server"])
def test_the_text_is_that_of_the_checkpoint_itself(case: Case, backends: dict[str, Backend], kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32).eval()
    for directions in ((), (case.probe.directions,)):
        ids, (answer,) = portal.call(lambda asked=directions: generate(backends[kind], asked))
        with torch.inference_mode():
            wanted = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
        assert [token.id for token in answer] == wanted
        assert all(bool(token.projections) == bool(directions) for token in answer)
        ids, answers = portal.call(lambda asked=directions: generate(backends[kind], asked, temperature=1.5, count=8))
        assert all(token.id < 49152 for one in answers for token in one)


@pytest.mark.parametrize("kind", ["in process", "server"])
@pytest.mark.parametrize("optimistic", [True, False])
def test_a_whole_call(case: Case, backends: dict[str, Backend], kind: str, optimistic: bool) -> None:
    judge = {"type": "probe", "name": "inside", "probe": str(case.file), "weight": 1.0}
    made = policy(judges=[judge], max_tokens=12, segment_tokens=4, optimistic=optimistic, beta=5.0)
    store = MemoryStore()
    Guard(made, model=backends[kind], audit=store).blocking.batch([USER] * 4)
    for record in store.read():
        scores = [score for segment in record.segments for one in segment.attempts for score in one.scores]
        assert scores
        assert all(score.error is None and score.value is not None for score in scores)
        assert record.prompt_reward is not None
        assert redo(record) is None


@pytest.mark.parametrize("kind", ["in process", "server"])
def test_what_can_not_be_had_is_refused(case: Case, backends: dict[str, Backend], kind: str) -> None:
    judge: dict[str, Any] = {"type": "probe", "name": "inside", "probe": str(case.other), "weight": 1.0}
    guard = Guard(policy(judges=[judge]), model=backends[kind], audit=MemoryStore())
    with pytest.raises(InputError, match="not the one that is installed"):
        guard.blocking.load()
    judge["probe"] = str(case.file)
    guard = Guard(policy(judges=[judge], method="cards"), model=backends[kind], audit=MemoryStore())
    with pytest.raises(InputError, match="entropies"):
        guard.blocking.generate(USER)
