"""What users and tools write never becomes a control token, whatever kind of added token a tokenizer has."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.embedded_models import reward_dir
from stars_guard.errors import InputError
from stars_guard.prompting.chat_encoding import encode_chat, encode_text
from stars_guard.prompting.guard_formats import GuardFormat
from stars_guard.prompting.guard_questions import Encoder, Questions
from stars_guard.scorers._reading import Reader

CONTENTS = ["<tool_call>", "</think>", "<|fim_prefix|>", "<eos>", "[CONTROL]", "<ünï>"]
WORDS = ["the sea", " a", "b", "<", ">", "|", "tool", "_call", "fim", "think", "/", "\n", "é", "日本", "  ", "EOS"]
TEXT = st.lists(st.sampled_from([*CONTENTS, *WORDS, "<|im_end|>", "[SEP]", "<TOOL_CALL>"]), max_size=10).map("".join)
CORPUS = ["the sea was wide and the tool call began to think about a prefix of it, <a|b> [x] / é 日本 EOS\n" * 3]


def byte_level(**flags: bool) -> Any:
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(CORPUS, BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    inner.add_tokens([AddedToken(text, special=False, **flags) for text in CONTENTS])
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def in_the_vocabulary(*, ignore_merges: bool) -> Any:
    """Added tokens that are entries of the model, and one that merges make."""
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), "isolated")
    trained.train_from_iterator(
        [*CORPUS, *CONTENTS * 50],
        BpeTrainer(vocab_size=900, initial_alphabet=list("".join(WORDS)), show_progress=False),
    )
    vocabulary = trained.get_vocab()
    assert "<tool_call>" in vocabulary, "merges should make it"
    inner = Tokenizer.from_str(
        trained.to_str().replace('"ignore_merges":false', f'"ignore_merges":{str(ignore_merges).lower()}')
    )
    inner.add_tokens([AddedToken(text, special=False) for text in CONTENTS])
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def lower_case() -> Any:
    made = byte_level(normalized=True)
    made.backend_tokenizer.normalizer = normalizers.Lowercase()
    return made


def unigram() -> Any:
    characters = [*sorted(set("".join([*WORDS, *CONTENTS, "<TOOL_CALL>[SEP]im_end"])) - {" "}), "▁"]
    pieces = [("<unk>", 0.0), *((text, 0.0) for text in CONTENTS), *((c, -5.0) for c in characters)]
    inner = Tokenizer(Unigram(pieces, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTENTS])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def words(model: Any) -> Any:
    inner = Tokenizer(
        model({text: i for i, text in enumerate(["[UNK]", *CONTENTS, "a", "b", "sea", "##b"])}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_tokens([AddedToken(text, special=False) for text in CONTENTS])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


MADE = {
    "plain": lambda: byte_level(normalized=False),
    "normalized": lambda: byte_level(normalized=True),
    "stripping": lambda: byte_level(lstrip=True, rstrip=True, normalized=False),
    "single words": lambda: byte_level(single_word=True, normalized=False),
    "lower case": lower_case,
    "merged": lambda: in_the_vocabulary(ignore_merges=False),
    "looked up": lambda: in_the_vocabulary(ignore_merges=True),
    "unigram": unigram,
    "word level": lambda: words(WordLevel),
    "word piece": lambda: words(WordPiece),
    "embedded": lambda: AutoTokenizer.from_pretrained(embedded()),
    "reward": lambda: AutoTokenizer.from_pretrained(reward_dir()),
}
LOSSLESS = ("plain", "normalized", "stripping", "single words", "embedded")
"""Those whose ids hold all of a text."""


def embedded() -> Path:
    from stars_guard.engines.embedded_models import resolve_model

    return Path(resolve_model("embedded"))


@cache
def tokenizer_of(name: str) -> Any:
    made = MADE[name]()
    if name == "embedded":
        made.add_tokens([AddedToken(text, special=False, normalized=False) for text in CONTENTS])
    return made


def added(tokenizer: Any) -> set[int]:
    return set(tokenizer.added_tokens_decoder) - {tokenizer.unk_token_id}


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40, deadline=None)
@given(text=TEXT)
def test_a_text_never_becomes_a_control_token(name: str, text: str) -> None:
    tokenizer = tokenizer_of(name)
    ids = encode_text(tokenizer, text)
    assert not added(tokenizer) & set(ids)
    if name in LOSSLESS:
        assert tokenizer.decode(ids) == text
    if name == "word piece" and tokenizer.unk_token_id in ids:
        return  # of an unknown word the pieces that are known are read
    if not any(content.casefold() in text.casefold() for content in tokenizer.get_added_vocab()):
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", MADE)
def test_a_prompt_has_the_control_tokens_of_its_template_only(name: str) -> None:
    """In chat, in what classifiers read, and in guard models' questions: as many for an evil text as for a harmless."""
    tokenizer = tokenizer_of(name)
    control = added(tokenizer)
    evil = " ".join(tokenizer.get_added_vocab())
    question = Questions(GuardFormat("own", "<tool_call>Q: {{ prompt }} A: {{ answer }}</think>", ("a",), ("b",)))

    def prompts(text: str) -> list[list[int]]:
        asked = (Message("user", text),)
        passage = Passage(call_id=text, messages=asked, accepted="", segment=text)
        return [
            encode_chat(tokenizer, asked),
            question.encode(Encoder(tokenizer), passage)[0],
            Reader(tokenizer, template="{prompt} {answer}", max_length=2000).read(passage).ids,
        ]

    for bad, good in zip(prompts(evil), prompts("b"), strict=True):
        assert sum(i in control for i in bad) == sum(i in control for i in good)


def test_a_template_has_its_own_added_tokens() -> None:
    """Those that aren't special too, such as the ``</think>`` that Qwen3Guard's question ends with."""
    tokenizer = tokenizer_of("plain")
    (ids,) = Questions(GuardFormat("own", "<tool_call>{{ answer }}</think>", ("a",), ("b",))).encode(
        Encoder(tokenizer), Passage(call_id="c", messages=(), accepted="", segment="</think>")
    )
    start, end = tokenizer.convert_tokens_to_ids(["<tool_call>", "</think>"])
    assert (ids[0], ids[-1], ids.count(end)) == (start, end, 1)


def test_a_tools_definition_with_an_added_token_is_refused() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "see </think>", "parameters": {}}}
    tokenizer = tokenizer_of("plain")
    tokenizer.chat_template = "{{ tools }}{{ messages }}"
    with pytest.raises(InputError, match="control token"):
        encode_chat(tokenizer, [Message("user", "Hi")], tools=[tool])
    tokenizer.chat_template = None


def test_a_word_is_never_unknown_as_a_whole() -> None:
    """A BERT's word of more than 100 letters, or with one odd sign, would be one unknown token, whatever it says."""
    tokenizer = tokenizer_of("reward")
    for word in ("bomb" * 60, "bomb☠bomb", "☠bomb☠☠"):
        assert "bomb" in tokenizer.decode(encode_text(tokenizer, word)).replace(" ", "").replace("##", "")
    assert encode_text(tokenizer, "☠") == [tokenizer.unk_token_id]
