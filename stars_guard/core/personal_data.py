"""Where personal data is in a text, by kind: found by shape, then checked by a function that knows the numbers.

The texts are taken as `stars_guard.core.readings` gives them: full-width digits are digits, and every dash is ``-``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import re2

__all__ = [
    "EMAIL_SHAPES",
    "SPOKEN_PARTS",
    "card_numbers",
    "email_addresses",
    "ibans",
    "ip_addresses",
    "social_security_numbers",
    "spoken",
]

Span = tuple[int, int]

# --- e-mail addresses

_LOCAL = r"""(?:"[^"\n@]{1,64}"|[\pL\pN_%+][\pL\pN\pM._%+'-]*)"""
_LABEL = r"[\pL\pN][\pL\pN\pM-]*"
_TOP = r"(?:\pL[\pL\pM]+|xn--[a-z0-9-]+)"
_KNOWN_TOP = (
    "(?:com|org|net|edu|gov|mil|info|biz|io|co|ai|app|dev|me|tv|eu|us|uk|de|fr|es|it|nl|ch|at|be|pl|ru|jp|cn|in|br|ca|au"
    "|nz|se|no|dk|fi|pt|cz|gr|ie|mx|ar|za|kr|tr|ua|il|hu|ro|sk|lu|sg|hk|tw)"
)
_AT = r"(?:\s{0,2}[\[({<]\s?(?:at|@|arroba|ät|chez)\s?[\])}>]\s{0,2}|%40|&#0{0,5}64;|&#x0{0,5}40;|&commat;)"
_DOT = r"(?:\s{0,2}[\[({<]\s?(?:dot|\.|punkt|punto|point)\s?[\])}>]\s{0,2})"
_SAID_AT = r"\s{1,2}(?:at|arroba|ät)\s{1,2}"
_SAID_DOT = r"\s{1,2}(?:dot|punkt|punto|point)\s{1,2}"
_ANY_DOT = rf"(?:{_DOT}|{_SAID_DOT}|\.)"
_NAME = rf"{_LOCAL}(?:(?:{_DOT}|{_SAID_DOT}){_LOCAL})*"
EMAIL_SHAPES = tuple(
    f"(?i){shape}"
    for shape in (
        rf"{_LOCAL} ?@ ?{_LABEL}(?:\.{_LABEL})*\.{_TOP}\b",
        rf"{_LOCAL} ?@ ?{_LABEL}(?:\.{_LABEL})*\.{_TOP}",
        rf"{_LOCAL} @ {_LABEL}(?: \. {_LABEL})* \. {_KNOWN_TOP}\b",
        rf"{_NAME}{_AT}{_LABEL}(?:{_ANY_DOT}{_LABEL})*{_ANY_DOT}{_TOP}",
        rf"{_NAME}(?-i: AT ){_LABEL}(?:\.{_LABEL})*\.{_KNOWN_TOP}\b",
        rf"{_NAME}(?:@|{_AT}|{_SAID_AT}){_LABEL}(?:{_ANY_DOT}{_LABEL})*{_DOT}{_TOP}",
        rf"{_NAME}(?:@|{_AT}|{_SAID_AT}){_LABEL}(?:{_ANY_DOT}{_LABEL})*{_SAID_DOT}{_KNOWN_TOP}\b",
    )
)
"""Regular expressions, in RE2 syntax, of which every address matches one."""

_EMAILS = tuple(map(re2.compile, EMAIL_SHAPES))
_MAY_HOLD_EMAIL = re2.compile(r"(?i)@|%40|&#|&commat|\b(?:at|arroba|ät)\b|[\[({<]\s?(?:at|chez)")
_FILES = re.compile(
    "png|jpg|jpeg|gif|svg|webp|avif|ico|css|js|mjs|ts|tsx|jsx|py|rb|go|rs|java|kt|c|h|cpp|so"
    "|dll|exe|zip|tgz|gz|tar|whl|md|txt|json|yaml|yml|toml|xml|html|lock|log"
)


def email_addresses(text: str) -> Iterator[Span]:
    """Addresses as they are, and as people write them for people: ``joe [at] corp dot com``."""
    if not _MAY_HOLD_EMAIL.search(text):
        return
    for shape in _EMAILS:
        for match in shape.finditer(text):
            if _is_address(text, *match.span()):
                yield match.span()


