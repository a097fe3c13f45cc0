"""Models of many kinds on the transformers backend: equal to ``generate``, or refused by name before the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import words
from transformers import AutoModelForCausalLM, AutoTokenizer

from stars_guard.backends._slots import check_slots
from stars_guard.backends.base import OpenRequest
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.backends.vllm_engine import VllmEngineBackend, VllmOptions
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.engines.attention import use_grouped
from stars_guard.engines.options import read_options
from stars_guard.engines.vllm_client import parse_options
from stars_guard.errors import BackendError, InputError
from stars_guard.guard import Guard
from stars_guard.prompting.chat_encoding import encode_chat
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "Name a river.")]
COMMON = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
LLAMA = {
    **COMMON,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
PLAIN = {key: value for key, value in LLAMA.items() if key != "head_dim"}
GPT = {**COMMON, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
EXPERTS = {"num_experts": 4, "num_local_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    **PLAIN,
    "num_key_value_heads": 2,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "v_head_dim": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
OPT = {**PLAIN, "ffn_dim": 32, "word_embed_proj_dim": 32}
SAME: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("Llama", "Qwen2", "Qwen3", "Mistral", "Gemma", "Gemma2", "Gemma3Text", "Glm", "Granite"), LLAMA),
    **dict.fromkeys(("Cohere", "Olmo2", "Starcoder2", "Phi", "Phi3", "StableLm", "GPTNeoX", "Falcon"), PLAIN),
    "Mixtral": {**LLAMA, **EXPERTS},
    "Qwen3Moe": {**LLAMA, **EXPERTS},
    "DeepseekV3": LATENT,
    "GPT2": GPT,
    "GPTBigCode": GPT,
    "OPT": OPT,
}
"""Kinds that must do what ``generate`` does, with the options that make them tiny."""
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Bloom": ({"n_layer": 2, "hidden_size": 32, "n_head": 2}, "without SDPA"),
    "GPTJ": ({**GPT, "rotary_dim": 8}, "without SDPA"),
    "CodeGen": ({**GPT, "rotary_dim": 8}, "without SDPA"),
    "Mpt": ({"d_model": 32, "n_heads": 2, "n_layers": 2}, "without SDPA"),
    "GptOss": ({**LLAMA, **EXPERTS}, "without SDPA"),
    "Rwkv": ({**COMMON, "hidden_size": 32, "num_hidden_layers": 2}, "without SDPA"),
    "Mamba": ({**LLAMA, "state_size": 8}, "linear_attention"),
    "Jamba": ({**LLAMA, **EXPERTS}, "linear_attention"),
    "FalconH1": ({**LLAMA, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16}, "hybrid"),
    "Lfm2": ({**LLAMA, "layer_types": ["conv", "full_attention"]}, "conv"),
    "Qwen3Next": ({**LLAMA, **EXPERTS}, "linear_attention"),
    "RecurrentGemma": (LLAMA, "recurrent"),
    "Llama4Text": ({**LLAMA, **EXPERTS}, "chunked_attention"),
    "T5": ({"d_model": 32, "num_layers": 2}, "don't generate text"),
    "ViT": ({}, "don't generate text"),
}
"""Kinds that the backend can't run, and what the error says of why."""


@pytest.fixture(scope="module")
def tokenizer(embedded_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(embedded_model)


@pytest.fixture(autouse=True)
def _few_words(capfd: Any) -> Iterator[None]:
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(verbosity)


@pytest.mark.parametrize("kind", SAME)
async def test_a_model_writes_what_generate_writes(kind: str, tokenizer: Any) -> None:
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **SAME[kind])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    ids = encode_chat(tokenizer, ASK)
    prompt = torch.tensor([ids])
    whole = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
    expected = whole[0, len(ids) :].tolist()
    use_grouped(model)
    check_slots(model)
    async with TransformersBackend(model, tokenizer, {}) as backend:
        session = await backend.open(OpenRequest(messages=ASK, sampling=Sampling(temperature=0)))
        found: list[int] = []
        while len(found) < 12:
            first, other = await session.propose([1, 2], 4)
            given = [[token.id async for chunk in each for token in chunk] for each in (first, other)]
            assert given[0] == given[1]
            await session.commit(other, len(given[1]))
            found += given[1]
            if found[-1] in backend.eos_ids:
                break
        await session.aclose()
    assert found == expected[: len(found)]


