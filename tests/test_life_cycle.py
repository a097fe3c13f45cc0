"""What a guard opens is closed: by the guard, once nobody else uses it, and never what the caller passed in."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import USER, policy, rewarding, settled, words

from stars_guard.audit import MemoryStore, open_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.calling import loaded, portal
from stars_guard.calling.judge_loading import load_rail
from stars_guard.core.events import Kept
from stars_guard.core.judging import Rule
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Rail
from stars_guard.engines.sharing import Lease, Shared
from stars_guard.errors import InputError, PolicyError
from stars_guard.guard import Guard
from stars_guard.policy import Policy
from stars_guard.scorers import Cascade, Judge
from stars_guard.scorers.base import Scorer
from stars_guard.testing import FunctionScorer, ScriptedBackend


class Part:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class ClosingBackend(ScriptedBackend):
    def __init__(self) -> None:
        super().__init__(words())
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1


class ClosingScorer(FunctionScorer):
    def __init__(self, function: Callable[[Passage], float] = lambda p: 1.0, holds: Lease[Part] | None = None) -> None:
        super().__init__(function)
        self.closed = 0
        self.holds = holds

    async def aclose(self) -> None:
        self.closed += 1
        if self.holds is not None:
            await self.holds.aclose()


class Loaders:
    """Engines and judges that are made in the place of real ones, by the real sharing.

    A judge whose name begins with ``model`` is shared and stands on one model that all such judges share.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engines: list[ClosingBackend] = []
        self.shared_scorers: list[ClosingScorer] = []
        self.own_scorers: list[ClosingScorer] = []
        self.models: list[Part] = []
        self.sharing: Shared[Any] = Shared()
        monkeypatch.setattr(loaded, "lease_backend", self._lease_backend)
        monkeypatch.setattr(loaded, "load_rail", self._load_rail)

    async def _lease_backend(self, model: str, *more: Any) -> Lease[ClosingBackend]:
        async def engine() -> ClosingBackend:
            self.engines.append(ClosingBackend())
            return self.engines[-1]

        return await self.sharing.lease(("engine", model), engine)

    async def _load_rail(self, policy: Policy, rail: Rail, **more: Any) -> Cascade:
        if rail != "answer":
            return await load_rail(policy, rail, **more)
        rules = [Rule(judge=spec.name, weight=1.0) for spec in policy.judges]
        async with AsyncExitStack() as opened:
            judges = [Judge(rule, await self._scorer(rule.judge, opened)) for rule in rules]
            return Cascade(judges, opened.pop_all())

    async def _scorer(self, name: str, opened: AsyncExitStack) -> Scorer:
        async def model() -> Part:
            self.models.append(Part())
            return self.models[-1]

        async def scorer() -> Scorer:
            lease = await self.sharing.lease(("model", "one for all"), model)
            self.shared_scorers.append(ClosingScorer(holds=lease))
            return self.shared_scorers[-1]

        async def own() -> Scorer:
            self.own_scorers.append(ClosingScorer())
            return self.own_scorers[-1]

        is_shared = name.startswith("model")
        lease = await self.sharing.lease(("judge", name) if is_shared else object(), scorer if is_shared else own)
        opened.push_async_callback(lease.aclose)
        return lease.part

    @property
    def closed(self) -> dict[str, list[int]]:
        found = {
            "engines": self.engines,
            "shared": self.shared_scorers,
            "own": self.own_scorers,
            "models": self.models,
        }
        return {name: [part.closed for part in parts] for name, parts in found.items()}  # type: ignore[attr-defined]


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> Loaders:
    return Loaders(monkeypatch)


def declared(*names: str, **more: Any) -> Mapping[str, Any]:
    patterns = [{"name": "x", "regex": "zzz"}]
    judges = [{"name": name, "type": "patterns", "patterns": patterns, "reject_above": 0.5} for name in names]
    return {**policy(**more), "judges": judges}


def made(*kinds: str, audit: Any = "memory://", **more: Any) -> Guard:
    return Guard(declared(*kinds, **more), model="any", backend="transformers", audit=audit)


async def test_the_last_guard_frees_what_is_shared(loaders: Loaders) -> None:
    one, two = made("model", "words"), made("model", "words")
    await one.generate(USER)
    await two.generate(USER)
    assert len(loaders.engines) == len(loaders.shared_scorers) == len(loaders.models) == 1
    await one.aclose()
    assert loaders.closed == {"engines": [0], "shared": [0], "own": [1, 0], "models": [0]}
    await two.generate(USER)
    await two.aclose()
    await two.aclose()
    assert loaders.closed == {"engines": [1], "shared": [1], "own": [1, 1], "models": [1]}


async def test_a_model_that_two_judges_share_outlives_one_of_them(loaders: Loaders) -> None:
    one, two = made("model"), made("model-2")
    await one.generate(USER)
    await two.generate(USER)
    assert (len(loaders.shared_scorers), len(loaders.models)) == (2, 1)
    await one.aclose()
    assert loaders.closed["shared"] == [1, 0]
    assert loaders.closed["models"] == [0]
    await two.aclose()
    assert loaders.closed["models"] == [1]


