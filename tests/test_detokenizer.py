"""Tokens to text one by one: the pieces are the whole, for every family of tokenizers."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from chat_families import KINDS, SPACE, metaspace, with_byte_fallback
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stars_guard.prompting.detokenizer import Detokenizer, decoder

CORPUS = [
    "The lake is deep, and its water is cold. Don't swim there!",
    "Größe und Übermut, naïve café, 東京都は大きい。 Москва слезам не верит",
    "def f(x):\n    return {'a': [1, 2.5], \"b\": x}\t# done",
]


def bytes_tokens() -> dict[str, int]:
    return {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}


def byte_fallback(prepend: str) -> Tokenizer:
    letters = [SPACE, *"abcdefghijklmnopqrstuvwxyzTD.,!'é"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **bytes_tokens()}
    vocabulary |= {letter: 300 + index for index, letter in enumerate(letters)}
    merges = [(SPACE, "t"), (SPACE + "t", "h"), (SPACE + "th", "e"), ("e", "r"), (SPACE, SPACE)]
    vocabulary |= {left + right: 400 + index for index, (left, right) in enumerate(merges)}
    model = models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")
    return with_byte_fallback(model, prepend=prepend == "first")


def unigram_fallback() -> Tokenizer:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((name, -9.0) for name in bytes_tokens())]
    pieces += [(letter, -4.0) for letter in [SPACE, *"abcdefghijklmnopqrstuvwxyz"]] + [(SPACE + "the", -2.0)]
    return with_byte_fallback(models.Unigram(pieces, unk_id=0, byte_fallback=True), prepend=True)


def byte_level(*, first: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=first)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"], show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


FAMILIES = {
    "byte-level": lambda: byte_level(first=False),
    "byte-level with a space first": lambda: byte_level(first=True),
    "byte-level, split as tiktoken does": KINDS["bytes"],
    "byte fallback, space first": lambda: byte_fallback("first"),
    "byte fallback": lambda: byte_fallback("never"),
    "unigram with byte fallback": unigram_fallback,
    "metaspace first": lambda: metaspace("first", CORPUS),
    "metaspace always": lambda: metaspace("always", CORPUS),
    "word pieces": word_piece,
}


@cache
def tokenizer_of(family: str) -> Any:
    made = FAMILIES[family]()
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    made.add_tokens([AddedToken("<tool_call>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


# U+FFFD is what decoders write for an unfinished character, so a real one at the very end waits for more
PARTS = ["😀", "👩\u200d👩\u200d👧", "🇩🇪", "字", "é", "e\u0301", " ", "  ", "the", "\n", "<tool_call>", "<s>", "न", "𝒳"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")) | st.lists(
    st.sampled_from(PARTS), max_size=20
).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=TEXT)
@example(text="😀😀😀")
@example(text="日本語の文字と😀🇩🇪🇫🇷 the end")
def test_pieces_are_the_whole(family: str, text: str) -> None:
    tokenizer = tokenizer_of(family)
    decode = decoder(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    state, pieces = Detokenizer(decode), []
    for token in ids:
        piece, state = state.feed(token)
        pieces.append(piece)
        assert len(state.ids) <= 48
    assert "".join(pieces) == decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)


@given(ids=st.lists(st.integers(3, 258) | st.integers(301, 326), max_size=60))
def test_bytes_that_are_no_text_hold_nothing_back_for_long(ids: list[int]) -> None:
    state, waiting = Detokenizer(decoder(tokenizer_of("byte fallback"))), 0
    for token in ids:
        piece, state = state.feed(token)
        waiting = 0 if piece else waiting + 1
        assert waiting <= 4
