"""Guard models that write before they answer: what they write is bounded, the same each time, and not written twice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import policy
from guard_models import random_guard, writing_guard
from transformers import AutoTokenizer
from written_questions import form_of

from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import PolicyError
from stars_guard.policy import load_policy
from stars_guard.prompting.guard_formats import GuardFormat, guard_format, presets
from stars_guard.scorers.guard_model import GuardModelScorer

FORM = GuardFormat("own", "judge : {{ answer }}", ("yes",), ("no",), writes="<verdict>")
CHANCE = 1 / (1 + math.exp(0.5 - 1.5))
"""Of the word "yes" against "no" after the verdict's mark, whatever was written before."""
WRITERS = [name for name in presets() if guard_format(name).writes]


def about(*answers: str, call_id: str = "c") -> list[Passage]:
    return [Passage(call_id=call_id, messages=(), accepted="", segment=answer) for answer in answers]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("writing")
    writing_guard(where)
    return where


@pytest.fixture
async def scorer(folder: Path) -> AsyncIterator[GuardModelScorer]:
    async with await GuardModelScorer.load(str(folder), FORM, max_written=8, batch_size=3) as made:
        yield made


def counted(scorer: GuardModelScorer) -> list[int]:
    """How many questions each pass of the model read, from now on."""
    rows: list[int] = []
    model: Any = scorer._engine
    model._model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return rows


async def test_the_score_is_the_chance_of_the_label_after_what_was_written(scorer: GuardModelScorer) -> None:
    ratings = await scorer.score(about("bad", "good", "bad good", "good bad"))
    assert [rating.value for rating in ratings] == pytest.approx([CHANCE] * 4, abs=1e-4)


async def test_without_a_verdict_there_is_no_score(scorer: GuardModelScorer) -> None:
    """The model goes on for ever, or ends its answer without one. Others of the batch have theirs."""
    ratings = await scorer.score(about("loop", "bad", "end", "good"))
    assert [math.isnan(rating.value) for rating in ratings] == [True, False, True, False]
    assert ratings[1].value == pytest.approx(CHANCE, abs=1e-4)


async def test_writing_is_bounded_in_tokens(scorer: GuardModelScorer) -> None:
    passes = counted(scorer)
    await scorer.score(about("loop"))
    assert passes == [1] * 8


async def test_a_question_is_answered_once(scorer: GuardModelScorer) -> None:
    asked = about("good", "loop")
    first = [rating.value for rating in await scorer.score(asked)]
    passes = counted(scorer)
    again = await scorer.score([*asked, *about("good", "loop", call_id="another call")])
    assert passes == []
    assert [rating.value for rating in again] == pytest.approx([*first, *first], nan_ok=True)
    # all of a question that is not asked again is known
    assert again[0].cached == 3
    await scorer.score(about("loop", "bad", "bad"))
    assert set(passes) == {1}


async def test_what_is_sampled_depends_on_the_question_alone(folder: Path) -> None:
    texts = [" ".join(["maybe"] * (count + 1)) for count in range(12)]
    found = []
    for order in (texts, texts[::-1]):
        async with await GuardModelScorer.load(str(folder), FORM, temperature=1.0, max_written=6) as scorer:
            ratings = dict(zip(order, await scorer.score(about(*order)), strict=True))
            found.append([math.isnan(ratings[text].value) for text in texts])
    assert found[0] == found[1]
    # two of three beginnings lead to a verdict
    assert len(set(found[0])) == 2


async def test_nobody_waits_for_what_is_written_in_vain(folder: Path) -> None:
    """The thread stops writing when the judge's time is over, so the next question is answered."""
    async with await GuardModelScorer.load(str(folder), FORM, max_written=4000) as scorer:
        passes = counted(scorer)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await scorer.score(about("loop"))
        (rating,) = await scorer.score(about("bad"))
        assert len(passes) < 4000
        assert rating.value == pytest.approx(CHANCE, abs=1e-4)


@pytest.mark.parametrize("preset", WRITERS)
async def test_a_preset_that_writes_on_a_random_model(preset: str, embedded_model: Path, tmp_path: Path) -> None:
    """What is written is what transformers generates after the golden rendering, alone and in a batch."""
    model = random_guard(preset, embedded_model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    golden = (Path(__file__).parent / "guard_renderings" / f"{preset}.txt").read_text(encoding="utf-8")
    asked = tokenizer(golden, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        whole = model.generate(torch.tensor([asked]), max_new_tokens=5, do_sample=False, eos_token_id=None)[0]
    async with await GuardModelScorer.load(str(tmp_path), form_of(preset), max_written=5) as scorer:
        writing = scorer._verdicts._writing
        # a text that is surely written becomes the mark, in place of the makers' own
        last = tokenizer.decode(whole[-2:])
        told = replace(writing, until=last, ends=frozenset())
        longer = [*asked[:-3], *asked]
        alone, beside = await scorer._engine.write([asked], told), await scorer._engine.write([longer, asked], told)
        assert alone == [whole.tolist()] == beside[1:]
        (rating,) = await scorer.score(about("Take a gun."))
    assert math.isnan(rating.value)


async def test_no_verdict_is_what_the_policy_says_of_errors(embedded_model: Path, tmp_path: Path) -> None:
    random_guard("granite-guardian-4.1-think", embedded_model, tmp_path)
    judge = {
        "name": "guard",
        "type": "guard_model",
        "model": str(tmp_path),
        "preset": "granite-guardian-4.1-think",
        "max_written": 2,
        "reject_above": 0.99,
    }
    passage = Passage(call_id="c", messages=(Message("user", "good"),), accepted="", segment="good", last=True)
    for on_error, veto in (("reject", "guard failed: the score is not a finite number"), ("ignore", None)):
        cascade = await load_cascade(load_policy(policy(judges=[{**judge, "on_error": on_error}])))
        (judgement,) = await cascade.judge([passage])
        assert judgement.veto == veto
        assert judgement.scores[0].value is None
        await cascade.aclose()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"preset": "llama-guard-3", "max_written": 5}, "llama-guard-3 writes nothing first"),
        ({"preset": "llama-guard-3", "temperature": 0.0}, "llama-guard-3 writes nothing first"),
        ({"preset": "granite-guardian-4.1-think", "effort": "low"}, "granite-guardian-4.1-think doesn't take it"),
        ({"preset": "granite-guardian-4.1-think", "temperature": -1.0}, "greater than or equal to 0"),
    ],
)
def test_what_a_policy_gets_wrong_about_writing_is_named(more: dict[str, Any], expected: str) -> None:
    spec = {"name": "g", "type": "guard_model", "model": "m", "reject_above": 0.5, **more}
    with pytest.raises(PolicyError, match=expected):
        load_policy(policy(judges=[spec]))
