"""Token ids of texts that users and tools wrote: ordinary tokens only, and of every character that the model knows.

A tokenizer makes single tokens of the texts of its added tokens, those that aren't marked special included, such as
``<tool_call>`` or ``</think>``. So texts are encoded by a copy of the tokenizer that has no added tokens.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, Literal
from weakref import WeakKeyDictionary

from stars_guard.prompting._ownership import Owned

__all__ = ["After", "control_tokens", "own_ids", "plain_ids", "reasoning_marks", "templated_ids"]

After = Literal["nothing", "token", "text"]
"""What comes before a text: many tokenizers put a space before one that comes first, or after an added token."""

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_NO_SUCH_TEXT = "\U0010fffe\U0010ffff"
"""Noncharacters, which stand before the name of a vocabulary entry that no text may find. Alone they are the token that
stands for what came before a text."""


def plain_ids(tokenizer: Any, text: str, after: After = "nothing") -> list[int]:
    """Token ids of a text, none of which is an added token's, except the one for unknown characters."""
    return _encoder(tokenizer).ids_after(text, after)


def own_ids(tokenizer: Any, text: str, after: After = "nothing") -> tuple[list[int], After]:
    """Token ids of a template's own text, with the added tokens in it, and what comes before what follows it."""
    return _encoder(tokenizer).own(text, after)


def templated_ids(tokenizer: Any, rendered: Owned) -> list[int] | None:
    """Token ids of a rendered template, with the added tokens that are its own and none that a message wrote.

    Where messages hold none, the ids are the tokenizer's. None where a tokenizer does not say which characters a token
    stands for.
    """
    return _encoder(tokenizer).templated(rendered)


