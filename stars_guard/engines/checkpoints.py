"""Which checkpoint a directory holds, and which probes are installed in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stars_guard.errors import BackendError

__all__ = [
    "INDEX",
    "MANIFEST",
    "Installed",
    "Stored",
    "directory_of",
    "fingerprint",
    "installed_probes",
    "stored_tensors",
]

INDEX = "model.safetensors.index.json"
MANIFEST = "stars_guard_probes.json"
"""The file that `stars-guard probe install` adds to its copy of a checkpoint."""

SAMPLES, SAMPLE = 16, 64
"""How many places of each tensor the fingerprint reads, and how many bytes at each."""


class Installed(BaseModel):
    """What `stars-guard probe install` has written into a checkpoint.

    Attributes:
        model_sha256: fingerprint of the checkpoint that it was made from.
        probes: by digest, the token ids whose output rows hold the probe's directions, in their order.
        zero: the id whose output row is zero.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model_sha256: str
    probes: dict[str, tuple[int, ...]] = Field(strict=False)
    zero: int

    @property
    def ids(self) -> list[int]:
        """All of them. No request may generate one."""
        return [*(one for ids in self.probes.values() for one in ids), self.zero]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One tensor of a checkpoint's files: ``start`` and ``stop`` are places in the file, in bytes."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def directory_of(model: str, revision: str | None = None) -> Path:
    """Where a model's files are: the directory itself, or the hub's cache on this machine. Blocks.

    Raises:
        BackendError: there is no such directory or model.
    """
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils import cached_file

    try:
        found = cached_file(model, "config.json", revision=revision, local_files_only=True)
    except (OSError, ValueError) as exc:
        raise BackendError(
            f"there is no model {model!r} on this machine", hint="load it once, or name a directory"
        ) from exc
    return Path(str(found)).parent


def installed_probes(directory: Path) -> Installed | None:
    """What is installed in a checkpoint, or None. Blocks.

    Raises:
        BackendError: the manifest can't be read.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        return Installed.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as exc:
        raise BackendError(f"{path} can't be read", hint="run `stars-guard probe install` again") from exc


def fingerprint(directory: Path) -> str:
    """What tells one checkpoint from another: names, shapes and types of all tensors, and some bytes of each. Blocks.

    A copy with installed probes has that of the checkpoint that it was made from. How the model is then loaded makes no
    difference.

    Raises:
        BackendError: there are no safetensors files, or one can't be read.
    """
    if (installed := installed_probes(directory)) is not None:
        return installed.model_sha256
    digests: dict[str, bytes] = {}
    for path, tensors in groupby(stored_tensors(directory), key=attrgetter("file")):
        with path.open("rb") as file:
            digests |= {tensor.name: _sampled(file, tensor) for tensor in tensors}
    # by name, so that another division into shards is the same checkpoint
    return hashlib.sha256(b"".join(digests[name] for name in sorted(digests))).hexdigest()


def _sampled(file: Any, tensor: Stored) -> bytes:
    made = hashlib.sha256(f"{tensor.name} {tensor.dtype} {tensor.shape}".encode())
    room = max(0, tensor.stop - tensor.start - SAMPLE)
    for number in range(SAMPLES):
        file.seek(tensor.start + room * number // (SAMPLES - 1))
        made.update(file.read(min(SAMPLE, tensor.stop - tensor.start)))
    return made.digest()


def stored_tensors(directory: Path) -> list[Stored]:
    """Every tensor of a checkpoint's safetensors files, of which an index may name the files. Blocks.

    Raises:
        BackendError: there are none, or one can't be read.
    """
    try:
        found = [tensor for path in _files(directory) for tensor in _header(path)]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BackendError(f"the safetensors files of {directory} can't be read: {type(exc).__name__}") from exc
    if not found:
        raise BackendError(f"{directory} has no safetensors files", hint="probes need a checkpoint in this format")
    return found


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        names = set(json.loads(index.read_text())["weight_map"].values())
        return [directory / name for name in sorted(names)]
    # some directories hold the same weights once more in their makers' own form
    return sorted(directory.glob("model*.safetensors")) or sorted(directory.glob("*.safetensors"))


def _header(path: Path) -> Iterator[Stored]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.path.getsize(path):
            raise ValueError("no safetensors file")
        header = json.loads(file.read(length))
    for name, about in header.items():
        if name != "__metadata__":
            start, stop = about["data_offsets"]
            yield Stored(
                name=name,
                file=path,
                dtype=about["dtype"],
                shape=tuple(about["shape"]),
                start=8 + length + start,
                stop=8 + length + stop,
            )
