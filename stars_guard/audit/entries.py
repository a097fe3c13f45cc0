"""The chain: each entry of the log holds the hash of the one before, so that no entry can be changed or taken out.

    hash = SHA-256 of the entry without its hash, as canonical JSON (RFC 8785); HMAC-SHA-256 where there is a key

A chain belongs to one writer: a JSONL file is one, and so is each process that writes into a database. Its last hash,
the head, stands for all before it: whoever keeps heads elsewhere finds out when a tail is cut off or all is made anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from stars_guard.audit.keys import AuditKey, audit_keys
from stars_guard.audit.record import CallRecord
from stars_guard.errors import AuditError

__all__ = [
    "GENESIS",
    "Broken",
    "Entry",
    "Head",
    "Item",
    "Purge",
    "Unsealed",
    "canonical",
    "new_writer",
    "read_line",
    "seal",
]

GENESIS = "0" * 64
"""What the first entry of a chain holds in place of the hash before it."""

_EXACT = 2**53 - 1
_LINE = re.compile(
    rb'\{"hash":"([0-9a-f]{64})","key":(?:null|"([0-9a-f]{16})"),"prev":"([0-9a-f]{64})",'
    rb'"(record|purge)":(\{.*\}),"seq":([1-9][0-9]{0,17}),"writer":"([0-9a-f]{16})"\}'
)


class Head(BaseModel):
    """The last entry of a chain, or of a part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writer: str
    seq: int = 0
    hash: str = GENESIS


class Purge(BaseModel):
    """What an entry says in place of those that were taken out: of each chain, all up to the last that is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: str
    before: str
    purged: tuple[Head, ...]

    @classmethod
    def of(cls, before: datetime, gone: Iterable[Head], earlier: Iterable[str]) -> str:
        """The payload of a purge.

        Args:
            gone: of each chain the last entry that goes.
            earlier: payloads of the purges before. What they say is said again, since they may go too.
        """
        last: dict[str, Head] = {}
        for head in (*(head for payload in earlier for head in cls.model_validate_json(payload).purged), *gone):
            if head.writer not in last or head.seq > last[head.writer].seq:
                last[head.writer] = head
        now, until = datetime.now(UTC).isoformat(), before.astimezone(UTC).isoformat()
        return canonical(cls(at=now, before=until, purged=tuple(last.values())).model_dump())


@dataclass(frozen=True, slots=True)
class Item:
    """A record on its way into a store, and the canonical JSON that is sealed."""

    record: CallRecord
    payload: str

    @classmethod
    def of(cls, record: CallRecord) -> Item:
        """Raises AuditError when the record cannot be written as canonical JSON."""
        return cls(record, canonical(record.model_dump(mode="json")))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a chain.

    Attributes:
        seq: its place in the chain, from 1.
        prev: the hash of the entry before.
        key: names the key that signed it; None for a plain hash.
        payload: canonical JSON of a `CallRecord` or a `Purge`, as ``kind`` says.
    """

    writer: str
    seq: int
    prev: str
    key: str | None
    kind: Literal["record", "purge"]
    payload: str
    hash: str

    @property
    def head(self) -> Head:
        """The chain up to here."""
        return Head(writer=self.writer, seq=self.seq, hash=self.hash)

    def line(self) -> bytes:
        """As it is written into a file, without the line's end."""
        return b'{"hash":"%s",%s' % (self.hash.encode(), _unhashed(self)[1:])

    @classmethod
    def parse(cls, line: bytes) -> Entry | None:
        """What `line` wrote, byte for byte; None for anything else."""
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        try:
            found = [None if group is None else group.decode() for group in match.groups()]
        except UnicodeDecodeError:
            return None
        digest, key, prev, kind, payload, seq, writer = found
        return cls(writer, int(seq or 0), prev, key, kind, payload, digest)  # type: ignore[arg-type]

    def holds(self, keys: Sequence[AuditKey]) -> bool:
        """Whether the hash is that of the entry.

        Raises:
            AuditError: it was signed with a key that is not among ``keys``.
        """
        if self.key is None:
            return self.hash == hashlib.sha256(_unhashed(self)).hexdigest()
        for key in keys:
            if key.id == self.key:
                return secrets.compare_digest(self.hash, key.seal(_unhashed(self)))
        raise AuditError(f"entry {self.seq} of {self.writer} is signed with the key {self.key}, which is not here")

    def record(self) -> CallRecord:
        """The record.

        Raises:
            AuditError: it is not one that this version reads.
        """
        try:
            return CallRecord.model_validate_json(self.payload)
        except ValidationError:
            raise AuditError(f"entry {self.seq} of {self.writer} is not a record that this version reads") from None


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A record of the time before there was a chain."""

    where: str
    record: CallRecord


@dataclass(frozen=True, slots=True)
class Broken:
    """What stands in a log and is no entry.

    Attributes:
        kind: ``torn``: what a crash can have left of one; ``foreign``: JSON, but nothing that this version reads;
            ``garbled``: neither.
    """

    where: str
    kind: Literal["torn", "foreign", "garbled"]


def seal(head: Head, bodies: Sequence[tuple[Literal["record", "purge"], str]]) -> list[Entry]:
    """The next entries of a chain. Signed where there is a key."""
    keys = audit_keys()
    key = keys[0] if keys else None
    entries: list[Entry] = []
    prev, seq = head.hash, head.seq
    for kind, payload in bodies:
        seq += 1
        bare = Entry(head.writer, seq, prev, key.id if key else None, kind, payload, "")
        data = _unhashed(bare)
        prev = key.seal(data) if key else hashlib.sha256(data).hexdigest()
        entries.append(Entry(bare.writer, seq, bare.prev, bare.key, kind, payload, prev))
    return entries


def new_writer() -> str:
    """The name of a new chain."""
    return secrets.token_hex(8)


def canonical(data: Mapping[str, Any]) -> str:
    """Canonical JSON (RFC 8785). Whole numbers that a double cannot hold become strings.

    Raises:
        AuditError: a number is infinite or not a number, or a text is not Unicode.
    """
    try:
        try:
            return rfc8785.dumps(data).decode()
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_exact(data)).decode()
    except rfc8785.CanonicalizationError as exc:
        raise AuditError("a record cannot be written", hint=f"{type(exc).__name__}: a number or a text in it") from None


def read_line(line: bytes, where: str, *, ended: bool) -> Entry | Unsealed | Broken:
    """What a line of a file is.

    Args:
        line: without its end.
        ended: whether it had one: a crash leaves the beginning of a line, and never its end.
    """
    if (entry := Entry.parse(line)) is not None:
        return entry
    try:
        return Unsealed(where, CallRecord.model_validate_json(line))
    except ValidationError as exc:
        is_json = exc.errors()[0]["type"] != "json_invalid"
    if is_json:
        return Broken(where, "foreign")
    old = line.startswith(b'{"schema_version":1,')
    return Broken(where, "torn" if old or (not ended and not _begins_complete(line)) else "garbled")


def _begins_complete(line: bytes) -> bool:
    """Whether a line is more than the beginning of an entry."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _exact(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return value if -_EXACT <= value <= _EXACT else str(value)
        case dict():
            return {key: _exact(each) for key, each in value.items()}
        case list() | tuple():
            return [_exact(each) for each in value]
        case _:
            return value


def _unhashed(entry: Entry) -> bytes:
    key = "null" if entry.key is None else f'"{entry.key}"'
    return (
        f'{{"key":{key},"prev":"{entry.prev}","{entry.kind}":{entry.payload},'
        f'"seq":{entry.seq},"writer":"{entry.writer}"}}'
    ).encode()
