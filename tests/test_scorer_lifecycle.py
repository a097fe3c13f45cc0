"""What a judge opens is closed, once, when its last user is gone."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy
from guard_models import random_guard

from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.judging import Rule
from stars_guard.core.segments import Passage
from stars_guard.engines.sharing import Shared
from stars_guard.errors import ScorerError
from stars_guard.policy import load_policy
from stars_guard.scorers import Cascade, Judge
from stars_guard.testing import FunctionScorer

REWARD = {"name": "r", "type": "sequence_classifier", "model": "embedded:reward", "weight": 1.0, "template": "{answer}"}
PASSAGE = Passage(call_id="c", messages=tuple(USER), accepted="", segment="Talk to them.")


@pytest.fixture(autouse=True)
def _nothing_else_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards of other tests may hold the same judges."""
    monkeypatch.setattr("stars_guard.calling.judge_loading._scorers", Shared())
    monkeypatch.setattr("stars_guard.scorers._classifier._classifiers", Shared())


def judge_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("stars-guard-judge")}


async def loaded(*judges: dict[str, Any]) -> Cascade:
    return await load_cascade(load_policy(policy(judges=list(judges))))


async def test_judges_with_different_labels_share_a_model_until_the_last_is_closed() -> None:
    before = judge_threads()
    plain = await loaded(REWARD)
    labelled = await loaded({**REWARD, "name": "l", "label": "LABEL_0", "weight": None, "reject_above": 0.999})
    one, other = (cascade.judges[0].scorer for cascade in (plain, labelled))
    assert one is not other
    model = weakref.ref(one._classifier._model)  # type: ignore[attr-defined]
    assert model() is other._classifier._model  # type: ignore[attr-defined]
    await one.score([PASSAGE])
    assert len(judge_threads() - before) == 1
    await plain.aclose()
    await plain.aclose()
    assert len(await other.score([PASSAGE])) == 1
    await labelled.aclose()
    assert judge_threads() == before
    gc.collect()
    assert model() is None
    with pytest.raises(ScorerError, match="is closed"):
        await other.score([PASSAGE])
    again = await loaded(REWARD)
    assert len(await again.judges[0].scorer.score([PASSAGE])) == 1
    await again.aclose()


async def test_a_model_without_the_label_is_freed() -> None:
    before = judge_threads()
    with pytest.raises(ScorerError, match="no label 'rude'"):
        await loaded(REWARD, {**REWARD, "name": "rude", "label": "rude"})
    again = await loaded(REWARD)
    classifier = again.judges[0].scorer._classifier  # type: ignore[attr-defined]
    await again.aclose()
    assert classifier._model is None
    assert judge_threads() == before


async def test_a_guard_model_is_freed(embedded_model: Path, tmp_path: Path) -> None:
    before = judge_threads()
    random_guard("qwen3guard", embedded_model, tmp_path)
    spec = {"name": "g", "type": "guard_model", "model": str(tmp_path), "preset": "qwen3guard", "reject_above": 0.5}
    one, two = await loaded(spec), await loaded({**spec, "name": "other", "reject_above": 0.9})
    scorer = one.judges[0].scorer
    assert two.judges[0].scorer is scorer
    model = weakref.ref(scorer._engine._model)  # type: ignore[attr-defined]
    await one.aclose()
    assert len(await scorer.score([PASSAGE])) == 1
    await two.aclose()
    gc.collect()
    assert model() is None
    assert judge_threads() == before


async def test_a_rest_judge_closes_its_connections() -> None:
    spec = {"name": "h", "type": "http", "url": "http://127.0.0.1:9", "body": "{answer}", "score": "s"}
    cascade = await loaded({**spec, "reject_above": 0.5})
    client = cascade.judges[0].scorer._client  # type: ignore[attr-defined]
    await cascade.aclose()
    assert client.is_closed


async def test_scorers_that_the_caller_made_stay_open() -> None:
    class Counted(FunctionScorer):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    scorer = Counted(lambda passage: 0.0)
    judge = Judge(Rule(judge="j", reject_above=0.5), scorer)
    await Cascade([judge]).aclose()
    assert scorer.closed == 0


async def test_an_object_of_the_users_module_stays_open() -> None:
    spec = {"name": "o", "type": "python", "call": "test_scorer_lifecycle:kept", "reject_above": 0.5}
    for _ in range(2):
        cascade = await load_cascade(load_policy(policy(judges=[spec])), allow_python=True)
        assert (await cascade.judge([PASSAGE]))[0].veto is None
        await cascade.aclose()
    assert not kept.closed


async def test_a_scorer_is_collected_with_its_last_user() -> None:
    scorer = FunctionScorer(lambda passage: 0.0)
    seen = weakref.ref(scorer)
    cascade = Cascade([Judge(Rule(judge="j", reject_above=0.5), scorer)])
    await cascade.judge([PASSAGE])
    del scorer, cascade
    gc.collect()
    assert seen() is None


class Kept(FunctionScorer):
    closed = False

    async def aclose(self) -> None:
        self.closed = True


kept = Kept(lambda passage: 0.0)
