"""The chain: each entry of the log holds the hash of the one before, so that no entry can be changed or taken out.

    hash = SHA-256 of the entry without its hash, as canonical JSON (RFC 8785); HMAC-SHA-256 where there is a key

A chain has one writer: a JSONL file is one chain, and each process that writes into a database has its own. ``writer``
names the chain. The last hash of a chain, its head, stands for all entries before it. If you keep heads elsewhere, you
can tell when the tail of a chain was cut off or when all of it was made again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stars_guard.audit._canonical import EXACT, canonical
from stars_guard.audit.keys import KEY_VARIABLE, AuditKey, audit_keys
from stars_guard.audit.record import CallRecord, read_record
from stars_guard.audit.versions import unreadable
from stars_guard.errors import AuditError

__all__ = [
    "GENESIS",
    "UNSEALED",
    "Broken",
    "Differs",
    "Entry",
    "Gone",
    "Head",
    "Item",
    "Kind",
    "Purge",
    "Unsealed",
    "canonical",
    "new_writer",
    "read_line",
    "seal",
]

GENESIS = "0" * 64
"""What the first entry of a chain holds in place of the hash before it."""

UNSEALED = "unsealed"
"""What a head has in place of the name of a chain where it stands for the records that no chain seals."""

Kind = Literal["record", "purge"]
"""What an entry holds: the record of a call, or the note that entries were purged."""

_Hash = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
_Name = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{16}\z")]


class _Line(BaseModel):
    """What an entry is as a line of JSON. It has either a ``record`` or a ``purge``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hash: _Hash
    key: _Name | None
    prev: _Hash
    purge: dict[str, Any] | None = None
    record: dict[str, Any] | None = None
    seq: Annotated[int, Field(ge=1, le=EXACT)]
    writer: _Name


class Head(BaseModel):
    """The last entry of a chain, or of a part of it.

    A head whose ``writer`` is `UNSEALED` stands for the records that no chain seals: how many there are, and a hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    writer: str
    seq: int = 0
    hash: str = GENESIS

    def with_unsealed(self, line: bytes) -> Head:
        """What stands for one more record that no chain seals.

        Args:
            line: as it stands in the file.
        """
        made = hashlib.sha256(self.hash.encode() + line).hexdigest()
        return Head(writer=UNSEALED, seq=self.seq + 1, hash=made)


class Gone(Head):
    """The last entry of a chain that a purge took out, and so all entries before it.

    Attributes:
        entries: how many went. Only the first purges that were ever written have it, and nothing needs it.
    """

    entries: int | None = Field(default=None, exclude=True)


class Purge(BaseModel):
    """What an entry says in place of those that were taken out: of each chain, all up to the last that is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: str
    before: str
    purged: tuple[Gone, ...]

    @classmethod
    def of(cls, before: datetime, gone: Iterable[Head], earlier: Iterable[str]) -> str:
        """The payload of a purge.

        Args:
            before: the purge took out calls that ended before this time.
            gone: of each chain the last entry that goes.
            earlier: payloads of the purges before. What they say is said again, because they may go too.
        """
        last: dict[str, Head] = {}
        for head in (*(head for payload in earlier for head in cls.read(payload, "a purge").purged), *gone):
            if head.writer not in last or head.seq > last[head.writer].seq:
                last[head.writer] = head
        now, until = datetime.now(UTC).isoformat(), before.astimezone(UTC).isoformat()
        purged = tuple(Gone(writer=head.writer, seq=head.seq, hash=head.hash) for head in last.values())
        return canonical(cls(at=now, before=until, purged=purged).model_dump())

    @classmethod
    def read(cls, payload: str, where: str) -> Purge:
        """What a payload says.

        Args:
            where: the place in the log, for the error.

        Raises:
            AuditError: it is not a purge that this version reads, or its times can't be read.
        """
        try:
            found = cls.model_validate_json(payload)
        except ValidationError:
            raise AuditError(f"{where} is not a purge that this version of stars-guard reads") from None
        _check_times(where, found.at)
        return found


