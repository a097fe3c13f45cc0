"""What a text holds that its reader doesn't see, or takes for the end of a message, as a judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

from pydantic import Field

from stars_guard.core.readings import found
from stars_guard.core.segments import Passage
from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.options import JudgeOptions

__all__ = ["HIDDEN_KINDS", "HiddenTextOptions", "HiddenTextScorer"]

HiddenKind = Literal["control_tokens", "invisible", "comments", "hidden_elements"]
HIDDEN_KINDS: tuple[HiddenKind, ...] = get_args(HiddenKind)

# as chat templates of open models write them
_CONTROL = re.compile(
    r"<\|[^\s<>|]{1,40}\|>|<｜[^\s<>｜]{1,60}｜>|\[\|[a-z_]{2,20}\|\]|<</?SYS>>|\[/?INST\]|\[gMASK\]|<sop>"
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|SYSTEM_PROMPT|THINK|ARGS|CALL_ID)\]"
    r"|</?(?:tool_(?:response|call|result|output)s?|function_(?:call|result|response)s?|(?:start|end)_of_(?:turn|image)"
    r"|begin_of_text|end_of_text|think|bos|eos|pad|unk|extra_id_\d{1,3}|seed:\w{1,20})>",
    re.IGNORECASE,
)
_SEQUENCE_END = re.compile(r"<s>[^<\n]{0,500}</s>|</?s>")

_TAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f|[\U000e0000-\U000e007f]+")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_NOTHING = "\u200b-\u200d\u2060-\u2064\u206a-\u206f\ufeff\u180e\u115f\u1160\u3164\uffa0\ufff9-\ufffb"
_WIDTHLESS = re.compile(rf"(?<=[A-Za-z0-9_])[{_NOTHING}](?=[A-Za-z0-9_])|[{_NOTHING}\xad]{{2,}}")
_TURNED = re.compile("[\u202d\u202e]")
_DIRECTIONS = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]+")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")

_TAG = re.compile(r"<([a-zA-Z][\w:-]{0,40})((?:\s[^<>]{0,2000})?)>")
_UNSEEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])|opacity\s*:\s*0(?![.\d]*[1-9])"
    r"|\shidden(?:[\s=/]|$)|aria-hidden\s*=\s*[\"']?true|type\s*=\s*[\"']?hidden",
    re.IGNORECASE,
)
_MARKDOWN_COMMENT = re.compile(r"^\[//\]: ?# ?(?:\(.*\)|\".*\"|'.*')[ \t]*$", re.MULTILINE)


class HiddenTextOptions(JudgeOptions):
    """Control tokens of chat templates and text that people don't see; what is found scores 1 and, by default, vetoes.

    With ``action: redact`` it is taken out of a tool's result and all else stays as it is.
    """

    kinds: tuple[HiddenKind, ...] = Field(
        ("control_tokens", "invisible"),
        min_length=1,
        strict=False,
        description="control_tokens: such as <|im_start|>; invisible: characters without width, tags, turned text; "
        "comments: of HTML and Markdown; hidden_elements: of HTML, which its style hides",
    )
    reject_above: float | None = Field(0.0, description="a score above this vetoes the segment")

    async def load(self) -> Scorer:
        return HiddenTextScorer(self.kinds)


class HiddenTextScorer(Scorer):
    """1.0 where a text holds something hidden, else 0.0; the detail is what kinds.

    Characters that emoji, flags, and text in Arabic, Hebrew, Persian or Hindi need are not hidden text.

    Args:
        kinds: some of `HIDDEN_KINDS`.
    """

    cost = 0.05
    waits = False

    def __init__(self, kinds: Sequence[HiddenKind] = HIDDEN_KINDS) -> None:
        self.identity = {"kind": "hidden_text", "kinds": ", ".join(kinds)}
        self._kinds = kinds

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._score(passage.answer) for passage in passages]

    def find(self, text: str) -> Sequence[Find]:
        finds: list[Find] = []
        for kind in self._kinds:
            name = kind.replace("_", " ").removesuffix("s")
            if kind == "control_tokens":
                finds += found(text, _control_tokens, markup=False)
            else:
                finds += [(start, end, name) for start, end in _FINDERS[kind](text)]
        return sorted(finds)

    def _score(self, text: str) -> Rating:
        kinds = sorted({name for _, _, name in self.find(text)})
        return Rating(float(bool(kinds)), ", ".join(kinds) or None)


def _control_tokens(text: str, start: int) -> Iterator[Find]:
    for match in _CONTROL.finditer(text, start):
        yield *match.span(), "control token"
    for match in _SEQUENCE_END.finditer(text, start):
        if len(match.group()) < 5:  # text that is struck out in HTML is between a pair
            yield *match.span(), "control token"


def _invisible(text: str) -> Iterator[tuple[int, int]]:
    if text.isascii():
        return
    for match in _TAGS.finditer(text):
        if match.group()[0] != "\U0001f3f4":  # the flag of a part of a country
            yield match.span()
    turns = _TURNED if _RIGHT_TO_LEFT.search(text) else _DIRECTIONS
    for pattern in (_SELECTORS, _WIDTHLESS, turns):
        for match in pattern.finditer(text):
            yield match.span()


def _comments(text: str) -> Iterator[tuple[int, int]]:
    at = text.find("<!--")
    while at >= 0:
        close = text.find("-->", at + 4)
        end = len(text) if close < 0 else close + 3
        yield at, end
        at = text.find("<!--", end)
    for match in _MARKDOWN_COMMENT.finditer(text):
        yield match.span()


def _hidden_elements(text: str) -> Iterator[tuple[int, int]]:
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have two small ones
        lower = text
    at = 0
    while (tag := _TAG.search(text, at)) is not None:
        at = tag.end()
        if not _UNSEEN.search(tag[2]):
            continue
        if tag[1].lower() not in _EMPTY and not tag[2].rstrip().endswith("/"):
            close = lower.find(f"</{tag[1].lower()}", at)
            ended = lower.find(">", close) if close >= 0 else -1
            at = len(text) if ended < 0 else ended + 1
        yield tag.start(), at


_EMPTY = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})

_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "invisible": _invisible,
    "comments": _comments,
    "hidden_elements": _hidden_elements,
}
