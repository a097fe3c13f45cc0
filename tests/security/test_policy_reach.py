"""A policy names models and servers. Which code runs is for the program to say, whatever the file asks for."""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.calling.judge_loading import load_judges
from stars_guard.engines import vllm_process
from stars_guard.engines.loading import load_config, load_tokenizer
from stars_guard.engines.vllm_arguments import HARMLESS, not_harmless
from stars_guard.errors import PolicyError, ScorerError
from stars_guard.policy import load_policy

JUDGES: list[dict[str, Any]] = [
    {"name": "j", "type": "vllm_pooling", "model": "embedded:reward", "reject_above": 0.5},
    {"name": "j", "type": "guard_model", "model": "embedded", "preset": "llama-guard-3", "reject_above": 0.5},
]

RUNS_CODE = {
    "trust_remote_code": True,
    "trust-remote-code": True,
    "TRUST_REMOTE_CODE": True,
    "hf_overrides": {"architectures": ["x"]},
    "worker_cls": "os.system",
    "worker_extension_cls": "os.system",
    "logits_processors": ["os:system"],
    "scheduler_cls": "os.system",
    "distributed_executor_backend": "os.system",
    "load_format": "pt",
    "model_loader_extra_config": {"a": 1},
    "tokenizer_mode": "mine",
    "additional_config": {"a": 1},
    "compilation_config": {"a": 1},
    "speculative_config": {"model": "x"},
    "kv_transfer_config": {"kv_connector_module_path": "x"},
    "io_processor_plugin": "x",
    "reasoning_parser_plugin": "x.py",
    "log_config_file": "x",
    "model": "another/model",
    "tokenizer": "another/model",
    "code_revision": "x",
    "hf_token": "x",
    "download_dir": "/tmp/x",
    "otlp_traces_endpoint": "http://x",
    "dtype": "os.system",
    "quantization": "mine",
    "seed": {"trust_remote_code": True},
    "max_model_len": "1; x",
}


def policy(judge: dict[str, Any], engine: Any) -> Any:
    return load_policy({"apiVersion": "stars-guard/v1", "name": "n", "judges": [{**judge, "engine": engine}]})


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge["type"])
@pytest.mark.parametrize("name", RUNS_CODE)
async def test_an_engine_argument_that_may_run_code_needs_the_programs_word(
    judge: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    async def start(model: str, options: dict[str, Any], **more: Any) -> Any:
        started.append(options)
        raise ScorerError("not in this test")

    monkeypatch.setattr(vllm_process, "start", start)
    for engine in ({name: RUNS_CODE[name]}, {"seed": 1, name: RUNS_CODE[name]}):
        loaded = policy(judge, engine)
        with pytest.raises(PolicyError, match="not for a policy alone to decide") as info:
            await load_judges(loaded.judges)
        assert "allow_python" in str(info.value)
        assert not started


def test_every_argument_of_vllm_is_harmless_or_needs_a_word() -> None:
    """Those that are free are few, and known by name to the vLLM that is installed."""
    pytest.importorskip("vllm")
    from vllm.engine.arg_utils import AsyncEngineArgs

    names = {field.name for field in fields(AsyncEngineArgs)}
    assert set(HARMLESS) <= names
    for name in names:
        for value in ({"a": 1}, ["a"], "a.b:c", "/etc/passwd", "http://x", None):
            assert not_harmless({name: value}) == [name]


@settings(max_examples=100)
@given(st.dictionaries(st.text() | st.sampled_from(sorted(HARMLESS)), st.none() | st.text() | st.lists(st.text())))
def test_no_text_gets_through_but_known_words(arguments: dict[str, Any]) -> None:
    words = {"dtype", "kv_cache_dtype", "quantization"}
    left = set(arguments) - set(not_harmless(arguments))
    assert left <= words
    assert all(str(arguments[name]).replace("-", "_").isidentifier() for name in left)


def with_code(folder: Path, *, config: dict[str, Any], tokenizer: dict[str, Any]) -> Path:
    """A model directory with Python in it, which leaves a mark when it runs."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass C: pass\n")
    return folder


@pytest.mark.parametrize("typed", ["y\n", "yes\n", ""])
def test_a_models_own_code_never_runs_whoever_types_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(sys, "stdin", __import__("io").StringIO(typed * 9))
    monkeypatch.setattr("builtins.input", lambda *_: typed.strip() or "n")
    auto = {"AutoConfig": "code.C", "AutoModel": "code.C", "AutoModelForCausalLM": "code.C"}
    model = with_code(
        tmp_path / "m",
        config={"model_type": "mine", "auto_map": auto},
        tokenizer={"tokenizer_class": "C", "auto_map": {"AutoTokenizer": ["code.C", None]}},
    )
    with pytest.raises(ScorerError):
        load_tokenizer(str(model), None, ScorerError, what="the model", feature="this")
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_config(str(model))
    assert not (model / "ran").exists()


def test_a_kernel_of_another_repository_is_code_too(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "attn_implementation": "evil/kernel"}))
    with pytest.raises(ValueError, match="code of another repository"):
        load_config(str(tmp_path))


async def test_options_of_a_plugin_may_need_a_word_for_some_values_only() -> None:
    from stars_guard import JudgeOptions, Scorer

    class Sometimes(JudgeOptions):
        code: str = ""

        def not_allowed(self) -> str:
            return "code: not for a policy alone to decide" if self.code else ""

        async def load(self) -> Scorer:
            raise ScorerError("loaded")

    with pytest.raises(ScorerError, match="loaded"):
        await load_judges([Sometimes(type="x", name="n", weight=1.0)])
    with pytest.raises(PolicyError, match="judge 'n': code"):
        await load_judges([Sometimes(type="x", name="n", weight=1.0, code="y")])
