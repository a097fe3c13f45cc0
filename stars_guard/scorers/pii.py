"""Personal data as a judge: found by shape (RE2), then checked by the libraries that know the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Literal, get_args

from pydantic import Field

from stars_guard.core.personal_data import (
    card_numbers,
    email_addresses,
    ibans,
    ip_addresses,
    social_security_numbers,
    spoken,
)
from stars_guard.core.phone_numbers import phone_numbers
from stars_guard.core.readings import Reading, found, opened
from stars_guard.core.segments import Passage
from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.scorers._begun_data import BegunData
from stars_guard.scorers._newest import Search
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["KINDS", "PiiOptions", "PiiScorer"]

Kind = Literal["email", "phone", "credit_card", "iban", "us_ssn", "ip_address"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SAID = frozenset({"credit_card", "phone", "us_ssn"})
_LONGEST = 600
"""Characters that one find may have."""


class PiiOptions(JudgeOptions):
    """Personal data: e-mail addresses, and phone, card, account and other numbers that pass their own checks."""

    kinds: tuple[Kind, ...] = Field(
        ("email", "phone", "credit_card", "iban", "us_ssn"),
        min_length=1,
        strict=False,
        description="what is looked for",
    )
    region: str = Field("US", pattern="^[A-Z]{2}$", description="of phone numbers without a country code")
    reject_above: float | None = Field(0.0, description="more matches than this veto the segment")

    async def load(self) -> Scorer:
        # their libraries read tables when they are imported
        return await asyncio.to_thread(PiiScorer, self.kinds, self.region)


class PiiScorer(Scorer):
    """The number of matches in the answer, each counted once.

    The text is read as it is and in its readings (`stars_guard.core.readings`), and digits that are words as digits.

    Args:
        kinds: some of `KINDS`.
        region: where a phone number without a country code is from, such as ``US``.

    Raises:
        MissingExtra: python-stdnum or phonenumbers is not installed.
        ScorerError: phonenumbers knows no such region, so it would find no phone number without a country code.
    """

    cost = 0.1
    waits = False

    def __init__(self, kinds: Sequence[str] = KINDS, region: str = "US") -> None:
        self.identity = {"kind": "pii", "kinds": ", ".join(kinds), "region": region}
        self._region = region
        self._kinds = _finders(kinds, region)
        self._search = Search(self._find, _LONGEST)
        self._begun = BegunData(kinds)

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    async def forget(self, call_id: str) -> None:
        self._search.forget(call_id)

    def _score(self, passage: Passage) -> Rating:
        found = [kind for _, _, kind in self._search.finds(passage)]
        return Rating(float(len(found)), ", ".join(sorted(set(found))) or None)

    def find(self, text: str) -> Sequence[Find]:
        return self._find(text, 0)

    def open_from(self, text: str, start: int = 0) -> int | None:
        return opened(text, self._begun.open_from, start)

    def _find(self, text: str, start: int) -> Sequence[Find]:
        # a find that begins before is looked at as a whole, so that no part of a number passes for one
        return [find for find in found(text, self._matches) if find[0] >= start]

    def _matches(self, text: str, start: int) -> Iterator[Find]:
        for kind, finder in self._kinds:
            for begin, end in finder(text):
                yield begin, end, kind
        said = Reading(text).edited(spoken(text))
        if said.text != text:
            for kind, finder in self._kinds:
                if kind in _SAID:
                    for begin, end in finder(said.text):
                        yield *said.span(begin, end), kind


def _phonenumbers(region: str) -> ModuleType:
    try:
        import phonenumbers
    except ImportError as exc:
        raise MissingExtra("pii", "pii") from exc
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ScorerError(f"pii: there are no phone numbers of the region {region!r}", hint="write a code such as US")
    return phonenumbers


def _finders(kinds: Sequence[str], region: str) -> list[tuple[str, Callable[[str], Iterable[tuple[int, int]]]]]:
    try:
        from stdnum import iban, luhn
        from stdnum.us import itin, ssn
    except ImportError as exc:
        raise MissingExtra("pii", "pii") from exc
    finders: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
        "email": email_addresses,
        "credit_card": lambda text: card_numbers(text, luhn.is_valid),
        "iban": lambda text: ibans(text, iban.is_valid),
        "us_ssn": lambda text: social_security_numbers(
            text, lambda number: bool(ssn.is_valid(number) or itin.is_valid(number))
        ),
        "ip_address": ip_addresses,
    }
    if "phone" in kinds:
        phonenumbers = _phonenumbers(region)
        finders["phone"] = lambda text: phone_numbers(text, phonenumbers, region)
    return [(kind, finders[kind]) for kind in kinds if kind in finders]
