"""Probes and small generators for tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

from stars_guard.engines.checkpoints import fingerprint
from stars_guard.engines.probes import Card, Probe, load_probe, save_probe

__all__ = ["SMALL", "a_model", "a_probe", "pass_of", "rows_of"]

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
}


def a_model(where: Path, tokens_of: Path, kind: str = "LlamaForCausalLM", *, shards: str = "5GB", **more: Any) -> Path:
    """A small random generator with the embedded model's tokenizer, as a directory."""
    tokenizer = AutoTokenizer.from_pretrained(tokens_of)
    torch.manual_seed(5)
    classes: Any = transformers
    made = getattr(classes, kind)
    dtype = more.pop("dtype", torch.float32)
    config = made.config_class(**{"vocab_size": len(tokenizer), "eos_token_id": 2, "pad_token_id": 2, **SMALL, **more})
    model = made(config).to(dtype)
    for parameter in model.parameters():
        # far from uniform, so that greedy choices have no ties
        parameter.data += torch.randn_like(parameter) * 0.05
    model.tie_weights()
    model.save_pretrained(where, max_shard_size=shards)
    tokenizer.save_pretrained(where)
    return where


def pass_of(model: Any, ids: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of a model after each token, and the final hidden states that they are made of."""
    kept: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
    with torch.inference_mode():
        logits = model(torch.tensor([list(ids)])).logits
    hook.remove()
    return logits[0], kept[0][0]


def rows_of(k: int, width: int, seed: int = 3) -> list[list[float]]:
    """Random directions."""
    rng = random.Random(seed)
    return [[rng.gauss(0, 1) / width**0.5 for _ in range(width)] for _ in range(k)]


def a_probe(
    path: Path,
    rows: Sequence[Sequence[float]],
    *,
    model: Path | None = None,
    weight: Sequence[float] | None = None,
    bias: float = 0.0,
    inner: int = 0,
    **card: Any,
) -> Probe:
    """Write a probe, and read it."""
    k, width = len(rows), len(rows[0])
    tensors = {
        "directions": torch.tensor(rows),
        "weight": torch.tensor(weight or [1.0] * k),
        "bias": torch.tensor([bias]),
    }
    if inner:
        torch.manual_seed(11)
        tensors |= {"inner.weight": torch.randn(inner, k), "inner.bias": torch.randn(inner)}
        tensors["inner.output"] = torch.randn(inner)
    said = {"model": "small", "model_sha256": fingerprint(model) if model else "", "width": width, **card}
    save_probe(path, Card(**said), tensors)
    return load_probe(path)
