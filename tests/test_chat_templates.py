"""Models without a chat template, and templates that the user gives."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import FAMILIES, tokenizer_of
from conftest import policy
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.replay import compare, regenerate
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.loading import load_vocabulary
from stars_guard.errors import AuditError, InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.prompting.chat_templates import give_template, shown_template, template_on_record
from stars_guard.prompting.text_encoding import control_tokens
from stars_guard.scorers._reading import Reader

ASK = [Message("system", "Be brief."), Message("user", "Name a river.")]
ENDS = {
    **dict.fromkeys(("llama 2", "llama 2, metaspace", "mistral v1", "mistral v3", "mistral nemo", "vicuna"), "</s>"),
    **dict.fromkeys(("qwen 2.5", "qwen 3", "phi 4", "chatml", "chatml, unigram"), "<|im_end|>"),
    "llama 3": "<|eot_id|>",
    "gemma 2": "<end_of_turn>",
    "gemma 3": "<end_of_turn>",
    "phi 3": "<|end|>",
    "deepseek": "<｜end▁of▁sentence｜>",
}
"""What each family's template writes behind an answer."""


def base_tokenizer(family: str, *, begins: bool = True) -> Any:
    """As a base model has it: without a template. With ``begins``, every text begins with a token of its own."""
    tokenizer = copy.deepcopy(tokenizer_of(family))
    tokenizer.chat_template = None
    if begins:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
        )
    return tokenizer


@pytest.fixture(scope="module")
def base_model(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of random weights whose tokenizer has no template."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("load", [load_vocabulary, lambda name: portal.call(lambda: TransformersBackend.load(name))])
def test_a_model_without_a_template_is_refused_before_its_weights_are_read(load: Any, base_model: Path,
                                                                           tmp_path: Path) -> None:  # fmt: skip
    for path in base_model.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="has no chat template") as caught:
        load(str(tmp_path))
    assert "chat_template" in str(caught.value.hint)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_begins_as_the_tokenizer_begins_a_text(family: str, begins: bool) -> None:
    tokenizer = base_tokenizer(family, begins=begins)
    give_template(tokenizer, "plain", "x")
    ids = encode_chat(tokenizer, ASK)
    assert (ids[0] == tokenizer.bos_token_id) is begins
    assert ids.count(tokenizer.bos_token_id) == begins
    turns = [{"role": message.role, "content": message.content} for message in ASK]
    rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    assert rendered.removeprefix("<s>") == "system:\nBe brief.\n\nuser:\nName a river.\n\nassistant:\n"
    assert ids == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    # and no text of a message is the beginning
    control = {token for text, token in control_tokens(tokenizer).items() if text != "<unk>"}
    evil = encode_chat(tokenizer, [Message("user", " ".join(control_tokens(tokenizer)))])
    assert [token for token in evil if token in control] == [tokenizer.bos_token_id] * begins


@pytest.mark.parametrize("family", FAMILIES)
def test_the_token_behind_an_answer_ends_it(family: str) -> None:
    """An instructed model's template on its base model, whose own files name other ends."""
    tokenizer = base_tokenizer(family)
    ends = give_template(tokenizer, FAMILIES[family].template, "x")
    assert ends == {tokenizer.convert_tokens_to_ids(ENDS[family])}
    assert give_template(tokenizer, "plain", "x") == frozenset()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.jinja", "can't be read: FileNotFoundError"),
        ("plane", "can't be read: FileNotFoundError"),
        ("{% for message in messages %}", "can't be used: TemplateSyntaxError"),
        ("{{ messages[0].content | no_such }}", "can't be used: Template"),
        ("{{ raise_exception('never') }}", "can't be used: TemplateError"),
        ("{% if messages %}hello{% endif %}", "doesn't show the user's message"),
    ],
)
def test_a_template_that_cannot_be_used_is_an_error(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        give_template(base_tokenizer("chatml"), given, "x")


def test_a_template_on_record_is_found_again_as_it_was(tmp_path: Path) -> None:
    tokenizer, path = base_tokenizer("chatml"), tmp_path / "chat.jinja"
    path.write_text(FAMILIES["chatml"].template)
    for given, found in (("plain", "plain"), (str(path), str(path)), (FAMILIES["chatml"].template, None)):
        give_template(tokenizer, given, "x")
        shown = shown_template(given, tokenizer)
        assert template_on_record(shown) == found
        assert FAMILIES["chatml"].template not in shown
    give_template(tokenizer, str(path), "x")
    shown = shown_template(str(path), tokenizer)
    path.write_text(FAMILIES["chatml"].template + " ")
    assert template_on_record(shown) is None
    assert template_on_record("") == ""


def test_a_call_under_a_given_template_is_replayed(base_model: Path, tmp_path: Path) -> None:
    """And one whose template has changed since then is not."""
    path = tmp_path / "chat.jinja"
    path.write_text("{% for m in messages %}{{ m.role }} says {{ m.content }}. {% endfor %}")
    under = load_policy(policy(max_tokens=12))
    records: list[CallRecord] = []
    for given in ("plain", str(path)):
        store = MemoryStore()
        made = Guard(
            under, model=str(base_model), backend="transformers", options={"chat_template": given}, audit=store
        )
        made.blocking.generate(ASK[1:], CallOptions(seed=5))
        records += store.records
    assert records[0].backend["chat_template"] == "plain"
    for record in records:
        again = portal.call(lambda record=record: regenerate(record, under))
        assert list(compare(record, again)) == []
        assert again.backend == record.backend
    path.write_text("{% for m in messages %}{{ m.role }} said {{ m.content }}. {% endfor %}")
    with pytest.raises(AuditError, match="chat template"):
        portal.call(lambda: regenerate(records[1], under))


async def test_the_end_of_a_given_template_ends_answers(base_model: Path) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|endoftext|>{% endfor %}"
    end = json.loads((base_model / "tokenizer.json").read_text())["added_tokens"][0]
    assert end["content"] == "<|endoftext|>"
    backend = await TransformersBackend.load(str(base_model), TransformersOptions(chat_template=template))
    async with backend:
        assert end["id"] in backend.eos_ids
        assert backend.grammars is not None


@pytest.mark.parametrize("family", ["llama 2", "gemma 2", "llama 3", "mistral nemo"])
def test_a_decoder_that_judges_without_a_template_reads_its_first_token(family: str) -> None:
    for begins in (True, False):
        tokenizer = base_tokenizer(family, begins=begins)
        read = Reader(tokenizer, template=None, max_length=200)
        passage = Passage(call_id="c", messages=tuple(ASK), accepted="", segment="The Rhine.")
        ids = read.read(passage).ids
        assert [token == tokenizer.bos_token_id for token in ids] == [begins, *[False] * (len(ids) - 1)]
