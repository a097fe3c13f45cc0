"""Our parts do what stars-guard asks of every part."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from acme_guard.lines import LinesStore
from acme_guard.parrot import ParrotBackend, ParrotOptions
from acme_guard.shouting import ShoutingScorer

from stars_guard import Backend, Scorer
from stars_guard.calling import portal
from stars_guard.testing import AuditStoreTests, BackendTests, ScorerTests


class TestShouting(ScorerTests):
    samples = ("a calm answer of some length", "AN ANGRY ANSWER OF SOME LENGTH")

    async def make(self) -> Scorer:
        return ShoutingScorer(letters=12)


class TestLines(AuditStoreTests):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], LinesStore]:
        return lambda: LinesStore.from_url(f"acme-lines://{tmp_path}/log")


async def parrot() -> Backend:
    return await ParrotBackend.load("any", ParrotOptions(times=4))


class TestParrot(BackendTests):
    @pytest.fixture(scope="class")
    def engine(self) -> Iterator[Backend]:
        made = portal.call(parrot)
        yield made
        portal.call(made.aclose)

    @pytest.fixture
    def backend(self, engine: Backend) -> Backend:
        return engine

    @pytest.fixture
    def make(self) -> Callable[[], Awaitable[Backend]]:
        return parrot
