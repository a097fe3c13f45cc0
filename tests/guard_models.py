"""Stand-ins for guard models, whose weights are elsewhere: of the same architecture, with random or made weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast

__all__ = ["random_guard", "writing_guard"]

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
}
SLIDING = ["sliding_attention", "full_attention"]
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
    "gpt-oss-safeguard": (
        "GptOssForCausalLM",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32, "layer_types": SLIDING},
    ),
    "dynaguard": ("Qwen3ForCausalLM", {}),
    "dynaguard-think": ("Qwen3ForCausalLM", {}),
    "nemotron-content-safety": ("Gemma3ForCausalLM", {"sliding_window": 32, "layer_types": SLIDING}),
    "polyguard": ("Qwen2ForCausalLM", {}),
    "granite-guardian-4.1": ("GraniteForCausalLM", {}),
    "granite-guardian-4.1-think": ("GraniteForCausalLM", {}),
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


WORDS = [
    "[UNK]",
    "<s>",
    "</s>",
    "<verdict>",
    "judge",
    ":",
    "bad",
    "good",
    "loop",
    "end",
    "maybe",
    "hm",
    "so",
    "yes",
    "no",
]
FOLLOWS = {
    "bad": {"hm": 9.0},
    "good": {"so": 9.0},
    "loop": {"loop": 9.0},
    "end": {"</s>": 9.0},
    "maybe": {"hm": 0.0, "so": 0.0, "loop": 0.0},
    "hm": {"<verdict>": 9.0},
    "so": {"hm": 9.0},
    "<verdict>": {"yes": 1.5, "no": 0.5},
}
"""What a writing guard writes after a word: by the next word, how likely it is against the others."""


def writing_guard(where: Path) -> Any:
    """A Llama whose next word depends on the last one as `FOLLOWS` says, also saved under ``where``."""
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", bos_token="<s>", eos_token="</s>", extra_special_tokens=["<verdict>"]
    )
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        **{**SMALL, "num_hidden_layers": 1},
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).float().eval()
    width = config.hidden_size
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight[:, : len(WORDS)] = torch.eye(len(WORDS))
        for word, following in FOLLOWS.items():
            # the last norm makes sqrt(width) of the one
            at = WORDS.index(word)
            model.lm_head.weight[:, at] = -50 / width**0.5
            for after, likely in following.items():
                model.lm_head.weight[WORDS.index(after), at] = likely / width**0.5
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return model