_SMALL_WORDS = re.compile(
    "(?i)the|this|that|these|a|an|my|your|our|his|her|its|their|it|and|or|to|of|in|on|for|is|are|was|were|be"
)


def _is_address(text: str, start: int, end: int) -> bool:
    local, at, domain = text[start:end].rpartition("@")
    if not at:
        words = re.findall(r"\w+", text[start:end])
        return not any(map(_SMALL_WORDS.fullmatch, words[:-1]))
    domain = domain.strip()
    top = domain.rpartition(".")[2].lower()
    # a picture for twice as many pixels, a version of a package, a repository
    if _FILES.fullmatch(top) and (
        domain[:1].isdigit() or (domain.count(".") == 1 and top not in {"py", "rs", "md", "so", "zip"})
    ):
        return False
    if re.match(r"v?\d+\.\d", domain):
        return False
    return not (local.strip() == "git" and text[end : end + 1] in {":", "/"})


# --- numbers in groups

_DIGIT = re.compile("[0-9]")
_TWO_DIGITS = re.compile("[0-9][0-9]")

_GROUP = re.compile(r"\d+")
_BETWEEN = re.compile(r"[ \t\r\n.,\-_/|:;·()\[\]]{1,4}")
_BRANDS = (
    # first digits, lengths
    (re.compile("4"), {13, 16, 19}),
    (re.compile("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),
    (re.compile("3[47]"), {15}),
    (re.compile("6011|65|64[4-9]|62|81"), {16, 17, 18, 19}),
    (re.compile("35(?:2[89]|[3-8])"), {16, 17, 18, 19}),
    (re.compile("3(?:0[0-59]|[689])"), {14, 15, 16, 17, 18, 19}),
    (re.compile("50|5[6-9]|6[0-9]"), {16, 18, 19}),
    (re.compile("220[0-4]"), {16, 17, 18, 19}),
)


def card_numbers(text: str, is_valid: Callable[[str], bool]) -> Iterator[Span]:
    """Numbers of payment cards in any grouping, beside any other number. They have the lengths of their brand."""
    if not _DIGIT.search(text):
        return
    for groups in _rows(text):
        digits = [match.group() for match in groups]
        single = len(groups) > 4 and all(len(group) == 1 for group in digits)
        taken = 0
        for first in range(len(groups)):
            if first < taken:
                continue
            number = ""
            best = 0
            for last in range(first, len(groups)):
                number += digits[last]
                if len(number) > 19:
                    break
                if single and not _stands_alone(text, groups, first, last):
                    continue
                if len(number) >= 13 and _is_card(number, is_valid) and _are_groups(text, groups[first : last + 1]):
                    best = last + 1
            if best:
                taken = best
                yield groups[first].start(), groups[best - 1].end()


def _stands_alone(text: str, groups: list[re.Match[str]], first: int, last: int) -> bool:
    """Whether a part of a row of single digits is one number: something else is between it and the rest."""
    within = _signs(text, groups[first], groups[first + 1]) if last > first else None
    before = _signs(text, groups[first - 1], groups[first]) if first else None
    after = _signs(text, groups[last], groups[last + 1]) if last + 1 < len(groups) else None
    return within not in (before, after)


def _signs(text: str, one: re.Match[str], other: re.Match[str]) -> str:
    return text[one.end() : other.start()].strip(" \t\r")


def _rows(text: str) -> Iterator[list[re.Match[str]]]:
    """Groups of digits with little between them."""
    row: list[re.Match[str]] = []
    for match in _GROUP.finditer(text):
        if row and not _BETWEEN.fullmatch(text, row[-1].end(), match.start()):
            yield row
            row = []
        row.append(match)
    if row:
        yield row


def _is_card(number: str, is_valid: Callable[[str], bool]) -> bool:
    brand = any(len(number) in lengths and first.match(number) for first, lengths in _BRANDS)
    return brand and len(set(number)) > 1 and is_valid(number)


def _are_groups(text: str, groups: list[re.Match[str]]) -> bool:
    """Whether it is one number and not several: the same is between all groups."""
    start, end = groups[0].start(), groups[-1].end()
    # in the midst of a word, such as a digest
    if text[max(0, start - 1) : start].isalpha() and text[end : end + 1].isalpha():
        return False
    between = {_signs(text, a, b) for a, b in pairwise(groups)}
    lengths = [len(group.group()) for group in groups]
    fraction = between == {"."} and len(groups) == 2
    return len(between) < 2 and not fraction and (len(groups) < 6 or len({*lengths}) == 1)


_SSN = re.compile(r"(?<!\d)(?<!\d[-./])(\d{3})( ?[-./·_] ?|[ \n])(\d{2})\2(\d{4})(?!\d)(?![-./]\d)")
_BARE_SSN = re.compile(r"(?<![\d.,-])\d{9}(?![\d-])(?!\.\d)")
_ABOUT_SSN = re.compile(
    r"(?i)(?:\bssn\b|\bs\.s\.n|social[ -]?sec|\bsoc\b|tax(?:payer)?[ -]?id|\bitin\b|\btin\b)[^\d\n]{0,24}$"
)


def social_security_numbers(text: str, is_valid: Callable[[str], bool]) -> Iterator[Span]:
    """Written in three parts, or in one where the text says what it is."""
    if not _TWO_DIGITS.search(text):
        return
    for match in _SSN.finditer(text):
        if is_valid("".join(match.group(1, 3, 4))):
            yield match.span()
    for match in _BARE_SSN.finditer(text):
        if _ABOUT_SSN.search(text[max(0, match.start() - 48) : match.start()]) and is_valid(match.group()):
            yield match.span()


# --- accounts

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ \-.]?\d{2}(?=[A-Za-z0-9 \-.\n\t_/])")
_IBAN_PART = re.compile(r"(?:[ \-.\n\t_/]{0,2}[A-Za-z0-9]){11,32}")


def ibans(text: str, is_valid: Callable[[str], bool]) -> Iterator[Span]:
    """Account numbers, in any case and grouping. What comes after one does not hide it."""
    if not _TWO_DIGITS.search(text):
        return
    for match in _IBAN.finditer(text):
        rest = _IBAN_PART.match(text, match.end())
        if rest is None:
            continue
        number = "".join(filter(str.isalnum, match.group())).upper()
        for place in range(match.end(), rest.end()):
            if not text[place].isalnum():
                continue
            number += text[place].upper()
            if len(number) >= 15 and _leaves_one(number) and is_valid(number):
                after = text[place + 1 : place + 2]
                if not (after.isascii() and after.isdigit()):
                    yield match.start(), place + 1
                    break


def _leaves_one(number: str) -> bool:
    """The check of ISO 7064, which is cheaper than all of the library's."""
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


# --- addresses of computers

_POINT = r"(?:\.|\s?[\[({]\s?(?:\.|dot)\s?[\])}]\s?|\s+dot\s+)"
_IP4 = re.compile(
    rf"(?i)(?<![A-Za-z0-9_.])(\d{{1,3}}){_POINT}(\d{{1,3}}){_POINT}(\d{{1,3}}){_POINT}(\d{{1,3}})(?!\d)(?!\.\d)(?!-[A-Za-z])"
)
_IP6 = re.compile(
    r"(?:(?<![A-Za-z0-9_:.])|(?<=[A-Za-z][g-zG-Z]:))(?:[0-9A-Fa-f]{1,4}(?=:)|(?=::))[0-9A-Fa-f:]{2,39}"
    r"(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?:%\w{1,16})?(?![A-Za-z0-9_:])"
)
_HEX_IP = re.compile(r"(?i)(?<![A-Za-z0-9_])0x([0-9a-f]{8})(?![A-Za-z0-9_])")
_NUMBER_IP = re.compile(r"(?i)(?<![A-Za-z0-9_])(?:https?|ftp)://(\d{8,10})(?![A-Za-z0-9_.])")
_VERSION = re.compile(
    r"(?i)(?:\bv|\bver\.?|\bversion|\brelease|\bbuild|\brev|\bchapter|\bsection|\bsec\.|\bclause|\brule|\bfigure"
    r"|\b(?:python|java|node|ruby|php|kernel|firmware|driver)|==|>=|<=|~=|\^|[A-Za-z]/|\w@|\w-)\s?:?\s?$"
)
_ABOUT_IP = re.compile(r"(?i)(?:\bip\b|\bhost\b|\baddr|://|\bping\b|\bserver\b)[^\n]{0,16}$")
_PRIVATE = tuple(ipaddress.ip_network(net) for net in ("192.168.0.0/16", "172.16.0.0/12"))


def ip_addresses(text: str) -> Iterator[Span]:
    """Addresses that tell one computer from others: not a loopback in version 4, a mask, or a part of a program."""
    if not _DIGIT.search(text):
        return
    for match in _IP4.finditer(text):
        address = _ip(".".join(str(int(part)) for part in match.groups()))
        version = _VERSION.search(text[max(0, match.start() - 12) : match.start()])
        if isinstance(address, ipaddress.IPv4Address) and not _is_nobody(address) and not version:
            yield match.span()
    if text.count(":") > 1:
        for match in _IP6.finditer(text):
            shown = match.group().partition("%")[0]
            address = _ip(shown if shown.endswith("::") else shown.rstrip(":"))
            if isinstance(address, ipaddress.IPv6Address) and _is_given(text, match, address):
                yield match.span()
    for match in _HEX_IP.finditer(text) if "0x" in text or "0X" in text else ():
        v4 = ipaddress.IPv4Address(int(match.group(1), 16))
        about = _ABOUT_IP.search(text[max(0, match.start() - 24) : match.start()])
        if any(v4 in net for net in _PRIVATE) or (about and not _is_nobody(v4)):
            yield match.span()
    for match in _NUMBER_IP.finditer(text) if "://" in text else ():
        if int(match.group(1)) < 2**32:
            yield match.span(1)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_nobody(address: ipaddress.IPv4Address) -> bool:
    return address.is_loopback or int(address) >> 24 in (0, 255)


def _is_given(text: str, match: re.Match[str], address: ipaddress.IPv6Address) -> bool:
    """Whether it is given as an address: program text has slices and names with colons too."""
    if address.ipv4_mapped is not None:
        return not _is_nobody(address.ipv4_mapped)
    shown = match.group()
    if shown.startswith("::"):
        before, after = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 1]
        a_slice = before.endswith("[") and (before[:1].isalnum() or before[:1] in {")", "]", "_"}) and after == "]"
        return (address.is_loopback and not a_slice) or (shown.count(":") > 2 and any(map(str.isdigit, shown)))
    if not int(address) % 2**64:
        return False  # a network
    first = int(shown.partition(":")[0], 16)
    known = 0x2000 <= first < 0x4000 or 0xFC00 <= first < 0xFE00 or first >= 0xFE80 or first == 0x64
    return known and any(map(str.isdigit, shown))


