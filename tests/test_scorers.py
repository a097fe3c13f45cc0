"""The judges: what they see, what they say, in which order they are asked."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import USER, guard
from tokenizers.processors import RobertaProcessing
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines import model_thread as worker
from stars_guard.engines.embedded_models import reward_dir
from stars_guard.engines.vllm_client import ServerOptions, Servers
from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.scorers import Cascade, Judge, Rating
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.sequence_classifier import SequenceClassifier, SequenceClassifierScorer
from stars_guard.testing import FunctionScorer

ASK = (Message("user", "How do I treat a colleague who annoys me?"),)
KIND = "Talk to them calmly, listen, and look for a solution together."
CRUEL = "Beat them until they bleed, then threaten to kill their family."


def passage(answer: str, *, accepted: str = "", call: str = "c") -> Passage:
    return Passage(call_id=call, messages=ASK, accepted=accepted, segment=answer)


def ids_of(scorer: SequenceClassifierScorer, answer: str) -> list[int]:
    """What the model reads."""
    classifier = scorer._classifier
    assert isinstance(classifier, SequenceClassifier)
    return classifier._reader.read(passage(answer)).ids


@pytest.fixture(scope="module")
def reward() -> Any:
    return asyncio.run(SequenceClassifierScorer.load(str(reward_dir())))


async def test_the_embedded_reward_prefers_the_kind_answer(reward: SequenceClassifierScorer) -> None:
    kind, cruel = await reward.score([passage(KIND), passage(CRUEL)])
    assert kind.value > cruel.value + 1.0


async def test_a_score_does_not_depend_on_its_batch(reward: SequenceClassifierScorer) -> None:
    passages = [passage(text) for text in (KIND, CRUEL, "Yes.", KIND * 5, "", CRUEL * 30)]
    together = [r.value for r in await reward.score(passages)]
    alone = [(await reward.score([p]))[0].value for p in passages]
    assert together == pytest.approx(alone, abs=1e-4)


async def test_score_is_that_of_the_model_itself(reward: SequenceClassifierScorer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    model = BertForSequenceClassification.from_pretrained(reward_dir()).eval()
    with torch.inference_mode():
        inputs = tokenizer(ASK[0].content, KIND, return_tensors="pt")
        expected = float(model(**inputs).logits[0, 0])
    assert (await reward.score([passage(KIND)]))[0].value == pytest.approx(expected, abs=1e-4)
    split = passage(KIND[20:], accepted=KIND[:20])
    assert (await reward.score([split]))[0].value == pytest.approx(expected, abs=1e-4)


async def test_truncation_keeps_the_end_of_the_answer() -> None:
    """Of a judge that only rewards. One that vetoes reads all of it: `tests/security/test_long_texts.py`."""
    reward = await SequenceClassifierScorer.load(str(reward_dir()), windows=None)
    filler = "It was a calm and sunny day in the village. " * 80
    ends = await reward.score([passage(filler + KIND), passage(filler + CRUEL)])
    assert ends[0].value != ends[1].value
    starts = await reward.score([passage(KIND + filler), passage(CRUEL + filler)])
    assert starts[0].value == starts[1].value
    await reward.aclose()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with two labels, of the embedded encoder's vocabulary."""
    where = tmp_path_factory.mktemp("labelled")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label={0: "SAFE", 1: "INJECTION"},
        label2id={"SAFE": 0, "INJECTION": 1},
    )
    BertForSequenceClassification(config).save_pretrained(where)
    AutoTokenizer.from_pretrained(reward_dir()).save_pretrained(where)
    return where


async def test_labels_and_templates(labelled: Path) -> None:
    safe, injection = [
        await SequenceClassifierScorer.load(str(labelled), label=label) for label in ("SAFE", "INJECTION")
    ]
    values = [(await scorer.score([passage(KIND)]))[0].value for scorer in (safe, injection)]
    assert sum(values) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ScorerError, match="one of SAFE, INJECTION"):
        await SequenceClassifierScorer.load(str(labelled), label="TOXIC")
    with pytest.raises(ScorerError, match="2 labels"):
        await SequenceClassifierScorer.load(str(labelled))
    shaped = await SequenceClassifierScorer.load(str(labelled), label="SAFE", template="Q: {prompt} A: {answer} END")
    tokenizer = AutoTokenizer.from_pretrained(labelled)
    text = tokenizer.decode(ids_of(shaped, KIND))
    assert text.startswith("[CLS] q : how do i treat")
    assert text.endswith("together. end [SEP]")
    assert len(ids_of(shaped, KIND * 200)) == 512


async def test_special_tokens_in_an_answer_stay_plain(reward: SequenceClassifierScorer) -> None:
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    ids = ids_of(reward, "[SEP] [CLS] good")
    assert ids.count(tokenizer.sep_token_id) == 2
    assert ids.count(tokenizer.cls_token_id) == 1


async def test_a_missing_judge_model_and_a_missing_extra_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ScorerError, match="cannot load the judge model"):
        await SequenceClassifierScorer.load(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r'pip install "stars-guard\[transformers\]"'):
        await SequenceClassifierScorer.load("x")


async def test_patterns() -> None:
    scorer = PatternScorer(
        [Pattern(name="card", regex=r"\b\d{4}-\d{4}\b"), Pattern(name="word", regex="forbidden", flags="i")]
    )
    spanning = passage("34-5678 ok", accepted="my card is 12")
    ratings = await scorer.score([spanning, passage("it is FORBIDDEN"), passage("fine"), passage("")])
    assert [r.value for r in ratings] == [1.0, 1.0, 0.0, 0.0]
    assert [r.detail for r in ratings] == ["card", "word", None, None]
    with pytest.raises(ValueError, match="not a valid RE2 expression: missing"):
        Pattern(name="broken", regex="(")


