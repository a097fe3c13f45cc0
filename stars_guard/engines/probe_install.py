"""A copy of a checkpoint whose unused output rows hold a probe's directions, for engines whose code can't be changed.

The output layer multiplies each hidden state with each of its rows. Rows that no token uses are free: those past the
tokenizer's ids, and if these are too few, rows by which the vocabulary is padded. One row is zero, so that a request
can tell a direction's value from log probabilities (see `stars_guard.backends._output_rows`). Where input and output
share one matrix, they go on sharing it: an input row is read for a token that occurs, and these never do.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stars_guard.engines.checkpoints import (
    INDEX,
    MANIFEST,
    Installed,
    Stored,
    fingerprint,
    installed_probes,
    stored_tensors,
)
from stars_guard.engines.loading import load_config, load_tokenizer, loading
from stars_guard.engines.probes import Probe
from stars_guard.errors import BackendError, InputError

if TYPE_CHECKING:
    import torch

__all__ = ["install"]

HEADS = ("lm_head.weight", "language_model.lm_head.weight", "output.weight", "embed_out.weight")
INPUTS = (
    "model.embed_tokens.weight",
    "language_model.model.embed_tokens.weight",
    "model.language_model.embed_tokens.weight",
    "transformer.wte.weight",
    "gpt_neox.embed_in.weight",
    "tok_embeddings.weight",
)
MOST = 128
"""Ids whose log probabilities vLLM gives to a request."""
PLAIN = ("F32", "F16", "BF16")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
CHANGED = ("logit_scale", "logits_scaling", "final_logit_softcapping", "lm_head_multiplier")
"""Names in a configuration by which logits are more than the product of state and row."""


@dataclass(frozen=True, slots=True)
class _Layers:
    """The tensors with a row for each token.

    Attributes:
        outputs: the output layer, and where it shares its matrix with the input, each name that this is stored under.
        others: the input if it has a matrix of its own, and the output's bias.
    """

    outputs: tuple[Stored, ...]
    others: tuple[Stored, ...]

    @property
    def all(self) -> tuple[Stored, ...]:
        return (*self.outputs, *self.others)


def install(model: Path, probe: Probe, target: Path) -> Installed:
    """Make the copy. Weights that don't change are linked. Blocks.

    Args:
        model: directory of the checkpoint.
        target: a directory that doesn't exist yet, or is empty.

    Returns:
        Which token ids' rows hold what.

    Raises:
        InputError: the probe is another model's, the output layer can't hold directions, or the target is in use.
        BackendError: the checkpoint can't be read.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists already", hint="name a new directory")
    if installed_probes(model) is not None:
        raise InputError(f"{model} has a probe installed", hint="start from the checkpoint that it was made from")
    tensors = stored_tensors(model)
    sha256 = fingerprint(model)
    if probe.directions.model_sha256 and sha256 != probe.directions.model_sha256:
        raise InputError("the probe was trained on another checkpoint", hint="train one on this model")
    with loading(f"the configuration of {str(model)!r}", BackendError):
        text = load_config(str(model)).get_text_config()
    _check_logits(text)
    layers = _layers(tensors, tied=bool(text.tie_word_embeddings))
    rows, width = layers.outputs[0].shape
    if width != probe.directions.width:
        said = f"the probe is for hidden states of {probe.directions.width} numbers, and the model's have {width}"
        raise InputError(said, hint="train one on this model")
    wanted = len(probe.directions) + 1
    if wanted > MOST:
        raise InputError(f"the probe has {wanted - 1} directions, and vLLM reports {MOST - 1} at most")
    first = _first_free(model, rows)
    # not a row more, because any other would be a token that can be generated; engines pad as they need it
    size = max(rows, first + wanted)
    # the last rows, so that tokens that are added to the tokenizer later meet them late
    ids = range(size - wanted, size)
    made = Installed(model_sha256=sha256, probes={probe.directions.digest: tuple(ids[:-1])}, zero=ids[-1])
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        place = Path(scratch) / "model"
        place.mkdir()
        _write_shards(layers, probe, size, list(ids), place)
        if size != rows:
            _write_sizes(model, layers, size, place)
        (place / MANIFEST).write_text(made.model_dump_json(indent=1))
        _bring_rest(model, {one.file for one in tensors}, place)
        if target.exists():
            target.rmdir()
        place.rename(target)
    return made


def _check_logits(text: Any) -> None:
    for name in CHANGED:
        if getattr(text, name, None) not in (None, 1, 1.0):
            raise InputError(
                f"the model's logits are not state times row: its configuration has {name}",
                hint="use the backend transformers, which reads the states themselves",
            )


