"""Paths as whoever opens them reads them: decoded, put together and normalised, and compared with roots."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from stars_guard.core.readings import readings
from stars_guard.parsing.shell_words import UNKNOWN

__all__ = ["Roots", "looks_like_path", "path_parts", "path_tokens", "whole_paths"]

_HIDDEN = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SLASHES = str.maketrans(
    dict.fromkeys("\u2044\u2215\u29f8\uff0f\u2571\u27cb", "/")
    | dict.fromkeys("\uff3c\u2216\u29f5\u29f9", "\\")
    | {"\u2024": ".", "\uff0e": ".", "\u2025": "..", "\u2026": "..."}
)
_DRIVE = re.compile(r"(?:[\\/]{2}[?.][\\/])?[A-Za-z]:(?:[\\/]|$)")
_HOME = re.compile(
    r"~[\w.-]*(?:[/\\]|$)|\$\{?(?:HOME|USERPROFILE|OLDPWD|APPDATA)\b|%(?:USERPROFILE|HOMEPATH|HOMEDRIVE|APPDATA|SYSTEMROOT|WINDIR|PROGRAMFILES|TEMP)\b",
    re.IGNORECASE,
)
_FILE = re.compile(r"(?:file|jar|zip|view-source:file):(?://[^/\\]*(?=[/\\]))?", re.IGNORECASE)
_URL = re.compile(r"[a-zA-Z][\w+.-]*://[^/\\]")
_SCHEME = re.compile(r"[a-zA-Z][\w+.-]*:(?=/|\.\./|~)")
"""Of a URI without a host, which is a path for those who take the rest."""


class Roots:
    """Folders inside which paths are fine.

    Args:
        roots: absolute paths.
        base: where relative paths are counted from; empty for the first root.
    """

    def __init__(self, roots: Sequence[str], base: str = "") -> None:
        plain = [_normal(root) for root in roots]
        # a root whose name has look-alikes or full-width letters is inside of itself in every reading
        self._roots = (*plain, *(_normal(reading.text) for root in plain for reading in readings(root, markup=False)))
        self.first = base or (plain[0] if plain else "/")

    def hold(self, path: str, folder: str = "") -> bool:
        """Whether a path is inside, in every way in which somebody may read it.

        Args:
            folder: where a relative path is counted from, itself counted from the first root.
        """
        return all(self._holds(form, folder) for form in _forms(path))

    def _holds(self, path: str, folder: str) -> bool:
        if _HOME.match(path) or _DRIVE.match(path) or path.startswith(("\\\\", UNKNOWN + "/..")):
            return any(path.replace("\\", "/").startswith(f"{root}/") for root in self._roots if _DRIVE.match(root))
        if folder and not path.startswith("/") and (_HOME.match(folder) or _DRIVE.match(folder) or UNKNOWN in folder):
            return False
        whole = _normal(posixpath.join(self.first, folder, path))
        return any(root == "/" or whole == root or whole.startswith(f"{root}/") for root in self._roots)


def _normal(path: str) -> str:
    path = posixpath.normpath(path)
    return f"/{path.lstrip('/')}" if path.startswith("/") else path


def _forms(path: str) -> Iterator[str]:
    """The path as it is written and as others would read it."""
    seen: set[str] = set()
    waiting = [path.strip()] if path.strip() else []
    while waiting and len(seen) < 32:
        form = waiting.pop()
        if form in seen:
            continue
        seen.add(form)
        yield _plain(form)
        before, nul, _ = form.partition("\0")
        others = [
            unquote(form) if "%" in form else form,
            re.sub(r"%u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), form),
            re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda match: chr(int(match[1] or match[2], 16)), form),
            _HIDDEN.sub("", form),
            form.translate(_SLASHES),
            unicodedata.normalize("NFKC", form) if not form.isascii() else form,
            form.replace("\\", "/"),
            re.sub(r"(\.\.);[^/]*", r"\1", form),
            re.sub(r"\.{4,}(//|/)", "../", form).replace("..//", "../") if "...." in form else form,
            before if nul else form,
            form.replace("\0", ""),
            _FILE.sub("", form, count=1) if _FILE.match(form) else form,
            _SCHEME.sub("", form, count=1) if _SCHEME.match(form) else form,
            form.lstrip("@<({["),
            form.strip("\"'` \t\r\n"),
        ]
        waiting += [other for other in others if other and other not in seen]


def _plain(path: str) -> str:
    match = _FILE.match(path)
    return path[match.end() :] if match else path


def looks_like_path(text: str) -> bool:
    """Whether a text, if it is a path, is one that could lead out: absolute, in a home, or up out of a folder."""
    if _FILE.match(text):
        return True
    if _URL.match(text):
        return False
    return any(
        form.startswith(("/", "\\\\"))
        or bool(_HOME.match(form) or _DRIVE.match(form))
        or ".." in re.split(r"[/\\]", form)
        for form in _forms(text)
    )


_OF_A_SYSTEM = re.compile(
    r"/{1,3}(?:bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|usr|var|Users|tmp|data|private|System)"
    r"(?:/[^\s]*)?"
)


def whole_paths(text: str, *, prose: bool = False) -> Iterator[str]:
    """A text that is a path as a whole, though its name says that it is a text or an address.

    Args:
        prose: whether people write there, so that only a folder of the system or a home counts.
    """
    text = text.strip()
    if not text or len(text) > 1000 or re.search(r"\s", text) or (_URL.match(text) and not _FILE.match(text)):
        return
    forms = [*_forms(text)]
    plain = any(_OF_A_SYSTEM.fullmatch(form) or _HOME.match(form) or _DRIVE.match(form) for form in forms)
    up = not prose and any(".." in re.split(r"[/\\]", form) for form in forms)
    if plain or up or _FILE.match(text):
        yield text


_BETWEEN = re.compile(r"[;,|&\"'`\n\r\t]+|\s(?=[/~]\w)")


def path_parts(text: str) -> Iterator[str]:
    """The paths in a text that is called one: those of a list, and one without the marks that some tools take off."""
    for part in _BETWEEN.split(text):
        if bare := part.strip().lstrip("@<({[!+#-= "):
            yield bare
            yield from (value for _, equals, value in [bare.partition("=")] if equals and value)


_TOKEN = re.compile(r"""[^\s"'`<>|;&(),!\[\]{}=]+""")
_LEAD = re.compile(r"(?:[\w.-]{1,20}:(?=/(?!/)))|-{1,2}[\w-]{1,20}?(?=/)|@")


def path_tokens(text: str) -> Iterator[str]:
    """The tokens of a text that look like paths which could lead out, without a name or an option before them."""
    if looks_like_path(text) and len(text) < 500 and not re.search(r"\s/\s", text) and " " not in text.strip():
        yield text.strip()
    for match in _TOKEN.finditer(_HIDDEN.sub("", text)):
        token = match.group()
        if _URL.match(token) and not _FILE.match(token):
            continue
        lead = _LEAD.match(token)
        token = token[lead.end() :] if lead else token
        if token.strip("/\\.*") and looks_like_path(token):
            yield token