@pytest.mark.parametrize("how", ["aclose", "async with", "close", "with"])
def test_a_closed_guard_says_so(how: str) -> None:
    backend = ScriptedBackend(words())
    guard = Guard(policy(), model=backend, judges=[rewarding()], audit=MemoryStore())

    async def closing() -> None:
        if how == "aclose":
            await guard.aclose()
        else:
            async with guard as entered:
                assert (await entered.generate(USER)).finish == "length"

    match how:
        case "close":
            guard.blocking.close()
        case "with":
            with guard.blocking as blocking:
                assert blocking.generate(USER).finish == "length"
        case _:
            asyncio.run(closing())
    calls: list[Callable[[], object]] = [
        lambda: guard.blocking.generate(USER),
        lambda: list(guard.blocking.stream(USER)),
        lambda: guard.blocking.batch([USER]),
        lambda: guard.blocking.check("input", "text"),
    ]
    for call in calls:
        with pytest.raises(InputError, match="closed"):
            call()


async def test_what_was_passed_in_stays_open() -> None:
    backend, scorer = ClosingBackend(), ClosingScorer()

    class Store(MemoryStore):
        closed = 0

        async def aclose(self) -> None:
            Store.closed += 1

    judge = rewarding()
    judge = type(judge)(judge.rule, scorer)
    async with Guard(policy(), model=backend, judges=[judge], audit=Store()) as guard:
        await guard.generate(USER)
    assert (backend.closed, scorer.closed, Store.closed) == (0, 0, 0)


async def test_closing_waits_for_the_calls_that_run() -> None:
    backend = ScriptedBackend(words())
    guard = Guard(policy(), model=backend, judges=[rewarding()], audit=MemoryStore())
    stream = guard.stream(USER)
    await anext(stream)
    closing = asyncio.create_task(guard.aclose())
    while not guard._loaded._closed:
        await asyncio.sleep(0)
    with pytest.raises(InputError, match="closed"):
        await guard.generate(USER)
    assert not closing.done()
    assert [event async for event in stream]
    await closing


