"""Where a value of a call's arguments came from: the user, the system prompt, a tool's result, or only the model.

What decides is whether somebody else may have chosen the value:

- **user**: the user wrote the value, as a whole. Case, Unicode's forms, spaces, the grouping of numbers, and the way in
  which a date or a URL is written make no difference, but nothing may be added: a value of which the user wrote a part
  is not the user's. A list, or a text that joins values, is the user's if each of its values is.
- A value that the user wrote *and* an untrusted tool's result holds is the user's. Results repeat what they were asked
  for, and if that took the user's word away, any result could. So don't paste foreign text into a user's message.
- **system**: the same for the system prompt.
- **tool**: an untrusted tool's result holds the value, a disguised or encoded form of it, most of it in pieces (which
  may be of several results), or an address or number that is in it. This errs on the side of ``tool``.
- A *trusted* tool's result counts as the user's own data, for whole values only, and only where nobody else had the
  value before: an untrusted result, or the model in an earlier call. So nothing becomes trusted by being written to a
  file and read again.
- **model**: everything else. The user's own words in a new order are the model's, and so is a value that was encoded in
  a way that nobody here knows. ``origin(x) != "user"`` is therefore the condition that an attacker cannot get around,
  and ``origin(x) == "tool"`` is the one that asks less.

Short values, small numbers and common words are compared as whole words, and found easily. Where the user's message has
one, it is the user's, so ask about a payment's recipient besides its amount. True, false and null are the model's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import OriginName
from stars_guard.rules._indexed_text import IndexedText, IndexedTexts
from stars_guard.rules._strangers import Strangers
from stars_guard.rules._strict_value import StrictValue, joined_values
from stars_guard.rules.globs import matches_any
from stars_guard.rules.run import RunState

__all__ = ["Origin", "Origins"]

_RANK: dict[OriginName, int] = {"user": 0, "system": 1, "model": 3, "tool": 4}
_MOST_VALUES = 2000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from. It holds nothing of the value.

    Attributes:
        origin: who had it first.
        tool: whose result holds it, where a tool's does.
        trusted: whether the policy counts that tool's results as the user's own data.
        share: how much of the value was found there, from 0 to 1.
    """

    origin: OriginName
    tool: str = ""
    trusted: bool = False
    share: float = 1.0

    @property
    def word(self) -> OriginName:
        """What a condition sees: a trusted tool's result is the user's."""
        return "user" if self.trusted else self.origin


_MODEL = Origin("model", share=0.0)
_BEST = Origin("user", share=0.0)


