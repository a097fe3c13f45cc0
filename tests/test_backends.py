"""Every backend under the conformance suite, and how backends are found, loaded and freed."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import USER, policy, rewarding

from stars_guard.audit import MemoryStore
from stars_guard.backends.base import Backend, LoadableBackend, OpenRequest, Session
from stars_guard.backends.registry import BACKENDS
from stars_guard.backends.supplied import SuppliedBackend
from stars_guard.backends.transformers import TransformersBackend, TransformersOptions
from stars_guard.calling import backend_loading, portal
from stars_guard.calling.backend_loading import load_backend, unload_backends
from stars_guard.core.events import Released
from stars_guard.core.messages import Message
from stars_guard.engines.model_thread import ModelThread
from stars_guard.errors import BackendError, BackendUnavailable, InputError
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing import BackendTests
from stars_guard.testing.scripted import ScriptedBackend

STORY = [Message("user", "Tell me a long story about a lighthouse keeper and the sea.")]


def counting(messages: Sequence[Message], prefix: tuple[str, ...], rng: random.Random) -> str | None:
    """A script for which only the prefix counts, which is what temperature 0 makes of a model."""
    return f"{len(prefix)} "


class TestScripted(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(counting, context=1000)

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]]:
        async def made() -> Backend:
            return ScriptedBackend(counting)

        return made


class TestScriptedInChunks(TestScripted):
    @pytest.fixture
    def backend(self) -> Backend:
        return ScriptedBackend(counting, context=1000, chunk=3)


class Stocked(SuppliedBackend):
    """Its caller has supplied enough texts for any test."""

    async def open(self, request: OpenRequest) -> Session:
        session = await super().open(request)
        for _ in range(40):
            self.supply("a text", tokens=6)
        return session


class TestSupplied(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return Stocked("other")

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]]:
        async def made() -> Backend:
            return Stocked("other")

        return made


@pytest.fixture(scope="module")
def engine(embedded_model: Path) -> Iterator[Backend]:
    made = portal.call(lambda: TransformersBackend.load(str(embedded_model)))
    yield made
    assert made.slots.rows_in_use == 0
    portal.call(made.aclose)


class TestTransformers(BackendTests):
    @pytest.fixture
    def backend(self, engine: Backend) -> Backend:
        return engine

    @pytest.fixture
    def make(self, embedded_model: Path) -> Callable[[], Awaitable[Backend]]:
        return lambda: TransformersBackend.load(str(embedded_model), TransformersOptions(dtype="bfloat16"))

    @pytest.fixture
    def control_texts(self) -> Sequence[str]:
        return ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


# --- found by entry points


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a distribution with one module and its entry points on ``sys.path``, as an installation would."""

    def install(module: str, entries: str) -> None:
        info = tmp_path / f"plugin_{len(list(tmp_path.iterdir()))}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name.split('-')[0]}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[stars_guard.backends]\n{entries}\n")
        (tmp_path / "their_backend.py").write_text(module)
        monkeypatch.syspath_prepend(str(tmp_path))

    monkeypatch.delitem(sys.modules, "their_backend", raising=False)
    monkeypatch.setattr(BACKENDS, "_loaded", {})
    return install


THEIRS = """
from pydantic import BaseModel, ConfigDict

from stars_guard.backends import LoadableBackend
from stars_guard.testing.scripted import ScriptedBackend


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    length: int = 3
    word: str = "hum "


class Humming(ScriptedBackend, LoadableBackend[Options]):
    options_model = Options

    @classmethod
    async def load(cls, model, options):
        made = cls(lambda messages, prefix, rng: None if len(prefix) >= options.length else options.word)
        made.identity = {"engine": "humming", "model": model}
        return made
"""


def humming(**options: object) -> Guard:
    judges = [rewarding(lambda passage: 9.0)]
    return Guard(policy(), model="tune", backend="humming", options=options, judges=judges, audit=MemoryStore())


def test_a_backend_of_another_package_is_used_by_name(plugin: Callable[[str, str], None]) -> None:
    plugin(THEIRS, "humming = their_backend:Humming")
    made = humming(length=4)
    assert made.blocking.generate(USER).text == "hum " * 4
    assert made.audit.read()[0].backend == {"engine": "humming", "model": "tune"}
    assert portal.call(lambda: load_backend("tune", "humming", {"length": 4})) is portal.call(
        lambda: load_backend("tune", "humming", {"word": "hum ", "length": 4})
    )
    assert portal.call(lambda: load_backend("tune", "humming")) is not portal.call(
        lambda: load_backend("other", "humming")
    )


def test_auto_never_takes_a_backend_that_did_not_ask_for_it(plugin: Callable[[str, str], None]) -> None:
    plugin(THEIRS, "humming = their_backend:Humming\nbroken = their_backend:NoSuchThing")
    with pytest.raises(BackendError, match="reached"):
        portal.call(lambda: load_backend("tune", "auto", {"base_url": "http://127.0.0.1:9", "retries": 0}))