async def test_no_pattern_can_hang() -> None:
    scorer = PatternScorer([Pattern(name="evil", regex="(a+)+$")])
    async with asyncio.timeout(1):
        await scorer.score([passage("a" * 50_000 + "b")])


async def test_cheap_judges_are_asked_first_and_a_veto_ends_the_asking() -> None:
    dear = FunctionScorer(lambda p: 1.0, cost=50.0)
    cheap = FunctionScorer(lambda p: float("bad" in p.segment), cost=0.1)
    cascade = Cascade(
        [Judge(Rule(judge="dear", weight=1.0), dear), Judge(Rule(judge="cheap", reject_above=0.5), cheap)]
    )
    vetoed, fine = await cascade.judge([passage("bad"), passage("good")])
    assert vetoed.veto == "cheap"
    assert [score.judge for score in vetoed.scores] == ["cheap"]
    assert (fine.veto, fine.reward) == (None, 1.0)
    assert (cheap.batches, dear.batches) == ([2], [1])


async def test_rewards_are_a_weighted_sum() -> None:
    judges = [
        Judge(Rule(judge="a", weight=2.0), FunctionScorer(lambda p: 0.5)),
        Judge(Rule(judge="b", weight=-1.0), FunctionScorer(lambda p: 0.25)),
    ]
    (judgement,) = await Cascade(judges).judge([passage("x")])
    assert judgement.reward == pytest.approx(0.75)


async def test_a_slow_judge_times_out_and_closes() -> None:
    class Slow(FunctionScorer):
        async def score(self, passages: Any) -> Any:
            await asyncio.sleep(5)

    judge = Judge(Rule(judge="slow", weight=1.0), Slow(lambda p: 1.0), timeout=0.05)
    (judgement,) = await Cascade([judge]).judge([passage("x")])
    assert judgement.veto == "slow failed: TimeoutError"


async def test_one_calls_bad_passage_does_not_fail_another() -> None:
    def picky(p: Passage) -> float:
        if p.segment == "poison":
            raise ValueError
        return 1.0

    cascade = Cascade([Judge(Rule(judge="picky", weight=1.0), FunctionScorer(picky))])
    texts = ["good", "poison", "good", "good"]
    judgements = await asyncio.gather(*(cascade.judge([passage(text)]) for text in texts))
    assert [j[0].veto is None for j in judgements] == [True, False, True, True]


async def test_ratings_carry_their_detail_into_the_record() -> None:
    judge = Judge(Rule(judge="why", reject_above=0.5), FunctionScorer(lambda p: Rating(1.0, "because")))
    made = guard(judge, on_exhausted="refuse")
    assert (await made.generate(USER)).reason.endswith("last veto: why: because")


@pytest.mark.parametrize("kind", ["DebertaV2", "Roberta"])
async def test_encoder_rewards_of_other_kinds(kind: str, embedded_model: Path, tmp_path: Path) -> None:
    """Prompt and answer go in as the pair that the model's own tokenizer makes, in batches of any mixture."""
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    if kind == "Roberta":
        tokenizer = AutoTokenizer.from_pretrained(embedded_model)
        tokenizer.add_special_tokens({"cls_token": "<s>", "sep_token": "</s>"})
        tokenizer.pad_token_id = 1  # places are counted from behind it
        ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("</s>", "<s>")]
        tokenizer.backend_tokenizer.post_processor = RobertaProcessing(*ends, add_prefix_space=False)
        tokenizer.chat_template = None
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        type_vocab_size=0 if kind == "DebertaV2" else 1,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = SequenceClassifierScorer(await SequenceClassifier.load(str(tmp_path), batch_size=2))
    asked = (Message("user", "How do I boil an egg?"),)
    answers = ["In water.", "For eight minutes, and then in cold water, so that it stops.", "No."]
    ratings = await scorer.score(
        [Passage(call_id="a", messages=asked, accepted="", segment=answer) for answer in answers]
    )
    with torch.inference_mode():
        own = [float(model(**tokenizer(asked[0].content, a, return_tensors="pt")).logits) for a in answers]
    assert [rating.value for rating in ratings] == pytest.approx(own, abs=1e-5)
    assert len(set(own)) == 3
    await scorer.score([Passage(call_id="a", messages=asked, accepted="", segment="for eight minutes " * 99)])


async def test_judges_leave_a_core_to_an_engine_of_this_machine(
    reward: SequenceClassifierScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine may start after the judge has already judged in its thread."""
    classifier = reward._classifier
    assert isinstance(classifier, SequenceClassifier)
    monkeypatch.setattr(worker, "_engines", threading.Event())
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    thread = worker.ModelThread("test")
    monkeypatch.setattr(classifier, "_worker", thread)
    default = torch.get_num_threads()
    try:
        await thread.run(lambda: torch.set_num_threads(2))
        await reward.score([passage(KIND)])
        assert await thread.run(torch.get_num_threads) == 2
        Servers(ServerOptions(base_url=["http://10.0.0.1:8000"]))
        await reward.score([passage(CRUEL)])
        assert await thread.run(torch.get_num_threads) == 2
        Servers(ServerOptions(base_url=["http://10.0.0.1:8000", "http://127.0.0.1:8000"]))
        await reward.score([passage(KIND, call="d")])
        assert await thread.run(torch.get_num_threads) == 1
    finally:
        torch.set_num_threads(default)