# --- digits as words

_DIGITS = {
    w: str(i)
    for i, words in enumerate(("zero oh o", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))
    for w in words.split()
}
SPOKEN_PARTS = frozenset({*_DIGITS, "double", "triple"})
"""All words of which a number may be made."""

_WORD = rf"(?:(?:double|triple)[\s-]{{1,2}}(?:{'|'.join(_DIGITS)}|\d)|{'|'.join(_DIGITS)}|\d+)"
_SPOKEN = re2.compile(rf"(?i)\b{_WORD}(?:[\s,.\-]{{1,3}}{_WORD}){{2,}}\b")
_UNIT = re.compile(rf"(?i)(?:(double|triple)[\s-]{{1,2}})?((?:{'|'.join(_DIGITS)})\b|\d+)")
_MAY_BE_SPOKEN = re2.compile(r"(?i)\b(?:two|three|four|five|six|seven|eight|nine)\b")


def spoken(text: str) -> Iterator[tuple[int, int, str]]:
    """Rows of at least seven digits of which some are words, and the same in digits."""
    if not _MAY_BE_SPOKEN.search(text):
        return
    for match in _SPOKEN.finditer(text):
        parts: list[str] = []
        words = 0
        joined = False
        for unit in _UNIT.finditer(match.group()):
            times = {"double": 2, "triple": 3}.get((unit.group(1) or "").lower(), 1)
            said = unit.group(2).lower()
            digits = _DIGITS.get(said, said) * times
            words += said in _DIGITS
            if parts and joined and said in _DIGITS:
                parts[-1] += digits
            else:
                parts.append(digits)
            joined = said in _DIGITS
        if words and sum(map(len, parts)) >= 7:
            yield *match.span(), " ".join(parts)
