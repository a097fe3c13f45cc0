"""How much of a text is kept in a record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import re2
from pydantic import BaseModel, ConfigDict

from stars_guard.audit.keys import ENCRYPTION_VARIABLE, audit_keys, cipher
from stars_guard.core.personal_data import (
    card_numbers,
    email_addresses,
    ibans,
    ip_addresses,
    social_security_numbers,
    spoken,
)
from stars_guard.core.readings import encodable, found
from stars_guard.core.times_and_places import without_times_and_places
from stars_guard.core.vocabulary import ContentMode
from stars_guard.errors import AuditError

__all__ = ["Content", "Text", "redact"]

_WINDOW = 256
"""Characters around a text that are looked at; what is replaced is shorter."""

_ROUNDS = 4
"""Of replacing: a mark may separate what was not seen apart before."""

# In order: where two overlap, the earlier rule names the mark. RE2's \d and \b know ASCII only.
_RULES = tuple(
    (mark, re2.compile(regex))
    for mark, regex in (
        ("[KEY]", r"\b(?:(?:sk|pk|rk|ghp|gho|ghs|ghu|glpat|hf|xox[abpors])[-_]|github_pat_|AKIA|ASIA|AIza)[\w-]{12,}"),
        ("[KEY]", r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
        ("[EMAIL]", r"[\pL\pN._%+'-]+@[\pL\pN-]+(?:\.[\pL\pN-]+)+"),
        ("[EMAIL]", r"([\pL\pN._%+'-]+@(?:[\pL\pN.-]*[\pL\pN-])?)\.?$"),  # cut off by the end of a segment
        ("[IP]", r"\b(?:\d{1,3}\.){3}\d{1,3}\b"),
        ("[IP]", r"\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"),
        ("[IP]", r"\b(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}\b"),
        ("[CARD]", r"\b\d(?:[ -]?\d){12,18}\b"),
        ("[PHONE]", r"(?:\+|\(|\b)\d[\d ()./-]{6,}\d\b"),
        ("[PHONE]", r"\d(?:[ \t()./_·-]{0,4}\d){8,}"),
    )
)


def _any_number(_: str) -> bool:
    # a number that is mistyped is as personal, and the libraries that know better may not be installed
    return True


_FINDERS: tuple[tuple[str, Callable[[str], Iterable[tuple[int, int]]]], ...] = (
    ("[EMAIL]", email_addresses),
    ("[IP]", ip_addresses),
    ("[CARD]", lambda text: card_numbers(text, _any_number)),
    ("[IBAN]", lambda text: ibans(text, _any_number)),
    ("[SSN]", lambda text: social_security_numbers(text, _any_number)),
    ("[PHONE]", lambda text: ((start, end) for start, end, _ in spoken(text))),
)
_ORDER = ("[KEY]", "[EMAIL]", "[IP]", "[IBAN]", "[CARD]", "[SSN]", "[PHONE]")
_MARKS = frozenset(_ORDER)
_NUMBERS = frozenset({"[IP]", "[CARD]", "[IBAN]", "[PHONE]"})
"""The marks of what takes any number of some length, so that a date would be one too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """How much text records hold, for each kind of text. The answer is accepted text.

    Args:
        encrypt: whether the text that is kept is encrypted.

    Raises:
        AuditError: text is to be encrypted, but there is no key for it.
    """

    prompt: ContentMode = "full"
    accepted: ContentMode = "full"
    rejected: ContentMode = "full"
    encrypt: bool = False

    def __post_init__(self) -> None:
        if self.encrypt and cipher() is None:
            raise AuditError(
                "the policy encrypts the audit log's texts, but there is no key", hint=f"set {ENCRYPTION_VARIABLE}"
            )

    @classmethod
    def of(cls, mode: ContentMode) -> Content:
        """One mode for every kind."""
        return cls(prompt=mode, accepted=mode, rejected=mode)

    def keep(self, text: str, mode: ContentMode, *, before: str = "", after: str = "") -> Text:
        """As `Text.of`, encrypted where texts are to be."""
        kept = Text.of(text, mode, before=before, after=after)
        return kept.encrypt() if self.encrypt else kept