def _layers(tensors: list[Stored], *, tied: bool) -> _Layers:
    """The layers with a row for each token.

    Raises:
        InputError: they can't be found, or hold other than plain numbers.
    """
    named = {one.name: one for one in tensors}
    head, given = _first(named, HEADS), _first(named, INPUTS)
    parts = sorted(name for name in named if name.startswith(tuple(one.removesuffix("weight") for one in HEADS)))
    if head is None and parts and not tied:
        raise InputError(
            f"the output layer is quantised ({', '.join(parts)}), so its rows can't hold directions",
            hint="quantise the checkpoint without its output layer, as most tools do by default",
        )
    for what, found, names in (("token embeddings", given, INPUTS), ("output layer", head or tied or None, HEADS)):
        if found is None:
            said = f"the checkpoint's {what} can't be found"
            raise InputError(said, hint=f"a tensor must be named one of {', '.join(names)}")
    outputs = tuple(one for one in ((given, head) if tied else (head,)) if one is not None)
    biases = [named.get(one.name.removesuffix("weight") + "bias") for one in outputs]
    others = () if tied else (given,)
    layers = _Layers(outputs, tuple(one for one in (*others, *biases) if one is not None))
    for one in layers.all:
        if one.dtype not in PLAIN:
            raise InputError(
                f"the layer {one.name} is stored as {one.dtype}, so its rows can't hold directions",
                hint="the output layer must be in float32, float16 or bfloat16; other layers may be quantised",
            )
        if one.shape[0] != outputs[0].shape[0] or len(one.shape) != (1 if one.name.endswith("bias") else 2):
            raise InputError(f"the layers {one.name} and {outputs[0].name} don't have the same rows")
    return layers


def _first(named: dict[str, Stored], names: Sequence[str]) -> Stored | None:
    return next((named[name] for name in names if name in named), None)


def _first_free(model: Path, rows: int) -> int:
    """The first id after all that the tokenizer and the configurations know, and the number of rows at most."""
    tokenizer, _ = load_tokenizer(str(model), None, BackendError, what="the tokenizer of", feature="probe install")
    used = [*tokenizer.get_vocab().values(), len(tokenizer) - 1]
    for name in ("config.json", "generation_config.json"):
        if (path := model / name).is_file():
            used += _ids(json.loads(path.read_text()))
    return min(rows, int(max(used)) + 1)


def _ids(config: Mapping[str, Any]) -> list[int]:
    """Every number under a key that names token ids, such as ``image_token_id`` and ``eos_token_id``."""
    found: list[int] = []
    for key, value in config.items():
        if isinstance(value, dict):
            found += _ids(value)
        elif "token" in key and ("id" in key or "index" in key):
            found += [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int)]
    return found


def _write_shards(layers: _Layers, probe: Probe, size: int, ids: list[int], target: Path) -> None:
    """Write each file again that holds one of the layers, with new rows."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    rows = torch.tensor([*probe.directions.rows, [0.0] * probe.directions.width])
    for path in sorted({one.file for one in layers.all}):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for one in layers.all:
            if one.name in tensors:
                tensors[one.name] = _resized(tensors[one.name], size)
                tensors[one.name][ids] = rows.to(tensors[one.name].dtype) if one in layers.outputs else 0
        save_file(tensors, target / path.name, metadata)


def _resized(tensor: torch.Tensor, size: int) -> torch.Tensor:
    """A copy with more rows. They are zero."""
    made = tensor.new_zeros((size, *tensor.shape[1:]))
    made[: tensor.shape[0]] = tensor
    return made


def _write_sizes(model: Path, layers: _Layers, size: int, target: Path) -> None:
    """Write the configuration, and the index if there is one, for another number of rows."""
    config = json.loads((model / "config.json").read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        if part.get("vocab_size") == layers.outputs[0].shape[0]:
            part["vocab_size"] = size
    (target / "config.json").write_text(json.dumps(config, indent=2))
    if (model / INDEX).is_file():
        index = json.loads((model / INDEX).read_text())
        # bytes of the layers grow as their rows do
        more = sum((one.stop - one.start) // one.shape[0] * (size - one.shape[0]) for one in layers.all)
        if "total_size" in index.get("metadata", {}):
            index["metadata"]["total_size"] += more
        (target / INDEX).write_text(json.dumps(index, indent=2))


def _bring_rest(model: Path, weights: Set[Path], target: Path) -> None:
    """Link the weights, and copy all else that is small. Weights in other formats stay away: they have no new rows."""
    for path in sorted(model.iterdir()):
        place = target / path.name
        if place.exists() or not path.is_file() or (path.suffix in WEIGHTS and path not in weights):
            continue
        # a hub's cache has links to its files
        source = path.resolve()
        if path not in weights:
            shutil.copyfile(source, place)
            continue
        try:
            os.link(source, place)
        except OSError:
            place.symlink_to(source)
