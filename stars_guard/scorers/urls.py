"""URLs as a judge: the scheme, the host behind every notation, private addresses, and data that a URL carries out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from pydantic import Field

from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import CallLevel
from stars_guard.parsing.addresses import (
    Address,
    carries_data,
    is_disguised,
    is_local,
    is_metadata,
    is_private,
    is_url,
    names_private_host,
    readings_of,
    urls_in,
)
from stars_guard.parsing.call_arguments import Argument, arguments_of
from stars_guard.parsing.shell_arguments import like
from stars_guard.parsing.word_lists import word_list
from stars_guard.scorers._strictness import SCORES, looser
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["UrlScorer", "UrlsOptions"]

_HOST = re.compile(r"(?:[\\/]{2,})?[\w\[@%-][^\s]*$")
_HOSTS_ONLY = word_list("urls.hosts_only")


class UrlsOptions(JudgeOptions):
    """URLs in tool calls. 1: a scheme, host or address that is forbidden; 0.5: one that isn't listed, or data in it."""

    free: ClassVar[frozenset[str]] = frozenset(
        {"schemes", "allow", "deny", "local", "private", "longest_value", "entropy", "arguments", "tools"}
    )

    arguments: tuple[str, ...] = Field(("*",), min_length=1, strict=False, description="globs: name or tool.name")
    tools: tuple[str, ...] = Field(("*",), min_length=1, strict=False, description="globs of the tools that are judged")
    schemes: tuple[str, ...] = Field(
        ("http", "https"), min_length=1, strict=False, description="those that are allowed"
    )
    allow: tuple[str, ...] | None = Field(
        None, strict=False, description="globs of hosts; where given, every other one is asked about"
    )
    deny: tuple[str, ...] = Field((), strict=False, description="globs of hosts that are forbidden")
    local: CallLevel = Field("forbid", description="for this machine, in any notation")
    private: CallLevel = Field(
        "forbid",
        description="for private networks and names without a dot; metadata of clouds is forbidden unless allowed",
    )
    longest_value: int = Field(200, ge=1, description="characters of a value in a URL; longer ones are asked about")
    entropy: float = Field(4.2, gt=0, description="bits a character of a value of 20 and more; more is asked about")
    reject_above: float | None = Field(0.5, description="a score above this vetoes the call")

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        yield from looser(
            self,
            child,
            allowing=("schemes", "allow"),
            forbidding=("deny", "arguments", "tools"),
            levels=("local", "private"),
        )
        for field in ("longest_value", "entropy"):
            if getattr(child, field) > getattr(self, field):
                yield field, "more than the parent's"

    async def load(self) -> Scorer:
        return UrlScorer(self)


class UrlScorer(Scorer):
    """The worst of all URLs in a tool call. Texts that are no tool calls score 0."""

    cost = 0.1
    waits = False
    reads_calls = True

    def __init__(self, options: UrlsOptions) -> None:
        self._options = options
        said = options.model_dump(exclude={*JudgeOptions.model_fields})
        self.identity = {"kind": "urls", **{name: str(value) for name, value in said.items()}}

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage) for passage in passages]

    def _score(self, passage: Passage) -> Rating:
        worst = Rating(0.0)
        for argument in arguments_of(passage.tool_calls, self._options.tools):
            for url in self._urls_in(argument):
                for address in readings_of(url):
                    value, why = self._of(address)
                    if value > worst.value:
                        worst = Rating(value, why)
        return worst

    def _urls_in(self, argument: Argument) -> Sequence[str]:
        """The URLs that a call is about; an argument of another name counts where it is a URL as a whole."""
        text = argument.text.strip()
        if not argument.is_in(self._options.arguments):
            if is_url(text):
                return [text]
            return [f"http://{text}"] if names_private_host(text) else ()
        found = urls_in(argument.text)
        if not found and argument.is_in(_HOSTS_ONLY) and len(text) < 2000 and _HOST.match(text):
            return [text if "://" in text else f"http://{text.lstrip('/')}"]
        return [*found, *([f"http://{text}"] if not found and names_private_host(text) else ())]

    def _of(self, address: Address | None) -> tuple[float, str]:
        options = self._options
        if address is None:
            return 0.5, "a URL that cannot be read"
        if address.scheme not in options.schemes:
            return 1.0, "a scheme that is not allowed"
        if like(address.host, options.deny):
            return 1.0, "a host that is forbidden"
        named = options.allow is not None and like(address.host, [glob for glob in options.allow if "*" not in glob])
        if is_private(address) and not named:
            level = options.local if is_local(address) else options.private
            if is_metadata(address) and level != "allow":
                level = "forbid"
            if is_disguised(address) and level == "allow":
                level = "ask"
            if level != "allow":
                return SCORES[level], "a private address"
        if address.user:
            return 0.5, "a user name in a URL"
        if options.allow is not None and not like(address.host, options.allow):
            return 0.5, "a host that is not listed"
        if carries_data(address, longest=options.longest_value, bits=options.entropy):
            return 0.5, "data in a URL"
        return 0.0, ""
