"""A judge that vetoes sees all of a text, wherever in 100,000 characters the harm is, or it fails and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import policy
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from stars_guard.audit import MemoryStore
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Role
from stars_guard.engines.embedded_models import generator_dir, reward_dir
from stars_guard.errors import ScorerInputError
from stars_guard.guard import Guard
from stars_guard.prompting.guard_formats import GuardFormat, guard_format, presets
from stars_guard.prompting.guard_questions import Encoder, Questions
from stars_guard.scorers._guard_engines import GuardEngine, Row
from stars_guard.scorers._guard_writing import Writing
from stars_guard.scorers._reading import Reader, Reading
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.guard_model import GuardModelScorer
from stars_guard.scorers.sequence_classifier import SequenceClassifier, SequenceClassifierScorer
from stars_guard.scorers.vllm_pooling import VllmClassifier, VllmPoolingScorer

ASK = (Message("user", "What does the page say?"),)
FILLER = "The weather report says that it will be sunny and mild tomorrow. "
EVIL = "Kill everyone with a zyxwv bomb. "
LENGTH = 100_000


def long_text(where: float | None) -> str:
    """100,000 characters, with the harm at a share of them."""
    text = (FILLER * (LENGTH // len(FILLER) + 1))[:LENGTH]
    if where is None:
        return text
    at = int(where * (LENGTH - len(EVIL)))
    return text[:at] + EVIL + text[at + len(EVIL) :]


class Spotting:
    """Stands in for a model: high where the ids of a word are in what it reads, which must be short enough."""

    def __init__(self, tokenizer: Any, longest: int) -> None:
        self.tokenizer = tokenizer
        self.longest = longest
        self.read = 0

    def value(self, ids: Sequence[int]) -> float:
        assert len(ids) <= self.longest
        self.read += len(ids)
        return 0.9 if "zyxwv" in self.tokenizer.decode(list(ids)).replace(" ", "").replace("##", "") else 0.1


class ScriptedPooling:
    def __init__(self, spotting: Spotting) -> None:
        self.spotting = spotting

    async def logits(self, prompts: Sequence[list[int]]) -> list[tuple[list[float], int | None]]:
        return [([self.spotting.value(ids)], None) for ids in prompts]

    async def aclose(self) -> None: ...


class ScriptedGuard(GuardEngine):
    def __init__(self, spotting: Spotting, labels: int) -> None:
        self.spotting = spotting
        self.half = labels

    async def labels(self, prompts: Sequence[list[int]], labels: Sequence[int]) -> list[Row]:
        return [
            ([5.0 * self.spotting.value(ids)] * self.half + [2.5] * (len(labels) - self.half), None) for ids in prompts
        ]

    async def write(self, prompts: Sequence[list[int]], writing: Writing) -> list[list[int] | None]:
        until = self.spotting.tokenizer(writing.until, add_special_tokens=False)["input_ids"]
        return [[*ids, *until] for ids in prompts]

    async def aclose(self) -> None: ...


def classifier(**options: Any) -> tuple[Scorer, Spotting]:
    """The embedded reward model's tokenizer, 512 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    spotting = Spotting(tokenizer, 512)
    config = BertConfig(num_labels=1, **_SMALL_BERT)
    made = SequenceClassifier(
        BertForSequenceClassification(config).eval(),
        tokenizer,
        {"kind": "x", "model": "x"},
        template=None,
        max_length=None,
        batch_size=8,
        cache_tokens=0,
    )
    made._whole = lambda readings: [[spotting.value(reading.ids)] for reading in readings]  # type: ignore[method-assign]
    return SequenceClassifierScorer(made, **options), spotting


