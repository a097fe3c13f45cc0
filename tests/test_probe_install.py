"""A checkpoint whose unused output rows hold a probe: what it computes, what it leaves as it was, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import USER
from probe_files import a_model, a_probe, pass_of, rows_of
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stars_guard.backends.base import OpenRequest
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.calling import portal
from stars_guard.core.sampling import Sampling
from stars_guard.engines.checkpoints import fingerprint, installed_probes
from stars_guard.engines.probe_install import install
from stars_guard.engines.probes import Probe
from stars_guard.errors import InputError

BF16 = 2.0**-7
"""How far a value may be off for numbers of 8 bits, as a share of the product of lengths of state and direction."""

KINDS: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "sharded": {"shards": "4MB"},
    "sharded and tied": {"shards": "4MB", "tie_word_embeddings": True},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "free rows": {"vocab_size": 49152 + 20},
    "too few free rows": {"vocab_size": 49152 + 2},
    "gpt2": {"kind": "GPT2LMHeadModel", "n_embd": 64, "n_head": 2, "n_layer": 2, "tie_word_embeddings": True},
    "gpt_neox": {"kind": "GPTNeoXForCausalLM", "num_key_value_heads": None},
    "phi": {"kind": "PhiForCausalLM"},
}


def made(tmp_path: Path, embedded_model: Path, more: dict[str, Any]) -> tuple[Path, Probe, Path]:
    model = a_model(tmp_path / "model", embedded_model, **more)
    probe = a_probe(tmp_path / "probe.safetensors", rows_of(3, 64), model=model)
    target = tmp_path / "out" / "installed"
    install(model, probe, target)
    return model, probe, target


@pytest.mark.parametrize("name", KINDS)
def test_the_rows_give_the_values_and_nothing_else_changes(name: str, embedded_model: Path, tmp_path: Path) -> None:
    model, probe, target = made(tmp_path, embedded_model, dict(KINDS[name]))
    installed = installed_probes(target)
    assert installed is not None
    assert fingerprint(target) == fingerprint(model) == installed.model_sha256
    before, after = (AutoModelForCausalLM.from_pretrained(where, dtype="auto").eval() for where in (model, target))
    assert (after.get_output_embeddings().weight is after.get_input_embeddings().weight) == (
        before.get_output_embeddings().weight is before.get_input_embeddings().weight
    )
    ids = [1, 520, 98, 4210, 77, 2024]
    (old, _), (new, states) = pass_of(before, ids), pass_of(after, ids)
    rows = old.shape[-1]
    used = [at for at in range(rows) if at not in installed.ids]
    assert torch.equal(old[..., used], new[..., used])
    assert len(AutoTokenizer.from_pretrained(target)) <= min(installed.ids)
    (found,) = installed.probes.values()
    values = new.float().log_softmax(-1)[..., list(found)] - new.float().log_softmax(-1)[..., [installed.zero]]
    states, directions = states.float(), torch.tensor(probe.directions.rows)
    exact = states @ directions.T
    size = states.norm(dim=-1, keepdim=True) * directions.norm(dim=-1)
    share = {torch.bfloat16: BF16, torch.float16: BF16 / 8}.get(new.dtype, 1e-5)
    assert ((values - exact).abs() <= share * size).all(), ((values - exact).abs() / size).max()


def test_weights_that_do_not_change_are_linked_and_the_rest_is_whole(embedded_model: Path, tmp_path: Path) -> None:
    model, _, target = made(tmp_path, embedded_model, {"shards": "2MB"})
    shards = sorted(path.name for path in model.glob("*.safetensors"))
    assert shards == sorted(path.name for path in target.glob("*.safetensors"))
    same = [name for name in shards if (model / name).samefile(target / name)]
    assert same
    assert len(same) < len(shards)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    stored = {name for shard in shards for name in load_file(target / shard)}
    assert set(index["weight_map"]) == stored
    size = sum(one.nbytes for shard in shards for one in load_file(target / shard).values())
    assert index["metadata"]["total_size"] == size
    # editing the copy leaves the original as it is
    (target / "tokenizer_config.json").write_text("{}")
    assert (model / "tokenizer_config.json").read_text() != "{}"


def test_a_matrix_that_is_stored_under_both_names(embedded_model: Path, tmp_path: Path) -> None:
    model = a_model(tmp_path / "model", embedded_model, tie_word_embeddings=True)
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    probe = a_probe(tmp_path / "probe.safetensors", rows_of(2, 64), model=model)
    install(model, probe, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])


def test_the_transformers_backend_never_generates_the_rows(embedded_model: Path, tmp_path: Path) -> None:
    model = a_model(tmp_path / "model", embedded_model)
    # states have about the length 8, so these rows would win each time
    probe = a_probe(tmp_path / "p", [[one * 500 for one in row] for row in rows_of(4, 64)], model=model)
    install(model, probe, tmp_path / "out")

    async def run(where: Path, temperature: float) -> list[tuple[int, tuple[float, ...]]]:
        async with await TransformersBackend.load(str(where), TransformersOptions(dtype="float32")) as backend:
            await backend.check_directions([probe.directions])
            request = OpenRequest(
                messages=USER, sampling=Sampling(temperature=temperature), directions=(probe.directions,)
            )
            session = await backend.open(request)
            proposals = await session.propose([1, 2], 6)
            found = [[token async for chunk in proposal for token in chunk] for proposal in proposals]
            await session.aclose()
            return [(token.id, token.projections) for tokens in found for token in tokens]

    for temperature in (0.0, 1.0):  # at 1, each of the 49152 tokens is about as likely as the others
        plain = portal.call(lambda heat=temperature: run(model, heat))
        copied = portal.call(lambda heat=temperature: run(tmp_path / "out", heat))
        assert [one for one, _ in plain] == [one for one, _ in copied]
        for (_, first), (_, second) in zip(plain, copied, strict=True):
            assert first == pytest.approx(second, rel=1e-4, abs=1e-2)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "soft cap": ({"kind": "Gemma2ForCausalLM"}, "final_logit_softcapping"),
    "scaled": ({"kind": "GraniteForCausalLM", "logits_scaling": 3.0}, "logits_scaling"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_logits_that_are_not_products_are_refused(name: str, embedded_model: Path, tmp_path: Path) -> None:
    more, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        made(tmp_path, embedded_model, more)
    assert not (tmp_path / "out").exists()


QUANTISED = {
    "packed": (lambda w: {"lm_head.qweight": w.to(torch.int32), "lm_head.scales": w[:, 0].clone()}, "quantised"),
    "float8": (lambda w: {"lm_head.weight": w.to(torch.float8_e4m3fn)}, "F8_E4M3"),
    "int8": (lambda w: {"lm_head.weight": w.to(torch.int8)}, "I8"),
    "none": (lambda w: {}, "output layer can't be found"),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_output_layer_is_refused_by_name(name: str, embedded_model: Path, tmp_path: Path) -> None:
    replace, said = QUANTISED[name]
    model = a_model(tmp_path / "model", embedded_model)
    tensors = load_file(model / "model.safetensors")
    head = tensors.pop("lm_head.weight")
    save_file({**tensors, **replace(head)}, model / "model.safetensors", {"format": "pt"})
    probe = a_probe(tmp_path / "p", rows_of(1, 64), model=model)
    with pytest.raises(InputError, match=said):
        install(model, probe, tmp_path / "out")


def test_what_does_not_fit_is_refused(embedded_model: Path, tmp_path: Path) -> None:
    model = a_model(tmp_path / "model", embedded_model)
    other = a_model(tmp_path / "other", embedded_model, num_hidden_layers=1)
    probe = a_probe(tmp_path / "p", rows_of(1, 64), model=model)
    with pytest.raises(InputError, match="another checkpoint"):
        install(other, probe, tmp_path / "out")
    with pytest.raises(InputError, match="32 numbers"):
        install(model, a_probe(tmp_path / "w", rows_of(1, 32)), tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        install(model, probe, other)
    install(model, probe, tmp_path / "out")
    with pytest.raises(InputError, match="has a probe"):
        install(tmp_path / "out", probe, tmp_path / "again")
