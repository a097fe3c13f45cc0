"""An entry as bytes: what is written, what is hashed, and what is read back."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from stars_guard.audit.entries import GENESIS, Entry, Head, Kind, Purge, canonical, seal
from stars_guard.errors import AuditError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
BODIES = st.dictionaries(
    TEXTS,
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=4,
)
HEX16 = st.binary(min_size=8, max_size=8).map(bytes.hex)
HEADS = st.builds(
    Head,
    writer=HEX16,
    seq=st.integers(0, 2**53 - 4),
    hash=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
KINDS = st.sampled_from(("record", "purge"))


@given(HEADS, st.lists(st.tuples(KINDS, BODIES), min_size=1, max_size=3), st.none() | HEX16)
def test_lines_are_canonical_and_are_read_back(head: Head, bodies: list[tuple[Kind, Any]], secret: str | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STARS_GUARD_AUDIT_KEY", secret or "")
        entries = seal(head, [(kind, canonical(body)) for kind, body in bodies])
    prev = head
    for entry, (kind, body) in zip(entries, bodies, strict=True):
        members = {"key": entry.key, "prev": prev.hash, "seq": prev.seq + 1, "writer": head.writer, kind: body}
        data = rfc8785.dumps(members)
        assert entry.hashed() == data == as_before(entry)
        assert entry.line() == rfc8785.dumps({**members, "hash": entry.hash})
        assert entry.hash == (signed(secret, data) if secret else hashlib.sha256(data).hexdigest())
        assert Entry.parse(entry.line()) == entry
        prev = entry.head


ANY_NUMBER = (
    st.floats()
    | st.integers()
    | st.integers(-25, 25).flatmap(lambda e: st.floats(0.1, 10).map(lambda x: x * 10.0**e))
    | st.sampled_from([-0.0, 1e21, 1e16, 1e-4, 9.999e-5, 1e-6, 1e-7, 0.1, 2**53, -(2**53), 2.0**53, 1e15 + 0.5])
)


@given(st.dictionaries(st.text('abAB\x7f\n"\\', max_size=3), ANY_NUMBER | st.text(max_size=6) | st.lists(ANY_NUMBER)))
def test_what_is_written_is_rfc_8785(body: dict[str, Any]) -> None:
    """As the reference writes it; what that cannot write is an error, but for large whole numbers."""
    large = any(type(x) is int and abs(x) >= 2**53 for v in body.values() for x in (v if isinstance(v, list) else [v]))
    try:
        wanted = rfc8785.dumps(body).decode()
    except rfc8785.CanonicalizationError:
        if large:
            return
        with pytest.raises(AuditError):
            canonical(body)
        return
    assert canonical(body) == wanted


def as_before(entry: Entry) -> bytes:
    """What was hashed by the code that wrote the first chains."""
    key = "null" if entry.key is None else f'"{entry.key}"'
    return (
        f'{{"key":{key},"prev":"{entry.prev}","{entry.kind}":{entry.payload},'
        f'"seq":{entry.seq},"writer":"{entry.writer}"}}'
    ).encode()


def signed(secret: str, data: bytes) -> str:
    key = hmac.new(secret.encode(), b"seal", "sha256").digest()
    return hmac.new(key, data, "sha256").hexdigest()


@given(BODIES, KINDS, st.data())
def test_no_other_bytes_are_read_as_an_entry(body: Any, kind: Kind, data: st.DataObject) -> None:
    (entry,) = seal(Head(writer="0" * 16), [(kind, canonical(body))])
    line = entry.line()
    at = data.draw(st.integers(0, len(line)))
    put, take = data.draw(st.binary(max_size=3)), data.draw(st.integers(0, 3))
    changed = line[:at] + put + line[at + take :]
    found = Entry.parse(changed)
    assert found is None or found.line() == changed


def test_what_is_no_entry() -> None:
    (entry,) = seal(Head(writer="0" * 16), [("record", '{"a":1}')])
    line = entry.line().decode()
    members = json.loads(line)
    assert Entry.parse(line.encode()) == entry
    for wrong in (
        json.dumps(members),
        json.dumps(dict(reversed(members.items())), separators=(",", ":")),
        line.replace('"record":{"a":1}', '"record":null'),
        line.replace('"record":{"a":1}', '"purge":{},"record":{"a":1}'),
        line.replace('"record"', '"other"'),
        line.replace('"record":{"a":1},', ""),
        line.replace('"seq":1', '"seq":0'),
        line.replace('"seq":1', '"seq":1.0'),
        line.replace('"seq":1', '"seq":true'),
        line.replace('"seq":1', f'"seq":{2**53}'),
        line.replace('"seq":1', f'"seq":{10**400}'),
        line.replace("0" * 16 + '"}', "0" * 15 + 'g"}'),
        line.replace(GENESIS, GENESIS[:-1]),
        f" {line}",
        f"{line}\n",
        "",
        "null",
        "[" * 100_000,
    ):
        assert Entry.parse(wrong.encode()) is None, wrong[:200]


def test_a_row_that_no_json_can_hold_does_not_hold() -> None:
    (entry,) = seal(Head(writer="0" * 16), [("record", '{"a":1}')])
    assert entry.holds(())
    for wrong in ({"seq": 2**53}, {"payload": "\ud800"}, {"writer": "\ud800"}):
        assert not dataclasses.replace(entry, **wrong).holds(())


def test_the_first_purges_counted_what_went() -> None:
    old = json.dumps({"at": "x", "before": "y", "purged": [{"entries": 5, "hash": GENESIS, "seq": 5, "writer": "w"}]})
    (gone,) = Purge.model_validate_json(old).purged
    assert gone.model_dump() == {"writer": "w", "seq": 5, "hash": GENESIS}
