"""Checking chains: that no entry was changed, put in, left out or cut off, except what a purge says that it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from stars_guard.audit.entries import GENESIS, Entry, Head, Purge
from stars_guard.audit.keys import AuditKey
from stars_guard.errors import AuditError

__all__ = ["Chains"]


class Chains:
    """Takes the entries of a log, each chain in its order, and says what does not hold.

    Args:
        keys: the keys that may have signed.
        heads: what ``stars-guard audit head`` exported earlier. The log must still hold them.
        allow_unsigned: whether entries without a signature are good enough although there is a key.

    Attributes:
        unsigned: how many entries are not signed.
    """

    def __init__(self, keys: Sequence[AuditKey], heads: Iterable[Head] = (), *, allow_unsigned: bool = False) -> None:
        self.unsigned = 0
        self._keys = keys
        self._allow_unsigned = allow_unsigned or not keys
        self._last: dict[str, Entry] = {}
        self._first: dict[str, Entry] = {}
        self._purged: dict[str, dict[int, Head]] = {}
        self._heads = list(heads)
        self._wanted = {(head.writer, head.seq): head for head in self._heads}
        self._met: set[tuple[str, int]] = set()

    @property
    def writers(self) -> int:
        """How many chains have entries."""
        return len(self._last)

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

    def finish(self) -> str | None:
        """What is wrong with the log as a whole, once all entries were taken, or None."""
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
            purge = Purge.model_validate_json(entry.payload)
        except ValidationError:
            return "it is not a purge that this version reads"
        for claim in purge.purged:
            self._purged.setdefault(claim.writer, {})[claim.seq] = claim
        return None
