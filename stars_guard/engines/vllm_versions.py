"""What we take from vLLM, and how the versions that we support differ in it.

Everything was run with the `OLDEST` and with the `NEWEST`. `missing` reads an installed or unpacked vLLM without
importing it, so that `stars-guard doctor` can say in a moment which name a later version has lost.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stars_guard.engines.vllm_arguments import HARMLESS

__all__ = ["DIFFERENCES", "NEWEST", "OLDEST", "USED", "Difference", "Version", "missing", "version_of", "written"]

Version = tuple[int, ...]

OLDEST: Version = (0, 22, 1)
"""The oldest vLLM with which the backend, the judges and the GPU measurement were run."""

NEWEST: Version = (0, 32, 0)
"""The newest one, with which the tests run."""

USED: Mapping[str, Mapping[str, frozenset[str]]] = {
    "engine/arg_utils.py": {
        "EngineArgs": frozenset(
            {"model", "runner", "revision", "tokenizer", "tokenizer_revision", "load_format", "attention_backend"}
            | HARMLESS.keys()
        ),
        "AsyncEngineArgs": frozenset(),
    },
    "usage/usage_lib.py": {"UsageContext": frozenset({"OPENAI_API_SERVER"})},
    "sampling_params.py": {
        "SamplingParams": frozenset({
            "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens", "stop_token_ids",
            "logprobs", "logprob_token_ids", "logit_bias", "detokenize", "structured_outputs", "output_kind",
            "ignore_eos", "stop", "include_stop_str_in_output", "skip_special_tokens",
        }),
        "StructuredOutputsParams": frozenset({"structural_tag"}),
        "RequestOutputKind": frozenset({"DELTA", "FINAL_ONLY"}),
    },
    "pooling_params.py": {"PoolingParams": frozenset({"task", "use_activation"})},
    "outputs.py": {
        "RequestOutput": frozenset({"outputs", "num_cached_tokens"}),
        "CompletionOutput": frozenset({"token_ids", "logprobs"}),
        "PoolingRequestOutput": frozenset({"outputs", "num_cached_tokens"}),
        "PoolingOutput": frozenset({"data"}),
    },
    "logprobs.py": {"Logprob": frozenset({"logprob", "rank"})},
    "v1/engine/async_llm.py": {
        "AsyncLLM": frozenset({"from_engine_args", "generate", "encode", "shutdown", "errored", "output_handler"}),
    },
    "v1/engine/exceptions.py": {"EngineDeadError": frozenset()},
    "entrypoints/openai/completion/protocol.py": {
        "CompletionRequest": frozenset({
            "model", "prompt", "stream", "seed", "max_tokens", "temperature", "top_p", "top_k", "min_p",
            "repetition_penalty", "stop_token_ids", "logprobs", "logit_bias", "structured_outputs", "priority",
            "cache_salt", "return_token_ids", "return_tokens_as_token_ids",
            "stop", "include_stop_str_in_output", "skip_special_tokens",
        }),
    },
    "entrypoints/pooling/base/protocol.py": {"ClassifyRequestMixin": frozenset({"use_activation"})},
}  # fmt: skip
"""The names that we use, by file and class. An empty set: only the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that we use where it is there.

    Attributes:
        file: of vLLM.
        owner: the class that has it.
        name: of the field; None for the class itself.
        since: the first version that is known to have it. Those between `OLDEST` and it may.
        without: what we do with an older one.
    """

    file: str
    owner: str
    name: str | None
    since: Version
    without: str


DIFFERENCES: Mapping[str, Difference] = {
    "server labels": Difference(
        file="entrypoints/openai/completion/protocol.py",
        owner="CompletionRequest",
        name="logprob_token_ids",
        since=(0, 26),
        without="a server passes over it: guard models read the likeliest tokens, and probes are an error",
    ),
    "server errors": Difference(
        file="exceptions.py",
        owner="VLLMServerError",
        name=None,
        since=(0, 32),
        without="EngineDeadError has no base of vLLM's own, so it is caught by its own name in all versions",
    ),
    "client errors": Difference(
        file="exceptions.py",
        owner="VLLMClientError",
        name=None,
        since=(0, 32),
        without="a request that vLLM refuses is a ValueError, so both are translated as what they have in common",
    ),
}
"""What the versions differ in, as far as it concerns us. Engine arguments that we use, pooling parameters and
structured outputs have the same names in both. An argument that only one version has is checked by that version."""


def version_of(text: str) -> Version:
    """The numbers a version begins with; empty where it begins with none."""
    return tuple(int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part)  # type: ignore[index]


def written(version: Version) -> str:
    """As people write it."""
    return ".".join(map(str, version))


def missing(package: Path, version: Version | None = None) -> list[str]:
    """What this vLLM does not have of what it should, as ``file: Class.name``.

    Args:
        package: the folder ``vllm``, installed or unpacked from a wheel.
        version: `OLDEST` or one that is not older than `NEWEST`. With it, the differences are checked too.
    """
    found = []
    for file, owners in USED.items():
        classes = _classes(package / file)
        for owner, names in owners.items():
            if owner not in classes:
                found.append(f"{file}: {owner}")
            else:
                found += [f"{file}: {owner}.{name}" for name in sorted(names - classes[owner])]
    if version is not None:
        found += [text for one in DIFFERENCES.values() if (text := _disagrees(one, package, version))]
    return found


def _disagrees(one: Difference, package: Path, version: Version) -> str:
    classes = _classes(package / one.file)
    is_there = one.owner in classes and (one.name is None or one.name in classes[one.owner])
    if is_there == (version >= one.since):
        return ""
    what = one.owner if one.name is None else f"{one.owner}.{one.name}"
    return f"{one.file}: {what} is {'there' if is_there else 'not there'} in {written(version)}"


def _classes(file: Path) -> dict[str, set[str]]:
    """The classes of a file, each with the names that it defines. Empty where there is no such file."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return {}
    return {node.name: set(_names(node)) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _names(owner: ast.ClassDef) -> Iterator[str]:
    """Fields, methods and what a method sets on ``self``."""
    for node in owner.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
                yield from (
                    inner.attr
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
                )
