"""URLs as their readers take them: the host behind user names, encodings and numbers, and what a query carries."""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from stars_guard.parsing.word_lists import word_list

__all__ = ["Address", "carries_data", "is_local", "is_metadata", "is_private", "read_address", "urls_in"]

_URL = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]{1,20}:(?://|\\\\|/\\)|(?<![\w:/.])//(?=[\w\[@]))[^\s\"'<>`{}|^]+")
_SCHEMED = re.compile(
    r"(?:javascript|data|vbscript|file|jar|gopher|dict|ldap|mailto|view-source|blob):[^\s\"'<>`]+", re.IGNORECASE
)
_METADATA = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "metadata.azure.com", "metadata.packet.net"}
)
_LOCAL = word_list("addresses.local")
_ADDRESS_IN_NAME = re.compile(
    r"(?:^|[.-])(\d{1,3}[.-]\d{1,3}[.-]\d{1,3}[.-]\d{1,3})\.(?:nip\.io|sslip\.io|xip\.io|localtest\.me)$"
)
_LOOPBACK_NAMES = (".localtest.me", ".lvh.me", ".vcap.me", ".lacolhost.com", ".yoogle.com")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, taken apart.

    Attributes:
        scheme: in lower case.
        host: in lower case, in ASCII, without a dot at its end. An IP address is in its usual form.
        ip: the host's address where it is one, in whichever notation.
        user: whether a user name or a password stands before the host.
        path: decoded.
        values: the values of the query and the fragment, decoded, with their names.
    """

    scheme: str
    host: str = field(repr=False)
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None = field(default=None, repr=False)
    user: bool = False
    path: str = field(default="", repr=False)
    values: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def urls_in(text: str) -> list[str]:
    """The URLs in a text, and a text that is one."""
    found = [match.group().rstrip(".,;:!?)]") for match in (*_URL.finditer(text), *_SCHEMED.finditer(text))]
    return list(dict.fromkeys(found))


def read_address(url: str) -> Address | None:
    """Take a URL apart as browsers and programs do; None where nobody could say what its host is."""
    # they drop tabs and line ends, take a backslash for a slash, and read full-width characters as plain ones
    plain = re.sub(r"[\t\r\n\x00-\x1f\u200b-\u200f\u2060\ufeff]", "", unicodedata.normalize("NFKC", url.strip()))
    plain = plain.replace("\\", "/").replace("。", ".").replace("｡", ".")
    if plain.startswith("//"):
        plain = f"http:{plain}"
    plain = re.sub(r"^([a-zA-Z][\w+.-]*):/+", r"\1://", plain)
    try:
        parts = urlsplit(plain)
        host, user = parts.hostname or "", "@" in parts.netloc
        _ = parts.port
    except ValueError:
        return None
    host = unquote(host).rstrip(".").lower()
    if "%" in host or re.search(r"[\s/@#?\\]", host):
        return None
    ip = _ip(host)
    if ip is None and not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            return None
    fragment = parse_qsl(parts.fragment, keep_blank_values=True) or [("", parts.fragment)]
    try:
        query = parse_qsl(parts.query.replace(";", "&"), keep_blank_values=True) or [("", unquote(parts.query))]
    except ValueError:
        return None
    values = tuple((name, value) for name, value in (*query, *fragment) if name or value)
    return Address(parts.scheme.lower(), str(ip) if ip else host, ip, user, unquote(parts.path), values)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is, also in the numbers that C libraries read: decimal, octal, hexadecimal, short."""
    host = host.strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped or address.sixtofour or _in_nat64(address)
            return inner or address
        return address
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch(r"0[xX][0-9a-fA-F]*|\d+", part) for part in parts):
        return None
    try:
        numbers = [
            int(part, 16)
            if part[:2].lower() == "0x"
            else int(part, 8)
            if part[:1] == "0" and len(part) > 1
            else int(part)
            for part in (p if p.lower() != "0x" else "0" for p in parts)
        ]
    except ValueError:
        return None
    value = numbers[-1]
    if value >= 256 ** (5 - len(numbers)) or any(number > 255 for number in numbers[:-1]):
        return None
    for index, number in enumerate(numbers[:-1]):
        value += number << (24 - 8 * index)
    return ipaddress.IPv4Address(value)


def _in_nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    number = int(address)
    prefix = number >> 32
    nat64 = prefix == int(ipaddress.IPv6Address("64:ff9b::")) >> 32
    compatible = prefix == 0 and number > 0xFFFF
    return ipaddress.IPv4Address(number & 0xFFFFFFFF) if nat64 or compatible else None


def is_metadata(address: Address) -> bool:
    """Whether the host is where clouds keep what their machines may know."""
    ip = _inner_ip(address)
    return address.host in _METADATA or (ip is not None and (ip.is_link_local or str(ip) in _METADATA_IPS))


_METADATA_IPS = frozenset({"100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"})


def is_local(address: Address) -> bool:
    """Whether the host is this machine."""
    ip, host = _inner_ip(address), address.host
    if ip is not None:
        return ip.is_loopback or ip.is_unspecified
    return host in ("localtest.me", "lvh.me", "localhost") or host.endswith((".localhost", *_LOOPBACK_NAMES))


def _inner_ip(address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    embedded = _ADDRESS_IN_NAME.search(address.host)
    return _ip(embedded[1].replace("-", ".")) if embedded else address.ip


def is_private(address: Address) -> bool:
    """Whether the host is this machine, a network that the world can't reach, or where clouds keep their metadata."""
    ip, host = _inner_ip(address), address.host
    if ip is not None:
        return not ip.is_global or ip.is_multicast
    if (
        host in _METADATA
        or host == "localhost"
        or host.endswith((*_LOCAL, *_LOOPBACK_NAMES))
        or host in ("localtest.me", "lvh.me")
    ):
        return True
    return bool(host) and "." not in host


def carries_data(address: Address, *, longest: int, bits: float) -> bool:
    """Whether a value in the URL is long, or looks like data rather than words: in the query, the fragment, the path or
    the host.

    Args:
        longest: characters that a value may have.
        bits: the entropy that a value of 20 and more characters may have, in bits a character.
    """
    values = [value for _, value in address.values] + [name for name, value in address.values if not value]
    values += address.path.split("/")
    values += address.host.split(".")[:-2] if address.ip is None else []
    return any(len(value) > longest or (len(value) >= 20 and _looks_like_data(value, bits)) for value in values)


def _looks_like_data(value: str, bits: float) -> bool:
    for token in re.findall(r"[A-Za-z0-9+/=_]{20,}", value):
        digits, letters = sum(c.isdigit() for c in token), sum(c.isalpha() for c in token)
        mixed = digits >= 3 and letters >= 3
        cased = len(re.findall("[a-z][A-Z]|[A-Z][a-z]", token)) >= len(token) // 4
        if (mixed or cased) and entropy(token) > bits and not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f-]{36}", token):
            return True
    return False


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits a character."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
