"""Personal data as a judge: found by shape (RE2), then checked by the libraries that know the numbers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import re2
from pydantic import Field

from stars_guard.core.segments import Passage
from stars_guard.errors import MissingExtra, ScorerError
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["KINDS", "PiiOptions", "PiiScorer"]

Kind = Literal["email", "phone", "credit_card", "iban", "us_ssn", "ip_address"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TAIL = 200
_SHAPES = {
    "email": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "credit_card": r"\b\d(?:[ -]?\d){12,18}\b",
    "iban": r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b",
    "us_ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "ip_address": r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}\b",
}


class PiiOptions(JudgeOptions):
    """Personal data: e-mail addresses, and phone, card, account and other numbers that pass their own checks."""

    kinds: tuple[Kind, ...] = Field(("email", "phone", "credit_card", "iban", "us_ssn"), min_length=1, strict=False)
    region: str = Field("US", pattern="^[A-Z]{2}$", description="of phone numbers without a country code")
    reject_above: float | None = Field(0.0, description="more matches than this veto the segment")

    async def load(self) -> Scorer:
        # their libraries read tables when they are imported
        return await asyncio.to_thread(PiiScorer, self.kinds, self.region)


class PiiScorer(Scorer):
    """The number of matches in the newest text. What begins up to 200 characters before the segment counts.

    Args:
        kinds: some of `KINDS`.
        region: where a phone number without a country code is from, such as ``US``.

    Raises:
        MissingExtra: python-stdnum or phonenumbers is not installed.
        ScorerError: phonenumbers knows no such region, so it would find no phone number without a country code.
    """

    cost = 0.1

    def __init__(self, kinds: Sequence[str] = KINDS, region: str = "US") -> None:
        self.identity = {"kind": "pii", "kinds": ", ".join(kinds), "region": region}
        self._region = region
        self._phones = _phonenumbers(region) if "phone" in kinds else None
        checks = _checks()
        self._shapes = [(kind, re2.compile(_SHAPES[kind]), checks[kind]) for kind in kinds if kind in _SHAPES]

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def _score(self, passage: Passage) -> Rating:
        text = passage.answer if passage.last else passage.accepted[-_TAIL:] + passage.segment
        found = [kind for _, _, kind in self.find(text)] if passage.segment else []
        return Rating(float(len(found)), ", ".join(sorted(set(found))) or None)

    def find(self, text: str) -> Sequence[Find]:
        found = [
            (*match.span(), kind)
            for kind, shape, is_real in self._shapes
            for match in shape.finditer(text)
            if is_real(match.group())
        ]
        if self._phones is not None:
            matches = self._phones.PhoneNumberMatcher(text, self._region)
            found += [(match.start, match.end, "phone") for match in matches]
        return found


def _phonenumbers(region: str) -> ModuleType:
    try:
        import phonenumbers
    except ImportError as exc:
        raise MissingExtra("pii", "pii") from exc
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ScorerError(f"pii: there are no phone numbers of the region {region!r}", hint="write a code such as US")
    return phonenumbers


def _checks() -> dict[str, Callable[[str], bool]]:
    try:
        from stdnum import iban, luhn
        from stdnum.us import ssn
    except ImportError as exc:
        raise MissingExtra("pii", "pii") from exc

    def card(text: str) -> bool:
        digits = "".join(filter(str.isdigit, text))
        return len(set(digits)) > 1 and bool(luhn.is_valid(digits))

    return {
        "email": lambda _: True,
        "credit_card": card,
        "iban": _valid(iban),
        "us_ssn": _valid(ssn),
        "ip_address": _ip,
    }


def _valid(module: Any) -> Callable[[str], bool]:
    return lambda text: bool(module.is_valid(text))


def _ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
