"""Stores of other packages, found by the scheme of a URL."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from audit_writers import small

import stars_guard.audit
from stars_guard.audit import AuditStore, MemoryStore, Writing, open_store, shared_store, urls
from stars_guard.core.registry import Registry
from stars_guard.errors import AuditError

ACME = """
from stars_guard.audit import AuditStore, Writing

class AcmeStore(AuditStore):
    def __init__(self, url, writing):
        self.url, self.writing, self.records = url, writing, []

    @classmethod
    def from_url(cls, url, writing=None):
        return cls(url, writing)

    async def append(self, record):
        self.records.append(record)

    def read(self):
        return list(self.records)

class Nameless(AuditStore):
    async def append(self, record): ...
    def read(self): return []

def function(url, writing): ...
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package, installed."""
    (tmp_path / "acme_audit.py").write_text(ACME)
    metadata = tmp_path / "acme_audit-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-audit\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[stars_guard.stores]\n"
        "acme = acme_audit:AcmeStore\n"
        "acme+nameless = acme_audit:Nameless\n"
        "acme+function = acme_audit:function\n"
        "acme+missing = acme_audit:Missing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(urls, "_stores", Registry("stars_guard.stores", "audit store", urls._problem, AuditError))
    monkeypatch.delitem(sys.modules, "acme_audit", raising=False)


@pytest.mark.usefixtures("acme")
async def test_a_store_of_another_package_is_found_by_its_scheme() -> None:
    writing = Writing("batch", "drop")
    store = open_store("acme://u:hush@host/log?x=1", writing)
    assert type(store).__name__ == "AcmeStore"
    assert vars(store)["url"] == "acme://u:hush@host/log?x=1"
    assert vars(store)["writing"] is writing
    assert (
        shared_store("acme://a", writing) is shared_store("acme://a", writing) is not shared_store("acme://b", writing)
    )
    await store.append(small("one"))
    assert store.get("one") == store.read()[0]


@pytest.mark.usefixtures("acme")
def test_a_store_that_cannot_be_used_is_named_with_what_is_wrong() -> None:
    for scheme, said in (
        ("acme+nameless", "no from_url"),
        ("acme+function", "not a subclass of AuditStore"),
        ("acme+missing", "AttributeError"),
    ):
        with pytest.raises(AuditError, match=said) as info:
            open_store(f"{scheme}://u:hush@host/log")
        assert scheme in str(info.value)
        assert "hush" not in str(info.value)


@pytest.mark.usefixtures("acme")
def test_an_unknown_scheme_is_answered_with_what_there_is_and_never_with_the_url() -> None:
    for url, near in (
        ("acne://u:hush@host/log", "acme://"),
        ("postgresql://u:hush@host/log", "postgresql+psycopg://"),
        ("sqlit:///hush", "sqlite://"),
        ("zzz://hush", None),
        ("/var/log/hush", None),
        ("u:hush@host/log", None),
        ("hush hush://log", None),
    ):
        with pytest.raises(AuditError, match="cannot use the audit URL") as info:
            open_store(url)
        assert "hush" not in str(info.value)
        assert "acme://, acme+function://" in info.value.hint
        assert "sqlite://" in info.value.hint
        assert info.value.hint.startswith(f"did you mean {near}?" if near else "there are")


def test_stale_metadata_is_told_from_a_wrong_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody: Registry[type[AuditStore]] = Registry("stars_guard.stores.nobody", "audit store", urls._problem, AuditError)
    monkeypatch.setattr(urls, "_stores", nobody)
    for url in (None, "sqlite:///x", "memory://", "acme://x"):
        with pytest.raises(AuditError, match=r"pip install -e \."):
            open_store(url)


def test_a_store_without_a_url_says_so() -> None:
    class Mine(MemoryStore):
        from_url = AuditStore.from_url  # type: ignore[assignment]

    with pytest.raises(AuditError, match="has no URL"):
        Mine.from_url("mine://x")


def test_pytest_comes_only_with_the_suites() -> None:
    code = (
        "import sys, stars_guard, stars_guard.testing as t; t.ScriptedBackend; t.FunctionScorer;"
        "assert 'pytest' not in sys.modules; t.AuditStoreTests; assert 'pytest' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dataclasses_take_few_values_by_place() -> None:
    found = {}
    for info in pkgutil.walk_packages(stars_guard.audit.__path__, "stars_guard.audit."):
        if info.name.endswith("env"):
            continue
        module = importlib.import_module(info.name)
        for name, made in vars(module).items():
            if inspect.isclass(made) and dataclasses.is_dataclass(made) and made.__module__ == info.name:
                found[name] = [field.name for field in dataclasses.fields(made) if not field.kw_only]
    assert {"Filter", "Summary", "Stats", "Content", "Writing", "News", "Entry"} <= found.keys()
    assert {name: fields for name, fields in found.items() if len(fields) > 2 and not name.startswith("_")} == {}