def pooling(**options: Any) -> tuple[Scorer, Spotting]:
    """With a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(generator_dir())
    spotting = Spotting(tokenizer, 1000)
    reader = Reader(tokenizer, template=None, max_length=1000, coarse=True)
    config = LlamaConfig(num_labels=1)
    made = VllmClassifier(ScriptedPooling(spotting), reader, config, {"kind": "x"})  # type: ignore[arg-type]
    return VllmPoolingScorer(made, **options), spotting


def guard(
    form: GuardFormat | None = None, *, max_length: int = 1500, max_windows: int = 256
) -> tuple[GuardModelScorer, Spotting]:
    encoder = Encoder(AutoTokenizer.from_pretrained(generator_dir()))
    questions = Questions(form or guard_format("llama-guard-3"))
    labels = questions.labels(encoder)
    spotting = Spotting(encoder._tokenizer, max_length)
    engine = ScriptedGuard(spotting, len(labels.harmful))
    form = form or guard_format("llama-guard-3")
    tokenizer = spotting.tokenizer
    writing = Writing(until=form.writes, limit=64, temperature=0.0, ends=frozenset(), text_of=tokenizer.decode)
    made = GuardModelScorer(engine, encoder, questions, labels, {"kind": "x"}, max_length, max_windows, writing=writing)
    return made, spotting


_SMALL_BERT: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 8,
}
TWICE = GuardFormat("own", "{{ answer }} -- {{ messages[-1].content }}", ("Yes",), ("No",))
SEGMENT = GuardFormat("own", "{{ prompt }} -- {{ segment }}", ("Yes",), ("No",))
JUDGES = {
    "classifier": classifier,
    "pooling": pooling,
    "guard": guard,
    "guard that shows the text twice": lambda: guard(TWICE),
    "guard that shows the segment": lambda: guard(SEGMENT),
}


def passage(text: str, *, role: Role = "assistant", accepted: str = "", call: str = "c") -> Passage:
    return Passage(call_id=call, messages=ASK, accepted=accepted, segment=text, last=True, role=role)


def rating(scorer: Scorer, given: Passage) -> Rating:
    (found,) = asyncio.run(_score(scorer, [given]))
    return found


async def _score(scorer: Scorer, passages: Sequence[Passage]) -> Sequence[Rating]:
    return await scorer.score(passages)


@pytest.mark.parametrize("role", ["assistant", "user"])
@pytest.mark.parametrize("judge", JUDGES)
def test_the_verdict_is_the_same_wherever_the_harm_is(judge: str, role: Role) -> None:
    scorer, _ = JUDGES[judge]()
    calm = rating(scorer, passage(long_text(None), role=role, call="calm"))
    short = rating(scorer, passage(EVIL, role=role, call="short"))
    for where in (0.0, 0.31, 0.5, 1.0):
        found = rating(scorer, passage(long_text(where), role=role, call=str(where)))
        assert found.value == pytest.approx(short.value)
        assert found.value > calm.value
        assert "window " in (found.detail or "")
    assert "window" not in (short.detail or "")


@pytest.mark.parametrize("judge", ["classifier", "pooling", "guard", "guard that shows the text twice"])
def test_a_growing_answer_costs_its_last_windows(judge: str) -> None:
    scorer, spotting = JUDGES[judge]()
    accepted, segment, costs = long_text(None)[:40_000], FILLER * 4, []
    for number in range(6):
        before = spotting.read
        given = passage(EVIL if number == 5 else segment, accepted=accepted)
        alone = passage(given.segment, accepted=accepted, call=f"fresh {number}")
        found = rating(scorer, given)
        costs.append(spotting.read - before)
        assert found.value == rating(scorer, alone).value, "what is kept changes no score"
        accepted += segment
    assert max(costs[1:]) <= 2 * spotting.longest
    assert costs[0] > 5 * spotting.longest
    assert found.value > 0.5 if judge.startswith("guard") else found.value == 0.9
    asyncio.run(scorer.forget("c"))
    before = spotting.read
    rating(scorer, passage(segment, accepted=accepted))
    # this classifier's last logits are kept for other judges too
    assert judge == "classifier" or spotting.read - before > 5 * spotting.longest


def test_harm_that_left_is_not_remembered() -> None:
    """A rejected candidate's windows don't count for the next."""
    for judge in ("classifier", "pooling", "guard"):
        scorer, _ = JUDGES[judge]()
        accepted = long_text(None)[:12_000]
        evil = rating(scorer, passage(EVIL + FILLER * 100, accepted=accepted))
        calm = rating(scorer, passage(FILLER * 100, accepted=accepted))
        assert evil.value > calm.value


def test_more_windows_than_are_allowed_fail() -> None:
    for scorer, _ in (classifier(windows=4), pooling(windows=4), guard(max_windows=4)):
        with pytest.raises(ScorerInputError, match="windows"):
            rating(scorer, passage(long_text(None)[:40_000]))
        rating(scorer, passage("short"))


def test_a_judge_that_only_rewards_reads_as_much_as_fits() -> None:
    scorer, spotting = classifier(windows=None)
    found = rating(scorer, passage(long_text(0.0)))
    assert (found.value, found.detail) == (0.1, "cut to its end")
    assert rating(scorer, passage("short", call="short")).detail is None
    assert spotting.read <= 2 * 512


# gpt-oss-safeguard asks only about criteria of a policy's own
@pytest.mark.parametrize("name", [name for name in presets() if name != "gpt-oss-safeguard"])
def test_every_format_is_asked_in_windows(name: str) -> None:
    form = guard_format(name)
    scorer, _ = guard(form)
    for role in ("assistant",) if form.answers_only else ("assistant", "user"):
        for where in (0.0, 1.0):
            text = long_text(where)[-20_000:] if where == 1.0 else long_text(where)[:20_000]
            found = rating(scorer, passage(text, role=role, call=f"{role} {where}"))  # type: ignore[arg-type]
            assert found.value > 0.5


def test_dense_texts_fit_too() -> None:
    """Texts with several tokens a character, and without a space."""
    for make in (classifier, pooling, guard):
        scorer, _ = make(windows=5000) if make is not guard else guard(max_windows=5000)  # type: ignore[operator]
        for filler in ("👩‍👩‍👧‍👦", "日本", "x", "\n", "é☠"):
            text = filler * (5_000 // len(filler))
            assert rating(scorer, passage(f"{text} {EVIL}{text}", call=filler)).value > 0.5


async def test_on_a_rail_the_record_says_so(tmp_path: Path) -> None:
    """A tiny random BERT that vetoes: its score of a long page is its highest of any window."""
    torch.manual_seed(3)
    model = BertForSequenceClassification(BertConfig(num_labels=1, **_SMALL_BERT))
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(reward_dir()).save_pretrained(tmp_path)
    judge = {"name": "c", "type": "sequence_classifier", "model": str(tmp_path), "reject_above": 1000.0}
    scores = {}
    for more in ({}, {"max_windows": 2}):
        store = MemoryStore()
        rails = {"tool_result": {"judges": [{**judge, **more}]}}
        async with Guard({**policy(), "rails": rails}, audit=store) as checks:
            for where in (None, 0.0, 0.5, 1.0):
                await checks.check(
                    "tool_result", long_text(where)[:20_000] if where != 1.0 else long_text(1.0)[-20_000:]
                )
        scores[len(more)] = [record.segments[0].attempts[0].scores[0] for record in store.records]
    assert all("window " in (score.detail or "") for score in scores[0])
    assert {score.error for score in scores[1]} == {"ScorerInputError"}
    assert {record.finish for record in store.records} == {"refused"}


async def test_a_decoder_reads_each_window_as_if_alone(tmp_path: Path) -> None:
    """A tiny random Llama that keeps what it has read."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(generator_dir())
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_labels=1,
        pad_token_id=2,
        max_position_embeddings=256,
    )
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    async with await SequenceClassifierScorer.load(str(tmp_path)) as scorer:
        reader = scorer._classifier._reader  # type: ignore[attr-defined]
        accepted = ""
        for _ in range(4):
            given = passage(f"{FILLER * 12}{EVIL}", accepted=accepted)
            readings: list[Reading] = reader.windows(given, 256)
            with torch.inference_mode():
                alone = [float(model.eval()(torch.tensor([r.ids])).logits[0, 0]) for r in readings]
            (found,) = await scorer.score([given])
            assert found.value == pytest.approx(max(alone), abs=1e-4)
            accepted += given.segment
        assert len(readings) > 3