class Text(BaseModel):
    """A text as far as the policy's content mode lets it be kept.

    Attributes:
        content: the text, whole or redacted; None in the modes ``hash`` and ``none``.
        sha256: hex digest of its UTF-8 bytes in mode ``hash``; HMAC-SHA-256 where STARS_GUARD_AUDIT_KEY is set, since
            without a key short texts can be guessed.
        encrypted: what would be ``content``, as a Fernet token, where texts are encrypted.
        chars: its true length in characters, in every mode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str | None = None
    encrypted: str | None = None
    sha256: str | None = None
    chars: int

    @property
    def text(self) -> str | None:
        """What is kept, decrypted; None where nothing is, or the key to it is not in the environment."""
        if self.encrypted is None:
            return self.content
        fernet = cipher()
        if fernet is None:
            return None
        from cryptography.fernet import InvalidToken

        try:
            return fernet.decrypt(self.encrypted).decode()
        except InvalidToken:
            return None

    def encrypt(self) -> Text:
        """With an encrypted copy in the place of what is kept."""
        fernet = cipher()
        if self.content is None or fernet is None:
            return self
        return self.model_copy(update={"content": None, "encrypted": fernet.encrypt(self.content.encode()).decode()})

    @property
    def whole(self) -> bool:
        """Whether it is the text as it was: redaction shows in the length, or where a mark is as long, in the mark."""
        text = self.text
        return text is not None and len(text) == self.chars and not any(mark in text for mark in _MARKS)

    @classmethod
    def of(cls, text: str, mode: ContentMode, *, before: str = "", after: str = "") -> Text:
        """Keep ``text`` under a mode.

        Args:
            before: what comes before it, so that an address that two segments share is found in both.
            after: what comes after it.
        """
        chars = len(text)
        match mode:
            case "full":
                return cls(content=encodable(text), chars=chars)
            case "redacted":
                return cls(content=redact(text, before=before, after=after), chars=chars)
            case "hash":
                data = encodable(text).encode()
                keys = audit_keys()
                digest = keys[0].digest(data) if keys else hashlib.sha256(data).hexdigest()
                return cls(sha256=digest, chars=chars)
            case "none":
                return cls(chars=chars)


def redact(text: str, *, before: str = "", after: str = "") -> str:
    """Replace e-mail addresses, phone, card, account and social security numbers, IP addresses and API keys by marks.

    The marks are [EMAIL], [PHONE] and so on. What has the usual form is found, in the text as it is and in its readings
    (`stars_guard.core.readings`), in time linear in the text. Names and postal addresses are not known.
    """
    text = encodable(text)
    head = encodable(before[-_WINDOW:])
    tail = encodable(after[:_WINDOW])
    for _ in range(_ROUNDS):
        clean = _marked(head + text + tail, len(head), len(head) + len(text))
        if clean == text:
            break
        text = clean
    return text


def _marked(window: str, low: int, high: int) -> str:
    """The part of a window from ``low`` to ``high``, with marks."""
    finds = found(window, _finds)
    if not finds:
        return window[low:high]
    owner = bytearray(len(window))
    for number, mark in enumerate(_ORDER, start=1):
        for start, end, name in finds:
            if name == mark:
                owner[start:end] = owner[start:end].replace(b"\0", bytes((number,)))
    pieces: list[str] = []
    at = low
    while at < high:
        end = at + 1
        while end < high and owner[end] == owner[at]:
            end += 1
        pieces.append(_mark_of(window[at:end], owner[at]))
        at = end
    return "".join(pieces)


def _mark_of(text: str, number: int) -> str:
    """The mark in the place of a text, with the spaces around it. What holds no letter or digit tells nothing."""
    bare = text.strip()
    if not number or not any(map(str.isalnum, bare)):
        return text
    start = text.index(bare)
    return f"{text[:start]}{_ORDER[number - 1]}{text[start + len(bare) :]}"


def _finds(text: str, start: int) -> Iterator[tuple[int, int, str]]:
    plain = without_times_and_places(text)
    for mark, pattern in _RULES:
        for match in pattern.finditer(plain if mark in _NUMBERS else text, start):
            yield *match.span(pattern.groups), mark
    for mark, finder in _FINDERS:
        for begin, end in finder(plain if mark in _NUMBERS else text):
            yield begin, end, mark
