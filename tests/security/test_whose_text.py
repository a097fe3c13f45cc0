"""Judges that are models, services and functions know whose text they judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import policy
from transformers import AutoTokenizer

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Role
from stars_guard.engines.embedded_models import reward_dir
from stars_guard.guard import Guard
from stars_guard.scorers._reading import Reader
from stars_guard.scorers.http import HttpOptions, _filled
from stars_guard.scorers.sequence_classifier import SequenceClassifierOptions

TURNS = (Message("user", "Hi"), Message("assistant", "Hello!"))
STRICT = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('in turn') }}{% endif %}"
    "<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
)


def read(tokenizer: Any, role: Role, messages: tuple[Message, ...] = TURNS, template: str | None = None) -> str:
    reader = Reader(tokenizer, template=template, max_length=200)
    ids = reader.read(Passage(call_id="c", messages=messages, accepted="", segment="judge me", role=role)).ids
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_chat_template_shows_a_users_turn(embedded_model: Path, role: Role) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    assert read(tokenizer, role).endswith("<|im_start|>user\njudge me<|im_end|>\n")
    assert read(tokenizer, "assistant").endswith("<|im_start|>assistant\njudge me<|im_end|>\n")
    assert read(tokenizer, role, ()).count("<|im_start|>user") == 1
    tokenizer.chat_template = STRICT
    assert read(tokenizer, role) == (
        "<|im_start|>user Hi<|im_end|><|im_start|>assistant Hello!<|im_end|><|im_start|>user judge me<|im_end|>"
    )
    # two turns of the user would be refused, so the text stands alone
    assert read(tokenizer, role, TURNS[:1]) == "<|im_start|>user judge me<|im_end|>"


def test_a_pair_is_for_answers() -> None:
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    assert read(tokenizer, "assistant") == "[CLS] hi hello! [SEP] judge me [SEP]"
    assert read(tokenizer, "user") == "[CLS] judge me [SEP]"
    assert read(tokenizer, "user", template="{prompt} | {answer}") == "[CLS] hi hello! | judge me [SEP]"


def test_one_reader_takes_both() -> None:
    tokenizer = AutoTokenizer.from_pretrained(reward_dir())
    reader = Reader(tokenizer, template=None, max_length=200)
    roles: tuple[Role, ...] = ("assistant", "user", "assistant")
    given = [Passage(call_id="c", messages=TURNS, accepted="", segment="x", role=role) for role in roles]
    first, second, third = (reader.read(one).ids for one in given)
    assert first == third != second


async def test_judges_that_reward_and_veto_share_the_model() -> None:
    options = {"type": "sequence_classifier", "name": "a", "model": "embedded:reward"}
    rewards = SequenceClassifierOptions.model_validate({**options, "weight": 1.0})
    vetoes = SequenceClassifierOptions.model_validate({**options, "reject_above": 1.0})
    one, two = await rewards.load(), await vetoes.load()
    assert rewards.key != vetoes.key
    assert one._classifier is two._classifier  # type: ignore[attr-defined]
    assert (one._windows, two._windows) == (None, 256)  # type: ignore[attr-defined]
    await one.aclose()
    await two.aclose()


@pytest.mark.parametrize(("role", "turn"), [("assistant", "assistant"), ("user", "user"), ("tool", "user")])
def test_a_service_gets_the_role(role: Role, turn: str) -> None:
    body = {"who": "{role}", "all": "{messages}", "text": "{answer}"}
    HttpOptions.model_validate(
        {"type": "http", "name": "h", "url": "http://x", "body": body, "score": "s", "reject_above": 0.5}
    )
    passage = Passage(call_id="c", messages=TURNS, accepted="", segment="{role}", role=role)
    filled = _filled(body, passage)
    assert (filled["who"], filled["text"]) == (role, "{role}")
    assert filled["all"][-1] == {"role": turn, "content": "{role}"}


def whose(passage: Passage) -> float:
    return {"assistant": 0.1, "user": 0.2, "tool": 0.3}[passage.role]


async def test_a_function_gets_the_role_on_every_rail() -> None:
    judge = {"name": "w", "type": "python", "call": "test_whose_text:whose", "reject_above": 0.9}
    rails = {stage: {"judges": [judge]} for stage in ("input", "tool_call", "tool_result", "output")}
    found = []
    from stars_guard.audit import MemoryStore

    store = MemoryStore()
    async with Guard({**policy(), "rails": rails}, audit=store, allow_python=True) as checks:
        for stage in rails:
            await checks.check(stage, "x")  # type: ignore[arg-type]
        found = [record.segments[0].attempts[0].scores[0].value for record in store.records]
    assert found == [0.2, 0.1, 0.3, 0.1]
