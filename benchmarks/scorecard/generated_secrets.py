"""Texts that shipped policies must not release, made from their own patterns, and personal data of every kind."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import rstr
from phonenumbers import PhoneNumberFormat, PhoneNumberType, example_number_for_type, format_number
from stdnum import iban, luhn

from stars_guard.core.vocabulary import Stage
from stars_guard.policy import Policy, load_policy
from stars_guard.policy._loader import shipped_policies
from stars_guard.scorers.base import Scorer
from stars_guard.scorers.options import JudgeOptions
from stars_guard.scorers.patterns import Pattern, PatternScorer, PatternsOptions
from stars_guard.scorers.pii import KINDS, PiiScorer

__all__ = [
    "KEYS",
    "Secret",
    "anything_of",
    "judges_of",
    "patterns_of_keys",
    "secrets_of_patterns",
    "secrets_of_pii",
    "shipped_patterns",
]


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that a judge vetoes.

    Attributes:
        kind: the pattern's name, or the kind of personal data.
        scorer: the judge that finds it.
    """

    kind: str
    text: str
    scorer: Scorer


def judges_of(policy: Policy) -> Iterator[tuple[Stage | None, JudgeOptions]]:
    """All judges of a policy, each with its rail; None for those of answers."""
    yield from ((None, judge) for judge in policy.judges)
    for stage, rail in policy.rails.items():
        yield from ((stage, judge) for judge in rail.judges)


@cache
def shipped_patterns() -> dict[str, Pattern]:
    """Every pattern of a shipped policy, each expression once, by the first policy, its judge and its own name."""
    found: dict[str, Pattern] = {}
    seen: set[str] = set()
    for name in shipped_policies():
        for _, judge in judges_of(load_policy(name)):
            for pattern in judge.patterns if isinstance(judge, PatternsOptions) else ():
                if pattern.regex not in seen:
                    seen.add(pattern.regex)
                    found[f"{name}: {judge.name}, {pattern.name}"] = pattern
    return found


def secrets_of_patterns(count: int, seed: int = 1) -> Iterator[Secret]:
    """Texts of every shipped pattern."""
    for name, pattern in shipped_patterns().items():
        maker = rstr.Rstr(random.Random(seed))
        yield from _made(name, count, PatternScorer([pattern]), partial(_of_pattern, maker, pattern.regex))


def secrets_of_pii(count: int, seed: int = 1) -> Iterator[Secret]:
    """Personal data of every kind."""
    for kind in KINDS:
        yield from _made(kind, count, PiiScorer([kind]), partial(_PII[kind], random.Random(seed)))


KEYS = ("cloud-access-key", "git-host-token", "model-host-key")
"""Names of patterns of keys whose form their makers have published."""


def patterns_of_keys() -> list[Pattern]:
    """The shipped patterns of `KEYS`."""
    return [next(one for one in shipped_patterns().values() if one.name == name) for name in KEYS]


def anything_of(kind: str, count: int, seed: int = 2) -> list[str]:
    """Texts of a kind of personal data or of `KEYS`, as they are made, whether our judges find them or not."""
    chance = random.Random(seed)
    if kind in KEYS:
        (pattern,) = (one for one in patterns_of_keys() if one.name == kind)
        maker = rstr.Rstr(chance)
        return [_of_pattern(maker, pattern.regex) for _ in range(count)]
    return [_PII[kind](chance) for _ in range(count)]


def _made(kind: str, count: int, scorer: Scorer, make: Callable[[], str]) -> Iterator[Secret]:
    """Different texts that the judge finds from end to end, because what stands beside a match may go out."""
    made: set[str] = set()
    for _ in range(50 * count):
        text = make()
        if text in made or {(0, len(text))} != {(start, end) for start, end, _ in scorer.find(text)}:
            continue
        made.add(text)
        yield Secret(kind, text, scorer)
        if len(made) == count:
            return
    if not made:
        raise AssertionError(f"no text could be made that the judge of {kind} finds")


def _of_pattern(maker: rstr.Rstr, regex: str) -> str:
    """A text of an expression. Space that goes on and on is cut short, because that is one case of many."""
    return re.sub(r"(\s{1,2})\s*", r"\1", maker.xeger(regex))[:400]


def _digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choice("0123456789") for _ in range(count))


def _email(chance: random.Random) -> str:
    names = ("ada", "joe.doe", "m_rossi", "kim+news", "x.y.z", "office")
    hosts = ("example.com", "mail.example.org", "firm.co.uk", "uni-hall.de")
    return f"{chance.choice(names)}{chance.choice(('', '7', '2024'))}@{chance.choice(hosts)}"


def _phone(chance: random.Random) -> str:
    region = chance.choice(("US", "DE", "GB", "FR", "ES", "IT", "IN", "JP", "BR", "AU"))
    kind = chance.choice((PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE))
    number = example_number_for_type(region, kind)
    form = chance.choice((PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164))
    text = format_number(number, form)
    return text.replace(" ", "-") if chance.random() < 0.3 else text


def _card(chance: random.Random) -> str:
    body = chance.choice(("4", "51", "52", "55", "6011"))
    body += _digits(chance, 15 - len(body))
    number = body + luhn.calc_check_digit(body)
    separator = chance.choice(("", " ", "-"))
    return separator.join(number[at : at + 4] for at in range(0, 16, 4))


def _iban(chance: random.Random) -> str:
    country, length = chance.choice((("DE", 18), ("AT", 16), ("PL", 24), ("LT", 16)))
    body = _digits(chance, length)
    number = country + iban.calc_check_digits(f"{country}00{body}") + body
    return " ".join(number[at : at + 4] for at in range(0, len(number), 4)) if chance.random() < 0.5 else number


def _ssn(chance: random.Random) -> str:
    return f"{chance.randint(100, 665)}-{chance.randint(10, 99)}-{chance.randint(1000, 9999)}"


def _address(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return ".".join(str(chance.randint(11, 250)) for _ in range(4))
    return "2001:db8:" + ":".join(f"{chance.randint(4096, 65535):x}" for _ in range(6))


_PII: dict[str, Callable[[random.Random], str]] = {
    "email": _email,
    "phone": _phone,
    "credit_card": _card,
    "iban": _iban,
    "us_ssn": _ssn,
    "ip_address": _address,
}
