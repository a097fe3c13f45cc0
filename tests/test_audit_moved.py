"""A log whose file is deleted, moved or replaced while it is written: nothing that comes later is lost."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_writers import small, write_many
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stars_guard.audit import Writing, open_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.auditing.verification import verify
from stars_guard.errors import AuditError


def delete(file: Path) -> None:
    """As ``rm audit.db`` does, which leaves what SQLite keeps beside it."""
    file.unlink()


def delete_all(file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink(missing_ok=True)


def delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


def rename(file: Path) -> None:
    """As logrotate does."""
    file.rename(file.with_name(f"{file.name}.1"))


def rename_all(file: Path) -> None:
    for each in list(file.parent.glob(f"{file.name}*")):
        each.rename(each.with_name(each.name.replace(file.name, "old")))


def put_back(file: Path) -> None:
    """An empty file in its place."""
    file.unlink()
    file.touch()


def restore(file: Path) -> None:
    """A copy of another log, as of a backup."""
    other = file.parent.parent / "other" / file.name
    delete_all(file)
    shutil.copy(other, file)


HAPPENINGS = [delete, delete_all, delete_folder, rename, rename_all, put_back, restore]
KINDS = ("sqlite", "jsonl")


def names(store: ChainedStore) -> list[str]:
    return [record.call_id for record in store.read()]


def checked(url: str) -> set[str]:
    """What a new reader finds, after all of it was verified."""
    store = open_store(url)
    assert isinstance(store, ChainedStore)
    found = names(store)
    assert len(found) == len(set(found))
    report = verify(store)
    assert (report.problem, report.differing) == (None, ())
    store.close()
    return set(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("happens", HAPPENINGS, ids=lambda happens: happens.__name__)
async def test_what_is_written_later_is_in_the_log(kind: str, happens: Callable[[Path], None], tmp_path: Path) -> None:
    file, url = tmp_path / "log" / "audit", f"{kind}://{tmp_path}/log/audit"
    async with open_store(f"{kind}://{tmp_path}/other/audit") as other:
        await other.append(small("backup"))
    async with open_store(url) as store, open_store(url) as beside:
        for number in range(3):
            await store.append(small(f"before-{number}"))
            await beside.append(small(f"beside-before-{number}"))
        assert len(store.read()) == 6
        happens(file)
        for number in range(3):
            await store.append(small(f"after-{number}"))
            await beside.append(small(f"beside-after-{number}"))
        later = {f"{who}after-{number}" for number in range(3) for who in ("", "beside-")}
        assert set(names(store)) == set(names(beside)) == checked(url)
        assert checked(url) - {"backup"} == later
        assert ("backup" in checked(url)) == (happens is restore)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_follows_too(kind: str, tmp_path: Path) -> None:
    url = f"{kind}://{tmp_path}/log/audit"
    write_many(url, "one", 2)
    reader = open_store(url)
    assert set(names(reader)) == {"one-0", "one-1"}  # type: ignore[arg-type]
    delete_all(tmp_path / "log" / "audit")
    assert names(reader) == []  # type: ignore[arg-type]
    assert not (tmp_path / "log" / "audit").exists()
    write_many(url, "two", 1)
    assert names(reader) == ["two-0"]  # type: ignore[arg-type]


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), steps=st.lists(st.sampled_from(["a", "b", "read", *HAPPENINGS[:6]]), max_size=12))
def test_whatever_happens_in_whatever_order(
    kind: str, steps: list[str | Callable[[Path], None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("log")
    file, url = folder / "log" / "audit", f"{kind}://{folder}/log/audit"
    stores = {name: open_store(url) for name in ("a", "b")}
    there: set[str] = set()
    for number, step in enumerate(steps):
        if callable(step):
            if file.exists():
                step(file)
                there = set()
        elif step == "read":
            assert set(names(stores["b"])) == there  # type: ignore[arg-type]
        else:
            one = small(f"{step}-{number}")
            from stars_guard.calling import portal

            portal.call(lambda store=stores[step], record=one: store.append(record))
            there.add(one.call_id)
    assert checked(url) == there
    for store in stores.values():
        store.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", KINDS)
def test_processes_that_write_meanwhile(kind: str, tmp_path: Path) -> None:
    """Each goes over to the new file by itself, and the log stays whole."""
    file, url = tmp_path / "log" / "audit", f"{kind}://{tmp_path}/log/audit"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(url, name, 500)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    gone = 0
    while any(writer.is_alive() for writer in writers):
        if file.exists() and gone < 5:
            delete_all(file)
            gone += 1
        writers[0].join(0.05)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert gone
    checked(url)


async def test_where_no_new_file_can_be_made_records_are_put_aside(tmp_path: Path) -> None:
    file, url = tmp_path / "log" / "audit", f"sqlite://{tmp_path}/log/audit"
    async with open_store(url, Writing(on_error="spool")) as store:
        await store.append(small("before"))
        delete_folder(file)
        file.parent.write_text("in the way")
        await store.append(small("aside"))
        file.parent.unlink()
        await store.append(small("after"))
    async with open_store(url, Writing(on_error="spool")) as store:
        await store.append(small("last"))
    assert checked(url) >= {"aside", "after", "last"}


async def test_where_it_must_not_be_put_aside_the_call_fails(tmp_path: Path) -> None:
    file = tmp_path / "log" / "audit"
    async with open_store(f"sqlite://{file}", Writing(on_error="block", patience=0.1)) as store:
        await store.append(small("before"))
        delete_folder(file)
        file.parent.write_text("in the way")
        with pytest.raises(AuditError, match="cannot write the audit log"):
            await store.append(small("lost"))
