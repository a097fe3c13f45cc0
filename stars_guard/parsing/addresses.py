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

__all__ = [
    "Address",
    "carries_data",
    "is_disguised",
    "is_local",
    "is_metadata",
    "is_private",
    "is_url",
    "names_private_host",
    "read_address",
    "readings_of",
    "urls_in",
]

_URL = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]{1,20}:(?://|\\\\|/\\)|(?<![\w:/.])//(?=[\w\[@]))[^\s\"'<>`{}|^]+")
_SCHEMED = re.compile(
    r"(?:javascript|data|vbscript|file|jar|gopher|dict|ldap|mailto|view-source|blob):[^\s\"'<>`]+", re.IGNORECASE
)
_METADATA = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "metadata.azure.com", "metadata.packet.net"}
)
_LOCAL = word_list("addresses.local")
_WILDCARDS = word_list("addresses.wildcards")
"""Domains whose every name leads to the address that is written in it, or to this machine."""

_IN_DECIMAL = re.compile(r"(?<![0-9a-z])(\d{1,3})([.-])(\d{1,3})\2(\d{1,3})\2(\d{1,3})(?![0-9a-z])")
_IN_HEX = re.compile(r"(?<![0-9a-z])(?:0x)?([0-9a-f]{8})(?![0-9a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
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


_WHOLE = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]{0,20}:)?[\\/]{2,}[^\s\"'<>`]+")
_USER = re.compile(r"[\\/]{2,}([^/]*?)([\\#?;])[^/@]*@([^/@\\#?;]+)")


def is_url(text: str) -> bool:
    """Whether a text as a whole is a URL: with a scheme, or a host behind two slashes."""
    text = text.strip()
    return bool(_SCHEMED.fullmatch(text)) or (bool(_WHOLE.fullmatch(text)) and (":" in text[:22] or "." in text))


def names_private_host(text: str) -> bool:
    """Whether a text as a whole is a private address without a scheme, and with a path or a port."""
    if not re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d+)?(?:/[^\s]*)?", text):
        return False
    host = text.partition("/")[0]
    if not re.match(r"(?:\d+\.){3}\d|0x[0-9a-fA-F]{8}|\d{9,10}(?:$|:)|\[|[a-zA-Z][\w-]*\.[\w.-]+", host):
        return False
    address = read_address(f"http://{text}")
    if address is None or (_inner_ip(address) is None and not is_metadata(address)):
        return False
    return is_metadata(address) or (is_private(address) and bool(re.search(r"[/:]|[a-z]", text)))


def readings_of(url: str) -> list[Address | None]:
    """A URL as all programs read it: where they don't agree where the host ends, there are several.

    ``http://a\\@b/`` leads to a for browsers, and to b for others.
    """
    found = [read_address(url)]
    if match := _USER.search(url):
        found.append(read_address(f"{url[: match.start()]}//{match[3]}{url[match.end() :]}"))
    return found


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
    if "%" in host or re.search(r"[\x00-\x20\x7f/@#?\\]", host):
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
    return Address(
        scheme=parts.scheme.lower(),
        host=str(ip) if ip else host,
        ip=ip,
        user=user,
        path=unquote(parts.path),
        values=values,
    )


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
    """Whether the host is this machine, and says so."""
    if address.ip is not None:
        return address.ip.is_loopback or address.ip.is_unspecified
    return address.host == "localhost" or address.host.endswith(".localhost")


def is_disguised(address: Address) -> bool:
    """Whether a private address is hidden behind a name that looks like one of the world's."""
    return address.ip is None and (_inner_ip(address) is not None or _is_wildcard(address.host))


def _inner_ip(address: Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host's address, or a private one that is written in its name, as services for tests resolve it."""
    if address.ip is not None:
        return address.ip
    found = [_ip(".".join(match.group(1, 3, 4, 5))) for match in _IN_DECIMAL.finditer(address.host)]
    if _is_wildcard(address.host):
        found += [_ip(str(int(match[1], 16))) for match in _IN_HEX.finditer(address.host)]
    return next((ip for ip in found if ip is not None and not ip.is_global), None)


def _is_wildcard(host: str) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in _WILDCARDS)


def is_private(address: Address) -> bool:
    """Whether the host is this machine, a network that the world can't reach, or where clouds keep their metadata."""
    ip, host = _inner_ip(address), address.host
    if ip is not None:
        return not ip.is_global or ip.is_multicast
    if host in _METADATA or host == "localhost" or host.endswith(_LOCAL) or _is_wildcard(host):
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