def failing(backend: str, model: str = "no-such-model", **options: object) -> str:
    with pytest.raises(InputError) as caught:
        portal.call(lambda: load_backend(model, backend, options))
    return str(caught.value)


def test_unknown_names_and_options_are_told_with_the_nearest(plugin: Callable[[str, str], None]) -> None:
    plugin(THEIRS, "humming = their_backend:Humming")
    for wrong, near in (("hummin", "humming"), ("trasformers", "transformers"), ("vllm_server", "vllm-server")):
        shown = failing(wrong)
        assert f"unknown backend {wrong!r}" in shown
        assert f"did you mean {near!r}" in shown
        assert all(name in shown for name in ("humming", "transformers", "vllm", "vllm-server"))
    with pytest.raises(InputError, match="no-such"):
        Guard(policy(), backend="no-such", audit=MemoryStore()).blocking.generate(USER)
    assert "there is no option 'lenght', did you mean 'length'?" in failing("humming", lenght=3)
    assert "length: " in failing("humming", length="secret")
    assert "secret" not in failing("humming", length="secret")
    assert "did you mean 'dtype'?" in failing("transformers", dtpye="float32")
    assert "dtype: " in failing("transformers", dtype="float12")
    shown = failing("vllm-server", base_url="http://127.0.0.1:9", api_kee="sk-secret")
    assert "did you mean 'api_key'?" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("mine = their_backend:Options", "not a subclass of stars_guard.backends.LoadableBackend"),
        ("mine = their_backend:nothing", "cannot load the backend 'mine'"),
        ("mine = their_backend:Humming\nmine2 = x:y", None),
    ],
)
def test_what_is_no_backend_is_named(plugin: Callable[[str, str], None], entries: str, expected: str | None) -> None:
    plugin(THEIRS, entries)
    if expected is None:
        assert portal.call(lambda: load_backend("tune", "mine")).identity["engine"] == "humming"
    else:
        assert expected in failing("mine")


def test_two_packages_with_one_name_are_told(plugin: Callable[[str, str], None]) -> None:
    plugin(THEIRS, "vllm = their_backend:Humming")
    assert "two packages register a backend named 'vllm'" in failing("vllm")


def test_an_installation_older_than_the_code_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stars_guard.core.registry.entry_points", lambda group: [])
    monkeypatch.setattr(BACKENDS, "_loaded", {})
    for backend in ("transformers", "auto"):
        assert "pip install -e ." in failing(backend)


def test_ours_are_registered_as_any_other() -> None:
    names = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["entry-points"]
    assert set(names["stars_guard.backends"]) <= set(BACKENDS)
    for name in names["stars_guard.backends"]:
        assert issubclass(BACKENDS.get(name), LoadableBackend)
    assert BACKENDS.get("transformers") is TransformersBackend


# --- freed


def test_unloading_ends_a_call_that_runs(embedded_model: Path) -> None:
    judges = [rewarding(lambda passage: 9.0)]
    guard = Guard(
        policy(max_tokens=4000, segment_tokens=8),
        model=str(embedded_model),
        backend="transformers",
        judges=judges,
        audit=MemoryStore(),
    )
    stream = guard.blocking.stream(STORY)
    next(event for event in stream if isinstance(event, Released))
    portal.call(unload_backends)
    with pytest.raises(BackendUnavailable, match=r"closed|unloaded"):
        list(stream)
    record = guard.audit.read()[0]
    assert (record.finish, record.error) == ("failed", "BackendUnavailable")
    assert guard.blocking.generate(USER, CallOptions(max_tokens=4)).text


def test_unloading_while_a_backend_is_being_loaded(plugin: Callable[[str, str], None]) -> None:
    plugin(
        THEIRS.replace(
            "        made = cls", "        import asyncio\n        await asyncio.sleep(60)\n        made = cls"
        ),
        "humming = their_backend:Humming",
    )

    async def check() -> None:
        waiting = asyncio.ensure_future(load_backend("slow", "humming"))
        while not any("slow" in key for key in backend_loading._engines._made):
            await asyncio.sleep(0.01)
        await unload_backends()
        with pytest.raises(BackendUnavailable, match="unloaded"):
            await waiting

    portal.call(check)


async def test_a_model_thread_that_is_ended_says_so_to_jobs_that_wait() -> None:
    thread = ModelThread("test")
    begun = threading.Event()
    free = threading.Event()

    def job() -> int:
        begun.set()
        free.wait(60)
        return 1

    running = asyncio.ensure_future(thread.run(job))
    await asyncio.to_thread(begun.wait, 60)
    waiting = asyncio.ensure_future(thread.run(job))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(thread.aclose())
    with pytest.raises(BackendUnavailable):
        await waiting
    free.set()
    assert await running == 1
    await closing
    await thread.aclose()
    with pytest.raises(BackendUnavailable):
        await thread.run(job)