@dataclass(frozen=True, slots=True)
class Item:
    """A record on its way into a store, and the canonical JSON that goes into the chain."""

    record: CallRecord
    payload: str

    @classmethod
    def of(cls, record: CallRecord) -> Item:
        """Raises AuditError when the record cannot be written as canonical JSON."""
        return cls(record, canonical(record.model_dump(mode="json")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a chain.

    Attributes:
        writer: the name of the chain.
        seq: the entry's number in the chain, from 1.
        prev: the hash of the entry before.
        key: names the key that signed it; None for a plain hash.
        payload: canonical JSON of a `CallRecord` or a `Purge`, as ``kind`` says.
    """

    writer: str
    seq: int
    prev: str
    key: str | None
    kind: Kind
    payload: str
    hash: str

    @property
    def head(self) -> Head:
        """The chain up to here."""
        return Head(writer=self.writer, seq=self.seq, hash=self.hash)

    @property
    def where(self) -> str:
        """The entry's place, as errors name it."""
        return f"entry {self.seq} of {self.writer}"

    def line(self) -> bytes:
        """The entry as canonical JSON: a line of a file, without its end."""
        return _object({**self._members(), "hash": _json(self.hash)})

    def hashed(self) -> bytes:
        """What the hash is taken of: the entry as canonical JSON, without its hash."""
        return _object(self._members())

    def _members(self) -> dict[str, str]:
        members = {name: _json(getattr(self, name)) for name in ("key", "prev", "seq", "writer")}
        return {**members, self.kind: self.payload}

    @classmethod
    def parse(cls, line: bytes) -> Entry | None:
        """The entry that `line` wrote, byte for byte; None for anything else."""
        try:
            members = _Line.model_validate_json(line)
        except ValidationError:
            return None
        kind: Kind = "record" if members.record is not None else "purge"
        empty = cls(
            writer=members.writer,
            seq=members.seq,
            prev=members.prev,
            key=members.key,
            kind=kind,
            payload="",
            hash=members.hash,
        )
        # the payload is kept byte for byte, so that it can be hashed again: it is what stands between the other members
        name = f'"{kind}":'.encode()
        before, _, after = empty.line().partition(name)
        payload = line[len(before + name) : len(line) - len(after)]
        entry = replace(empty, payload=payload.decode())
        return entry if entry.line() == line else None

    def holds(self, keys: Sequence[AuditKey]) -> bool:
        """Whether the hash is that of the entry.

        Raises:
            AuditError: it was signed with a key that is not among ``keys``.
        """
        try:
            data = self.hashed()
        except ValueError:
            # a number or a text that JSON cannot hold, so nobody has hashed it
            return False
        if self.key is None:
            return self.hash == hashlib.sha256(data).hexdigest()
        for key in keys:
            if key.id == self.key:
                return secrets.compare_digest(self.hash, key.seal(data))
        raise AuditError(f"it is signed with the key {self.key}, which is not here", hint=f"add it to {KEY_VARIABLE}")

    def record(self) -> CallRecord:
        """The record.

        Raises:
            AuditError: this version of stars-guard does not read it, or its times can't be read.
        """
        record = read_record(self.payload, self.where)
        _check_times(self.where, record.started_at, record.ended_at)
        return record


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A record of the time before there was a chain.

    Attributes:
        line: as it stands in the file, without its end.
    """

    where: str
    record: CallRecord
    _: KW_ONLY
    line: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """What stands in a log and is no entry.

    Attributes:
        where: file and line.
        kind: ``torn``: what a crash can have left of an entry. ``foreign``: JSON, but nothing that this version of
            stars-guard reads, such as the record of a newer one. ``garbled``: neither.
        error: what to say of a ``foreign`` line. It is whole, so it must not be skipped in silence.
    """

    where: str
    kind: Literal["torn", "foreign", "garbled"]
    _: KW_ONLY
    error: AuditError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differs:
    """What lists, searches and counts show of a call, and is not what its sealed record says.

    Attributes:
        where: the entry and the call, or the row where no entry stands behind it.
        call: the call's id; empty where the row belongs to no call.
        text: what differs, without any text of a record.
    """

    where: str
    call: str
    text: str


def seal(head: Head, bodies: Sequence[tuple[Kind, str]]) -> list[Entry]:
    """The next entries of a chain. They are signed where there is a key.

    Args:
        head: the last entry so far.
        bodies: kind and payload of each new entry.
    """
    keys = audit_keys()
    key = keys[0] if keys else None
    entries: list[Entry] = []
    for kind, payload in bodies:
        bare = Entry(
            writer=head.writer,
            seq=head.seq + 1,
            prev=head.hash,
            key=key.id if key else None,
            kind=kind,
            payload=payload,
            hash="",
        )
        data = bare.hashed()
        entries.append(replace(bare, hash=key.seal(data) if key else hashlib.sha256(data).hexdigest()))
        head = entries[-1].head
    return entries


def new_writer() -> str:
    """The name of a new chain."""
    return secrets.token_hex(8)


def read_line(line: bytes, where: str, *, ended: bool) -> Entry | Unsealed | Broken:
    """What a line of a file is.

    Args:
        line: without its end.
        where: file and line, for who reads an error.
        ended: whether it had an end: a crash leaves the beginning of a line, and never its end.
    """
    if (entry := Entry.parse(line)) is not None:
        return entry
    try:
        record = CallRecord.model_validate_json(line)
        _check_times(where, record.started_at, record.ended_at)
        return Unsealed(where, record, line=line)
    except AuditError as error:
        return Broken(where, "foreign", error=error)
    except ValidationError as exc:
        is_json = exc.errors()[0]["type"] != "json_invalid"
    if is_json:
        return Broken(where, "foreign", error=unreadable(line, where))
    old = line.startswith(b'{"schema_version":1,')
    return Broken(where, "torn" if old or (not ended and not _begins_complete(line)) else "garbled")


def _check_times(where: str, *times: str) -> None:
    """Times as all records have them, so that whoever counts and lists them can rely on it.

    Args:
        where: the place in the log, for the error.

    Raises:
        AuditError: one of them isn't a time.
    """
    for each in times:
        try:
            when = datetime.fromisoformat(each)
        except ValueError:
            when = None
        if when is None or when.tzinfo is None or not 1970 <= when.year < 9999:
            raise AuditError(f"{where} has a time that no call can have had")


def _begins_complete(line: bytes) -> bool:
    """Whether a line is more than the beginning of an entry."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return False
    return True


def _json(value: str | int | None) -> str:
    return rfc8785.dumps(value).decode()


def _object(members: Mapping[str, str]) -> bytes:
    """Canonical JSON of an object, from the canonical JSON of its members: they are sorted by name, and that is all."""
    return ("{" + ",".join(f"{_json(name)}:{members[name]}" for name in sorted(members)) + "}").encode()
