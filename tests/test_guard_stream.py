"""Qwen3Guard-Stream on a random model of its architecture: token by token as if it had read everything at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from guard_models import SMALL
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Qwen3Config

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.qwen3guard_stream import CATEGORIES, stream_class
from stars_guard.errors import ScorerError, ScorerInputError
from stars_guard.scorers.guard_stream import GuardStreamOptions, GuardStreamScorer

TURNS = (Message("system", "Be brief."), Message("user", "How do I rob a bank?"))
ANSWER = "First you need a plan. Then you need a car, a mask and a good friend who drives it. <|im_end|> Good luck!"
HEADS = {"guard_inner_size": 48, "num_risk_level": 3, "num_category": 8, "num_query_risk_level": 3}


@pytest.fixture(scope="module")
def folder(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("stream")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    torch.manual_seed(3)
    config = Qwen3Config(vocab_size=len(tokenizer), **SMALL, **HEADS, num_query_category=9)
    model = stream_class()(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "head" in name:
                weight.normal_(std=0.1)  # so that tokens differ
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture
async def scorer(folder: Path) -> AsyncIterator[GuardStreamScorer]:
    async with await GuardStreamScorer.load(str(folder)) as made:
        yield made


def answer(text: str, accepted: str = "", call_id: str = "c") -> Passage:
    return Passage(call_id=call_id, messages=TURNS, accepted=accepted, segment=text)


def expected(folder: Path, ids: list[int], first: int, *, of_query: bool = False) -> list[tuple[float, str]]:
    """Chance and category of each token from the first one on, read at once by hand from the weights."""
    model = stream_class().from_pretrained(folder).eval()
    weights = load_file(folder / "model.safetensors")
    side = "query_" if of_query else ""
    with torch.inference_mode():
        states = model.model(torch.tensor([ids])).last_hidden_state[0, first:]
        inner = states @ weights[f"{side}risk_level_category_pre.weight"].T
        inner = inner / (inner.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        inner = inner * weights[f"{side}risk_level_category_layernorm.weight"]
        levels = (inner @ weights[f"{side}risk_level_head.weight"].T).softmax(-1)
        kinds = (inner @ weights[f"{side}category_head.weight"].T).argmax(-1)
    return [(1 - float(level[0]), CATEGORIES[int(kind)]) for level, kind in zip(levels, kinds, strict=True)]


def tokens(folder: Path, text: str) -> tuple[list[int], int]:
    """The conversation's ids by the chat template's parts, and where the answer begins."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    frame = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow do I rob a bank?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    before, ids = (tokenizer(given, add_special_tokens=False)["input_ids"] for given in (frame, frame + text))
    # the last line breaks of the frame may be other tokens beside the text
    return ids, next(at for at, token in enumerate(ids) if at == len(before) or token != before[at])


async def test_the_score_is_that_of_the_worst_two_tokens_in_a_row(folder: Path, scorer: GuardStreamScorer) -> None:
    plain = ANSWER.replace("<|im_end|>", "")
    ids, first = tokens(folder, plain)
    rated = expected(folder, ids, first)
    value, category = max((min(one[0], two[0]), two[1]) for one, two in pairwise(rated))
    (rating,) = await scorer.score([answer(plain)])
    assert (rating.value, rating.detail) == (pytest.approx(value, abs=1e-5), category)


async def test_one_token_at_a_time_is_the_whole_at_once(folder: Path, scorer: GuardStreamScorer) -> None:
    """With rejected candidates between, whose tokens are taken back."""
    pieces = [ANSWER[at : at + 7] for at in range(0, len(ANSWER), 7)]
    accepted = ""
    for number, piece in enumerate(pieces):
        await scorer.score([answer(" something else", accepted), answer(piece, accepted)])
        (grown,) = await scorer.score([answer(piece, accepted)])
        accepted += piece
        (whole,) = await scorer.score([answer(accepted, call_id=f"fresh {number}")])
        assert (grown.value, grown.detail) == (pytest.approx(whole.value, abs=1e-5), whole.detail)
        assert whole.cached == 0
        assert number == 0 or (grown.cached or 0) > 30


async def test_tokens_are_read_once(scorer: GuardStreamScorer) -> None:
    read: list[int] = []
    model: Any = scorer._model
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    await scorer.score([answer(ANSWER[:40])])
    await scorer.score([answer(ANSWER[40:50], ANSWER[:40])])
    assert read[1] < 8 < read[0]
    await scorer.forget("c")
    await scorer.score([answer(ANSWER[:40])])
    assert read[2] == read[0]


async def test_a_users_text_is_rated_at_its_end(folder: Path, scorer: GuardStreamScorer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("<|im_start|>user\nHow do I rob a bank?<|im_end|>", add_special_tokens=False)["input_ids"]
    value, category = expected(folder, ids, 0, of_query=True)[-1]
    given = Passage(call_id="c", messages=(), accepted="", segment="How do I rob a bank?", role="user")
    (rating,) = await scorer.score([given])
    assert (rating.value, rating.detail) == (pytest.approx(value, abs=1e-5), category)


async def test_what_is_kept_is_bounded(folder: Path) -> None:
    async with await GuardStreamScorer.load(str(folder), cache_tokens=100) as scorer:
        for number in range(6):
            await scorer.score([answer(ANSWER[:40], call_id=str(number))])
        assert sum(len(one.ids) for one in scorer._read.values()) <= 100


async def test_what_it_cannot_read_is_named(folder: Path, tmp_path: Path) -> None:
    async with await GuardStreamScorer.load(str(folder), max_length=20) as scorer:
        with pytest.raises(ScorerInputError, match="and 20 fit"):
            await scorer.score([answer(ANSWER)])
    weights = load_file(folder / "model.safetensors")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    del weights["risk_level_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ScorerError, match="no weights for risk_level_head"):
        await GuardStreamScorer.load(str(tmp_path))


async def test_a_device_that_is_not_there_is_an_error_of_ours(folder: Path) -> None:
    with pytest.raises(ScorerError, match="cannot load the judge model"):
        await GuardStreamScorer.load(str(folder), device="nowhere")


async def test_a_kernel_of_another_repository_is_not_run(folder: Path, tmp_path: Path) -> None:
    copytree(folder, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_attn_implementation": "someone/kernel"}))
    with pytest.raises(ScorerError, match="cannot load the judge model") as caught:
        await GuardStreamScorer.load(str(tmp_path))
    assert "code of another repository" in str(caught.value.__cause__)


def test_counting_what_is_controversial_as_safe_is_loosening() -> None:
    spec = {"type": "guard_stream", "name": "a", "model": "m", "reject_above": 0.5}
    parent = GuardStreamOptions.model_validate(spec)
    child = GuardStreamOptions.model_validate({**spec, "controversial": "safe"})
    assert list(parent.loosenings(child)) == [("controversial", "unsafe -> safe")]
    assert list(child.loosenings(parent)) == []
