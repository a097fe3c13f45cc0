"""Stand-ins for guard models, whose weights are elsewhere: the same architecture, random, with SmolLM2's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

__all__ = ["random_guard"]

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-guard-3": ("LlamaForCausalLM", {}),
    "llama-guard-3-1b": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    # Llama Guard 4 is Llama 4 without experts
    "llama-guard-4": (
        "Llama4ForCausalLM",
        {"moe_layers": [], "intermediate_size_mlp": 128, "attention_chunk_size": 64},
    ),
    "shieldgemma": ("Gemma2ForCausalLM", {"sliding_window": 64}),
    "granite-guardian-3.0": ("GraniteForCausalLM", {}),
    "granite-guardian-3.2": ("GraniteMoeForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "wildguard": ("MistralForCausalLM", {"sliding_window": None}),
    "qwen3guard": ("Qwen3ForCausalLM", {}),
}


def random_guard(preset: str, embedded_model: Path, where: Path) -> Any:
    """A small model of a preset's architecture, also saved under ``where``. The same at each call."""
    kind, more = ARCHITECTURES[preset]
    tokenizer = AutoTokenizer.from_pretrained(embedded_model)
    torch.manual_seed(7)
    classes: Any = transformers
    model_class = getattr(classes, kind)
    model = model_class(model_class.config_class(vocab_size=len(tokenizer), **{**SMALL, **more})).float().eval()
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return model