class Origins:
    """The texts of one run, and who wrote them.

    Messages are added as they come. What was added once is not looked at again, and ``texts`` keeps the index of each
    text for the next time that the same run is read.

    Args:
        messages: the run so far. A tool's name is that of the call which its result answers.
        trust: names of tools whose results count as the user's own data, with ``*`` and ``?``.
        texts: keeps indexed texts between runs.
        names: keys that nobody chose, because they are the tool's: those in its schema. Other keys count as values do.
    """

    def __init__(
        self,
        messages: Iterable[Message] = (),
        *,
        trust: Sequence[str] = (),
        texts: IndexedTexts | None = None,
        names: Collection[str] = (),
    ) -> None:
        self._names = frozenset(names)
        self._trust = tuple(trust)
        self._texts = texts or IndexedTexts()
        self._called: dict[str, str] = {}
        self._user: list[IndexedText] = []
        self._system: list[IndexedText] = []
        self._trusted: list[tuple[int, str, IndexedText]] = []
        self._strangers = Strangers()
        self._added = 0
        self._found: dict[tuple[type, str], Origin] = {}
        for message in messages:
            self.add(message)

    @classmethod
    def of_run(
        cls,
        run: RunState,
        *,
        trust: Sequence[str] = (),
        texts: IndexedTexts | None = None,
        names: Collection[str] = (),
    ) -> Origins:
        """Those of a run as rules see it. The other arguments are those of the class."""
        found = cls(trust=trust, texts=texts, names=names)
        for text in run.system:
            found._system += found._indexed(text)
        for text in run.user:
            found._user += found._indexed(text)
        for call in run.calls:
            found._call(call.args)
            found._result(call.tool, call.result or "", known=True)
        return found

    def add(self, message: Message) -> None:
        """Take the next message of the run."""
        self._found.clear()
        match message.role:
            case "user":
                self._user += self._indexed(message.content)
            case "system":
                self._system += self._indexed(message.content)
            case "assistant":
                for call in message.tool_calls:
                    self._called[call.id] = call.name
                    self._call(call.arguments)
            case "tool":
                # a result may bear any name, and that of the call is the one which ran
                tool = self._called.get(message.tool_call_id)
                self._result(tool or message.name or "?", message.content, known=tool is not None)

    def _indexed(self, text: str) -> list[IndexedText]:
        return [self._texts.of(text)] if text else []

    def _call(self, arguments: Mapping[str, Any]) -> None:
        self._added += 1
        for text in self._indexed("\n".join(map(str, islice(_said(arguments), _MOST_VALUES)))):
            self._strangers.add(self._added, None, text)

    def _result(self, tool: str, content: str, *, known: bool) -> None:
        self._added += 1
        for text in self._indexed(content):
            if known and matches_any(tool, self._trust):
                self._trusted.append((self._added, tool, text))
            else:
                self._strangers.add(self._added, tool, text)

    def of(self, value: Any) -> Origin:
        """Where a value came from; of a list or a mapping, the worst of all that is in it, keys included.

        From worst to best: an untrusted tool, the model, a trusted tool, the system prompt, the user.
        """
        if isinstance(value, Mapping | list | tuple):
            leaves = [*islice(chain(_keys(value, self._names), _values(value)), _MOST_VALUES + 1)]
            if len(leaves) > _MOST_VALUES:
                return self._from(self._strangers.first_tool, 0.0)
            return max(map(self._of, leaves), key=_badness, default=_MODEL)
        return self._of(value)

    def of_all(self, arguments: Mapping[str, Any]) -> dict[str, Origin]:
        """Where each string and number of a call's arguments came from, by its path, such as ``people[0].mail``.

        A mapping whose keys somebody wrote before, and which are no names, is there with the worst of its keys.
        """
        found = {path: self._of(leaf) for path, leaf in islice(_leaves(arguments, ""), _MOST_VALUES)}
        for path, key in islice(_chosen_keys(arguments, "", {*self._names, *arguments}), _MOST_VALUES):
            if (origin := self._of(key)).origin != "model":  # else it's most often a name that no schema has named
                found[path] = max(found.get(path, _BEST), origin, key=_badness)
        return found

    def _of(self, value: object) -> Origin:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return _MODEL
        key = (type(value), str(value))  # equal numbers, such as 0.0 and -0.0, are written differently
        if key not in self._found:  # the record asks about each value, and every rule about some of them again
            self._found[key] = self._traced(value)
        return self._found[key]

    def _traced(self, value: str | float) -> Origin:
        strict = StrictValue(value)
        if not strict.text:
            return _MODEL
        if strict.is_in(self._user):
            return Origin("user")
        if strict.is_in(self._system):
            return Origin("system")
        if isinstance(value, str) and (parts := joined_values(value)):
            worst = max(map(self._of, parts), key=_badness)
            if worst.word != "model":
                return worst
        for order, tool, text in self._trusted:
            if strict.is_in([text]):
                before = self._strangers.before(order, value, known=self._user)
                return Origin("tool", tool, trusted=True) if before is None else self._from(*before)
        stranger = self._strangers.find(value, known=self._user)
        return _MODEL if stranger is None else self._from(*stranger)

    def _from(self, tool: str | None, share: float) -> Origin:
        return Origin("model", share=0.0) if tool is None else Origin("tool", tool, share=share)


def _badness(origin: Origin) -> tuple[int, float]:
    return (2 if origin.trusted else _RANK[origin.origin]), origin.share


def _said(arguments: Mapping[str, Any]) -> Iterator[object]:
    """What an earlier call says: its values, and keys other than its arguments' names."""
    return chain(_values(arguments), _keys(arguments, arguments))


def _values(tree: object) -> Iterator[object]:
    return (leaf for _, leaf in _leaves(tree, ""))


def _leaves(tree: object, path: str) -> Iterator[tuple[str, object]]:
    """The strings and numbers in a value, with their paths."""
    match tree:
        case Mapping():
            for key, item in tree.items():
                yield from _leaves(item, f"{path}.{key}" if path else str(key))
        case list() | tuple():
            for number, item in enumerate(tree):
                yield from _leaves(item, f"{path}[{number}]")
        case str() | int() | float() if not isinstance(tree, bool):
            yield path, tree
        case _:
            pass


def _keys(tree: object, names: Collection[str]) -> Iterator[str]:
    return (key for _, key in _chosen_keys(tree, "", names))


def _chosen_keys(tree: object, path: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """The keys in a value that are no names, each with the path of its mapping."""
    match tree:
        case Mapping():
            for key, item in tree.items():
                if key not in names:
                    yield path, str(key)
                yield from _chosen_keys(item, f"{path}.{key}" if path else str(key), names)
        case list() | tuple():
            for number, item in enumerate(tree):
                yield from _chosen_keys(item, f"{path}[{number}]", names)
        case _:
            pass