def reasoning_marks(tokenizer: Any) -> frozenset[str]:
    """The added tokens that aren't special, such as ``</think>``: a model may write them in its answers."""
    return _encoder(tokenizer).ordinary


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The added tokens by their text. Those of nothing but white space are ordinary text."""
    return dict(_encoder(tokenizer).control)


class _TextEncoder:
    """A tokenizer without its added tokens. It is never changed, so threads may share it."""

    def __init__(self, tokenizer: Any) -> None:
        tokens = tokenizer.added_tokens_decoder
        added = {token.content: i for i, token in tokens.items()}
        self.ordinary = frozenset(token.content for token in tokens.values() if not token.special)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        made = None if backend is None else json.loads(backend.to_str())
        self.size = len(tokenizer)
        self.control = {text: i for text, i in added.items() if text.strip()}
        self._unknown: int | None = tokenizer.unk_token_id
        self._spared = {i for text, i in added.items() if _BYTE.fullmatch(text)} | _unknown_ids(tokenizer, made)
        self._banned = frozenset(self.control.values()) - self._spared
        self._known: dict[str, bool] = {}
        self._tokenizer = tokenizer
        self._plain = None if made is None else _without(made, self._banned)
        self._inner: Any = None
        self._bare: Any = None
        # other models know either all characters or whole words only
        self._has_pieces = type(getattr(backend, "model", None)).__name__ == "WordPiece"

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        if not text:
            return []
        ids, spans = self._encode(text)
        parts: list[int] = []
        first = done = 0
        for number, (token, (begin, end)) in enumerate(zip(ids, spans, strict=True)):
            if begin < done:
                first = number + 1
            elif end - begin > 1 and (token in self._banned or self._hides(token)):
                again = self._in_parts(text[begin:end], token)
                if again is not None:
                    parts += ids[first:number] + again
                    first, done = number + 1, end
        return parts + ids[first:]

    def templated(self, rendered: Owned) -> list[int] | None:
        """As `templated_ids`."""
        if self._plain is None:
            return None
        tokens = self._whole(rendered.text)
        if not self._has_pieces and all(
            rendered.is_own(*span) for token, span in tokens if self._is_control(token, rendered.text, span)
        ):
            return [token for token, _ in tokens]
        # between the template's own control tokens, as a tokenizer without them reads it
        return self._between_own(rendered, "nothing")[0]

    def own(self, text: str, after: After) -> tuple[list[int], After]:
        """As `own_ids`."""
        if self._plain is not None and not self._has_pieces:
            return self._between_own(Owned(text, text), after)
        # the setting is said each time, because another caller may have changed the tokenizer's
        made = self._tokenizer(text, add_special_tokens=False, split_special_tokens=False, verbose=False)
        return list(made["input_ids"]), "text"

    def _between_own(self, rendered: Owned, after: After) -> tuple[list[int], After]:
        """The template's own control tokens, and what is between them; and what comes before what follows."""
        ids: list[int] = []
        at = 0
        for token, (begin, end) in self._whole(rendered.twin):
            if self._is_control(token, rendered.text, (begin, end)) and rendered.is_own(begin, end):
                ids += [*self.ids_after(rendered.text[at:begin], after), token]
                at, after = end, "token"
        rest = rendered.text[at:]
        return ids + self.ids_after(rest, after), "text" if rest else after

    def _is_control(self, token: int, text: str, span: tuple[int, int]) -> bool:
        """Whether it is an added token; the one for unknown characters, and bytes, are so by their text alone."""
        return token in self._banned or (token in self._spared and text[slice(*span)].strip() in self.control)

    def _whole(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """The tokens of a text, added ones included, and their places."""
        # the setting is said each time, because another caller may have changed the tokenizer's
        made = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return list(zip(made["input_ids"], made["offset_mapping"], strict=True))

    def ids_after(self, text: str, after: After) -> list[int]:
        """Token ids of a text that comes after something."""
        if not text or after == "nothing" or self._plain is None or self._has_pieces or _NO_SUCH_TEXT in text:
            return self.ids(text)
        ids: list[int]
        if after == "token":
            self._inner = self._inner or _after_a_token(self._plain)
            ids = self._inner.encode(_NO_SUCH_TEXT + text, add_special_tokens=False).ids[1:]
        else:
            self._bare = self._bare or _without_a_space_first(self._plain)
            ids = self._bare.encode(text, add_special_tokens=False).ids
        return self.ids(text) if self._banned.intersection(ids) else ids

    def _in_parts(self, text: str, token: int) -> list[int] | None:
        """Ids of a text that is one token and must not be, or None where nothing is gained by it."""
        if self._hides(token):
            runs = ["".join(run) for _, run in itertools.groupby(text, key=self._knows)]
            if not any(map(self._knows, text)):
                return None
            if len(runs) > 1:
                return [i for run in runs for i in self.ids(run)]
        middle = len(text) // 2
        return self.ids(text[:middle]) + self.ids(text[middle:])

    def _hides(self, token: int) -> bool:
        """Whether the token may stand for a whole word of which some is known."""
        return self._has_pieces and token == self._unknown

    def _knows(self, character: str) -> bool:
        if character not in self._known:
            self._known[character] = self._unknown not in self._encode(character)[0]
        return self._known[character]

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        if self._plain is not None:
            encoding = self._plain.encode(text, add_special_tokens=False)
            return encoding.ids, encoding.offsets
        ids = list(
            self._tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        )
        # without places all of the text is at fault
        bad = any(token in self._banned for token in ids)
        return ([next(iter(self._banned))], [(0, len(text))]) if bad and len(text) > 1 else (ids, [(0, 0)] * len(ids))


_encoders: WeakKeyDictionary[Any, _TextEncoder] = WeakKeyDictionary()


def _encoder(tokenizer: Any) -> _TextEncoder:
    found = _encoders.get(tokenizer)
    if found is None or found.size != len(tokenizer):
        found = _encoders[tokenizer] = _TextEncoder(tokenizer)
    return found


def _unknown_ids(tokenizer: Any, made: dict[str, Any] | None) -> set[int | None]:
    """What stands for unknown characters, as the tokenizer says or only its model knows."""
    model = made["model"] if made else {}
    named = model.get("unk_token")
    return {tokenizer.unk_token_id, model.get("unk_id"), tokenizer.convert_tokens_to_ids(named) if named else None}


def _without(made: dict[str, Any], banned: frozenset[int]) -> Any:
    """A copy of a tokenizer without the added tokens, and with no way for a text to become one of them all the same."""
    from tokenizers import Tokenizer

    kept = [token for token in made["added_tokens"] if token["id"] not in banned and not token["content"].strip()]
    made = {**made, "added_tokens": kept, "truncation": None, "padding": None, "post_processor": None}
    model = made["model"]
    kind = model.get("type")
    if kind == "Unigram":
        model["vocab"] = [
            [_NO_SUCH_TEXT + name if i in banned else name, score] for i, (name, score) in enumerate(model["vocab"])
        ]
    elif kind == "BPE":
        _hide_from_merges(model, banned)
    else:
        model["vocab"] = {_NO_SUCH_TEXT + name if i in banned else name: i for name, i in model["vocab"].items()}
    if kind == "WordPiece":
        # a longer word is one unknown token, whatever it says
        limit = {"type": "FixedLength", "length": int(model["max_input_chars_per_word"])}
        before = made["pre_tokenizer"]
        made["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*([before] if before else []), limit]}
    return Tokenizer.from_str(json.dumps(made))


def _after_a_token(plain: Any) -> Any:
    """A copy with one added token, which stands for the token before a text."""
    from tokenizers import AddedToken, Tokenizer

    made = Tokenizer.from_str(plain.to_str())
    made.add_special_tokens([AddedToken(_NO_SUCH_TEXT, special=True, normalized=False)])
    return made


def _without_a_space_first(plain: Any) -> Any:
    """A copy that puts no space before a text."""
    from tokenizers import Tokenizer

    def changed(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        part = dict(part)
        for name in ("normalizers", "pretokenizers"):
            if name in part:
                part[name] = [inner for given in part[name] if (inner := changed(given)) is not None]
        if part.get("type") == "Metaspace":
            part["prepend_scheme"] = "never"
        elif part.get("type") == "ByteLevel":
            part["add_prefix_space"] = False
        return None if part.get("type") == "Prepend" else part

    made = json.loads(plain.to_str())
    made |= {name: changed(made[name]) for name in ("normalizer", "pre_tokenizer")}
    return Tokenizer.from_str(json.dumps(made))


def _hide_from_merges(model: dict[str, Any], banned: frozenset[int]) -> None:
    """No merge makes a banned token, and where whole words are looked up, no word is one."""
    names = {name for name, i in model["vocab"].items() if i in banned and len(name) > 1}
    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    model["merges"] = pairs = [pair for pair in pairs if pair[0] + pair[1] not in names]
    used = {part for pair in pairs for part in pair} | {model.get("unk_token")}
    model["vocab"] = {
        _NO_SUCH_TEXT + name if name in names and name not in used else name: i for name, i in model["vocab"].items()
    }