async def test_the_last_guard_closes_a_shared_store(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/log.db"
    one, two = (Guard(policy(), model=ScriptedBackend(words()), judges=[rewarding()], audit=url) for _ in range(2))
    assert one.audit is two.audit
    closes = []
    store = one.audit
    assert isinstance(store, ChainedStore)
    close = store.close

    def closing() -> None:
        closes.append(1)
        close()

    store.close = closing  # type: ignore[method-assign]
    await one.generate(USER)
    await one.aclose()
    assert not closes
    await two.generate(USER)
    await two.aclose()
    assert closes
    assert len(store.read()) == 2
    # a guard made later opens it again
    async with Guard(policy(), model=ScriptedBackend(words()), judges=[rewarding()], audit=url) as third:
        await third.generate(USER)
        assert len(third.audit.read()) == 3


async def test_a_replaced_guard_frees_what_the_new_one_does_not_need(loaders: Loaders) -> None:
    old = made("model", "words")
    stream = old.stream(USER)
    async for event in stream:
        if isinstance(event, Kept):
            break
    new = await old.replaced(declared("model-2", "words"))
    # the new one has loaded what it needs before its first call, and the old call runs on
    assert len(loaders.shared_scorers) == 2
    assert old._loaded._retired
    assert loaders.closed == {"engines": [0], "shared": [0, 0], "own": [0, 0], "models": [0]}
    assert [event async for event in stream]
    assert settled(lambda: loaders.closed == {"engines": [0], "shared": [1, 0], "own": [1, 0], "models": [0]})
    assert (await new.generate(USER)).finish == "length"
    assert len(loaders.engines) == 1
    # a caller that still holds the old one is served, and what that loads is freed again
    assert (await old.generate(USER)).finish == "length"
    assert settled(lambda: loaders.closed["shared"] == [1, 0, 1])
    await new.aclose()
    assert settled(lambda: loaders.closed["engines"] == [1] and loaders.closed["models"][0] == 1)
    assert not loaders.sharing._made


async def test_a_policy_that_cannot_be_used_replaces_nothing(loaders: Loaders) -> None:
    old = made("model")
    await old.generate(USER)
    with pytest.raises(PolicyError):
        await old.replaced({"apiVersion": "stars-guard/v1", "name": "broken", "decoding": {"attempts": -1}})
    assert (await old.generate(USER)).finish == "length"
    assert loaders.closed["engines"] == [0]
    await old.aclose()


async def test_an_unused_guard_is_replaced_without_loading_an_engine(loaders: Loaders) -> None:
    new = await made("model").replaced(declared("model-2"))
    assert loaders.closed == {"engines": [], "shared": [0], "own": [], "models": [0]}
    await new.generate(USER)
    await new.aclose()
    assert loaders.closed["engines"] == [1]


async def test_a_part_that_fails_to_close_does_not_keep_the_others_open() -> None:
    class Broken(Part):
        async def aclose(self) -> None:
            await super().aclose()
            raise OSError("it is stuck")

    parts: list[Part] = [Part(), Broken(), Part()]

    async def keep() -> None:
        sharing: Shared[Part] = Shared()
        async with AsyncExitStack() as opened:
            for part in parts:
                lease = await sharing.lease(object(), partial(_given, part))
                opened.push_async_callback(lease.aclose)
            cascade = Cascade([], opened.pop_all())
        with pytest.raises(OSError, match="stuck"):
            await cascade.aclose()

    portal.call(keep)
    assert [part.closed for part in parts] == [1, 1, 1]


def test_a_part_of_a_loop_that_has_ended_is_closed_from_another() -> None:
    sharing: Shared[Part] = Shared()
    part = Part()
    asyncio.run(sharing.lease("key", partial(_given, part)))
    asyncio.run(sharing.withdraw_all())
    assert part.closed == 1


async def _given(part: Part) -> Part:
    return part


def run(code: str, *, tmp_path: Path) -> str:
    """Run a program in a process of its own; what it writes."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


FORKED = """
    import multiprocessing, sys
    from conftest import USER, policy, rewarding, words
    from stars_guard.audit import open_store
    from stars_guard.errors import StarsGuardError
    from stars_guard.guard import Guard
    from stars_guard.testing import ScriptedBackend
    from stars_guard.calling import loaded
    from stars_guard.engines.sharing import Shared

    sharing = Shared()

    async def engine():
        print("loaded", flush=True)
        return ScriptedBackend(words())

    async def load(model, *more):
        return await sharing.lease(("engine", model), engine)

    loaded.lease_backend = load
    declared = {{**policy(on_exhausted="best"), "judges": [
        {{"name": "words", "type": "patterns", "patterns": [{{"name": "x", "regex": "zzz"}}], "reject_above": 0.5}}
    ]}}
    url = "{url}"

    def child(make):
        try:
            guard = make()
            print("child", guard.blocking.generate(USER).finish, len(list(guard.blocking.stream(USER))) > 3, flush=True)
        except StarsGuardError as exc:
            print("child", type(exc).__name__, exc.hint, flush=True)

    def main():
        named = Guard(declared, model="any", backend="transformers", audit=url)
        ready = Guard(declared, model=ScriptedBackend(words()), audit=url)
        for guard in (named, ready):
            print("parent", guard.blocking.generate(USER).finish, flush=True)
        forking = multiprocessing.get_context("fork")
        for make in (lambda: named, lambda: ready,
                     lambda: Guard(declared, model=ScriptedBackend(words()), audit=url)):
            process = forking.Process(target=child, args=(make,))
            process.start()
            process.join(60)
            print("exit", process.exitcode, flush=True)
            process.kill()
        for guard in (named, ready):
            print("parent", guard.blocking.generate(USER).finish, flush=True)
        named.blocking.close()
        print("records", len(open_store(url).read()))

    main()
"""


@pytest.mark.parametrize("kind", ["sqlite", "jsonl"])
def test_a_forked_process_loads_its_own_parts_or_says_what_it_cannot_have(kind: str, tmp_path: Path) -> None:
    lines = run(FORKED.format(url=f"{kind}://{tmp_path}/log"), tmp_path=tmp_path).splitlines()
    hint = "make the guard after the fork, or give it names instead of parts that are ready"
    assert lines == [
        "loaded",
        "parent length",
        "parent length",
        "loaded",
        "child length True",
        "exit 0",
        f"child BackendError {hint}",
        "exit 0",
        "child length True",
        "exit 0",
        "parent length",
        "parent length",
        "records 8",
    ]


def test_a_plain_fork_ends_by_itself(tmp_path: Path) -> None:
    """The child runs all that Python runs at the end of a process, and does not wait for threads that it has not."""
    code = """
        import os
        from conftest import USER, guard
        made = guard()
        made.blocking.generate(USER)
        if not (child := os.fork()):
            raise SystemExit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(code, tmp_path=tmp_path).split() == ["7"]


def test_a_process_ends_while_a_call_runs(tmp_path: Path) -> None:
    """A daemon thread's call is cancelled, and its record written."""
    code = f"""
        import asyncio, threading
        from conftest import USER, policy, words, rewarding
        from stars_guard.guard import Guard
        from stars_guard.core.judging import Rule
        from stars_guard.scorers import Judge
        from stars_guard.scorers.base import Scorer
        from stars_guard.testing import ScriptedBackend
        reached = threading.Event()

        class Hanging(Scorer):
            identity = {{"kind": "hanging"}}
            async def score(self, passages):
                reached.set()
                await asyncio.sleep(3600)

        judge = Judge(Rule(judge="one", weight=1.0), Hanging())
        made = Guard(policy(), model=ScriptedBackend(words()), judges=[judge], audit="jsonl://{tmp_path}/log")
        def call():
            try:
                made.blocking.generate(USER)
            except BaseException:
                pass
        threading.Thread(target=call, daemon=True).start()
        reached.wait()
    """
    run(code, tmp_path=tmp_path)
    assert [record.finish for record in open_store(f"jsonl://{tmp_path}/log").read()] == ["cancelled"]
