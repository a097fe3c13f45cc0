"""Checking chains: that no entry was changed, put in, left out or cut off, except what a purge says that it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stars_guard.audit.entries import GENESIS, UNSEALED, Entry, Head, Purge, Unsealed
from stars_guard.audit.keys import AuditKey
from stars_guard.errors import AuditError

__all__ = ["Chains"]

_LAST_UNSEALED = 1
"""The newest version of records that were written without a chain."""


class Chains:
    """Takes the entries of a log, each chain in its order, and says what does not hold.

    Args:
        keys: the keys that may have signed.
        heads: what ``stars-guard audit head`` exported earlier. The log must still hold them.
        allow_unsigned: whether entries without a signature are good enough although there is a key.
        allow_unsealed: how many records that no chain seals are good enough, although there is a key or there are heads
            that do not stand for them.

    Attributes:
        unsigned: how many entries are not signed.
    """

    def __init__(
        self,
        keys: Sequence[AuditKey],
        heads: Iterable[Head] = (),
        *,
        allow_unsigned: bool = False,
        allow_unsealed: int = 0,
    ) -> None:
        self.unsigned = 0
        self._unsealed = Head(writer=UNSEALED)
        self._allow_unsealed = allow_unsealed
        self._keys = keys
        self._allow_unsigned = allow_unsigned or not keys
        self._last: dict[str, Entry] = {}
        self._first: dict[str, Entry] = {}
        self._purged: dict[str, dict[int, Head]] = {}
        given = list(heads)
        self._heads = [head for head in given if head.writer != UNSEALED]
        self._unsealed_then = next((head for head in given if head.writer == UNSEALED), None)
        self._proves = bool(given)
        self._wanted = {(head.writer, head.seq): head for head in self._heads}
        self._noted_purge = False
        self._met: set[tuple[str, int]] = set()

    @property
    def writers(self) -> int:
        """How many chains have entries."""
        return len(self._last)

    @property
    def unsealed(self) -> int:
        """How many records no chain seals."""
        return self._unsealed.seq

    @property
    def purged(self) -> int:
        """How many entries a purge took out."""
        return sum(max(claims) for claims in self._purged.values())

    def check(self, entry: Entry) -> str | None:
        """Take the next entry. Returns what is wrong with it, or None."""
        last = self._last.get(entry.writer)
        self._last[entry.writer] = entry
        try:
            if not entry.holds(self._keys):
                return "its hash is not that of what it holds: it was changed"
        except AuditError as exc:
            return str(exc)
        if entry.key is None:
            self.unsigned += 1
            if not self._allow_unsigned or (last is not None and last.key is not None):
                return "it is not signed, though there is a key"
        if last is None:
            self._first[entry.writer] = entry
        elif entry.seq != last.seq + 1:
            return f"it is number {entry.seq} of its chain and comes after number {last.seq}: entries are missing"
        elif entry.prev != last.hash:
            return "it does not hold the hash of the entry before: that one was changed"
        wanted = self._wanted.get((entry.writer, entry.seq))
        if wanted is not None:
            if wanted.hash != entry.hash:
                return "its hash is not the one that was exported as head: the log was made again"
            self._met.add((entry.writer, entry.seq))
        return self._note(entry) if entry.kind == "purge" else None

    def unsealed_record(self, found: Unsealed) -> str | None:
        """Take a record that no chain seals. Returns what is wrong with it, or None."""
        self._unsealed = self._unsealed.with_unsealed(found.line)
        if found.record.schema_version > _LAST_UNSEALED:
            return f"it is not sealed, and records of version {found.record.schema_version} always are: it was put in"
        if self._last:
            return "it is not sealed, but entries before it are: it was put in"
        return None

    def finish(self) -> str | None:
        """What is wrong with the log as a whole, once all entries were taken, or None."""
        return self._finish_unsealed() or self._finish_chains()

    def _finish_unsealed(self) -> str | None:
        """What is wrong with the records that no chain seals.

        They prove nothing by themselves, so a key says that there are none, and heads that there are those they name.
        """
        count, then = self.unsealed, self._unsealed_then
        if then is not None and count and (count, self._unsealed.hash) != (then.seq, then.hash):
            return f"{count} records are not sealed, and are not the {then.seq} of which a head was exported"
        if then is not None and not count and not self._noted_purge:
            return f"{then.seq} records that are not sealed were there when the heads were exported, and are gone"
        named = then is not None and not self._keys
        if count > self._allow_unsealed and not named and (self._keys or self._proves):
            return (
                f"{count} records are not sealed, so anyone can have put them in (if so many are older than the chain, "
                f"allow them: --allow-unsealed {count})"
            )
        return None

    def _finish_chains(self) -> str | None:
        for writer, first in self._first.items():
            if first.seq == 1:
                if first.prev != GENESIS:
                    return f"the chain {writer} does not begin with its first entry"
            elif not self._covers(Head(writer=writer, seq=first.seq - 1, hash=first.prev)):
                return f"the chain {writer} begins with number {first.seq}, and no purge says so: entries are missing"
        for head in self._heads:
            if (head.writer, head.seq) in self._met:
                continue
            last = self._last.get(head.writer)
            if not any(seq >= head.seq for seq in self._purged.get(head.writer, ())):
                end = f"ends with number {last.seq}" if last is not None else "is not there"
                return f"the chain {head.writer} {end}, but its head was number {head.seq}: its tail was cut off"
            claim = self._purged[head.writer].get(head.seq)
            if claim is not None and claim.hash != head.hash:
                return f"the purged chain {head.writer} is not the one whose head was exported"
        return None

    def _covers(self, gone: Head) -> bool:
        claim = self._purged.get(gone.writer, {}).get(gone.seq)
        return claim is not None and claim.hash == gone.hash

    def _note(self, entry: Entry) -> str | None:
        try:
            purge = Purge.read(entry.payload, "it")
        except AuditError as exc:
            return str(exc)
        self._noted_purge = True
        for claim in purge.purged:
            earlier = self._purged.get(claim.writer, {}).get(claim.seq)
            if earlier is not None and earlier.hash != claim.hash:
                return f"it says of the chain {claim.writer} what another purge contradicts"
            self._purged.setdefault(claim.writer, {})[claim.seq] = claim
        return None
