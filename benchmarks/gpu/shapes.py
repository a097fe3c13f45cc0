"""Models of real shapes with made-up weights: what they write is noise, what they cost is real."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stars_guard.core.messages import Message

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
}


LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}


TINY = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


WORDS = (
    "the",
    "of",
    "and",
    "sea",
    "light",
    "keeper",
    "wind",
    "night",
    "old",
    "ship",
    "house",
    "water",
    "stone",
    "door",
    "wave",
    "storm",
    "boat",
    "rock",
    "lamp",
    "shore",
)


@dataclass(frozen=True)
class Shape:
    """Sizes of one run.

    Attributes:
        calls: at once; the first three come first, and the rest where time is left.
        tokens: of an answer; ``short`` ones where many are drawn.
        prompt: words of the prompt that the judge reads.
    """

    generator: Mapping[str, Any]
    judge: Mapping[str, Any]
    engine: Mapping[str, Any]
    judge_engine: Mapping[str, Any]
    calls: Sequence[int]
    rows: Sequence[int]
    tokens: int
    short: int
    prompt: int


SHAPES = {
    "llama8b": Shape(
        LLAMA_8B,
        LLAMA_1B,
        # AsyncLLM's own defaults are 128 and 2048; `vllm serve` takes 1024 and 8192 on such a GPU
        {
            "dtype": "bfloat16",
            "max_model_len": 4096,
            "max_num_seqs": 512,
            "max_num_batched_tokens": 8192,
            "gpu_memory_utilization": 0.60,
        },
        {
            "dtype": "bfloat16",
            "max_model_len": 4096,
            "max_num_seqs": 256,
            "max_num_batched_tokens": 8192,
            "gpu_memory_utilization": 0.25,
        },
        calls=(64, 1, 8, 128),
        rows=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        tokens=128,
        short=64,
        prompt=400,
    ),
    "tiny": Shape(
        TINY,
        TINY,
        {"dtype": "float32", "max_model_len": 1024},
        {"dtype": "float32", "max_model_len": 1024},
        calls=(8, 1, 4),
        rows=(1, 2, 4, 8),
        tokens=32,
        short=16,
        prompt=60,
    ),
}


FALLBACKS: Sequence[Mapping[str, Any]] = (
    {},
    {"enforce_eager": True},
    {"enforce_eager": True, "attention_backend": "TRITON_ATTN"},
)
"""More engine arguments, tried in turn until the generator starts on the GPU."""


def make_model(target: Path, tokenizer: Path, shape: Mapping[str, Any], *, judge: bool) -> str:
    """A model's directory without weights: ``load_format="dummy"`` makes them up."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, target / file.name)
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())
    added = [token["id"] for token in vocabulary.get("added_tokens", ())]
    config = {
        "architectures": ["LlamaForSequenceClassification" if judge else "LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": 1e-5,
        "dtype": "bfloat16",
        "max_position_embeddings": 8192,
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "vocab_size": 1 + max([*vocabulary["model"]["vocab"].values(), *added]),
        **shape,
    }
    if judge:
        config |= {"num_labels": 1, "id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    return str(target)


def conversation(number: int, words: int = 0) -> list[Any]:
    """A prompt of its own for each call, so that calls share the template's tokens alone; ``words`` make it longer."""
    draw = random.Random(number)
    more = " ".join(draw.choice(WORDS) for _ in range(words))
    return [Message("user", f"Number {number}. Tell a long story about a lighthouse keeper and the sea. {more}")]