@pytest.mark.parametrize("kind", REFUSED)
async def test_a_model_that_cannot_run_is_refused_by_name_before_its_weights(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    """There are none to read."""
    options, reason = REFUSED[kind]
    config = getattr(transformers, f"{kind}Config")(**options)
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackendError) as caught:
        await TransformersBackend.load(str(tmp_path))
    assert reason in caught.value.message
    assert config.model_type in caught.value.message
    assert "vllm" in caught.value.hint


@pytest.mark.parametrize("device", ["cuda:9", "cuda:99", "gpu", "cuda:x", "", "meta", "xpu:3", "cpu0", "vulkan"])
async def test_a_device_that_is_not_there_is_named(device: str, embedded_model: Path) -> None:
    with pytest.raises(InputError, match="device") as caught:
        await TransformersBackend.load(str(embedded_model), TransformersOptions(device=device))
    assert repr(device) in caught.value.message
    assert "this machine has cpu" in caught.value.hint


@pytest.mark.parametrize("dtype", ["fp16", "f32", "int8", "Float16", "", 16, True, torch.int8])
@pytest.mark.parametrize("kind", [TransformersOptions, VllmOptions])
def test_a_number_type_that_is_not_there_is_named(dtype: Any, kind: Any) -> None:
    with pytest.raises(InputError, match=r"dtype.*'float32'"):
        read_options(kind, {"dtype": dtype}, "the backend")


@pytest.mark.parametrize("kind", [TransformersOptions, VllmOptions])
def test_torchs_own_number_types_are_taken(kind: Any) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        for given in (dtype, f"torch.{dtype}", getattr(torch, dtype)):
            assert read_options(kind, {"dtype": given}, "the backend").dtype == dtype
    assert read_options(kind, {"dtype": None}, "the backend").dtype is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000/v1/", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        (" http://gpu:8000/v1 ", "http://gpu:8000"),
        ("https://gpu.example/models/v1", "https://gpu.example/models"),
    ],
)
def test_a_servers_url_may_leave_out_http_on_this_machine(given: str, expected: str) -> None:
    assert parse_options({"base_url": given}).base_url == (expected,)
    assert parse_options({"base_url": [given, given]}).base_url == (expected, expected)


@pytest.mark.parametrize(
    "given",
    [
        *("gpu:8000", "10.0.0.7:8000", "user:secret@gpu:8000", "ftp://gpu", "localhost:x", "http://", "", "://gpu"),
        *("http://gpu:99999", "file:///tmp/x", "unix://x", 8000, None, [], [""], ["http://gpu", "gpu:1"], {"url": "x"}),
    ],
)
def test_what_is_no_servers_url_is_named(given: Any) -> None:
    with pytest.raises(InputError, match="base_url") as caught:
        parse_options({"base_url": given})
    assert "secret" not in str(caught.value)


async def test_auto_says_what_it_chose_and_that_the_first_call_waits(
    embedded_model: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load(model: str, options: Any) -> ScriptedBackend:
        return ScriptedBackend(words())

    monkeypatch.setattr(TransformersBackend, "load", load)
    monkeypatch.setattr(VllmEngineBackend, "objection", lambda model, options: "it is not for this test")
    model = str(embedded_model)
    with caplog.at_level("INFO", "stars_guard"):
        async with Guard("monitor", model=model, options={"revision": "of this test"}, audit="memory://") as guard:
            assert "backend auto" not in caplog.text  # making a guard loads nothing
            await portal.acall(guard._loaded.engine)
    assert "backend auto: transformers" in caplog.text
    assert "it is not for this test" in caplog.text
    assert "with the backend transformers, for which the first call waits" in caplog.text
