"""What a guard model is asked about a passage, as token ids, and what its answers come to. Pure: no model, no I/O."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import jinja2
import jinja2.meta
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.core.tools import Tool
from stars_guard.core.vocabulary import Role
from stars_guard.errors import ScorerError, ScorerInputError
from stars_guard.prompting._frames import Frame
from stars_guard.prompting._guard_encoding import MARK, Encoder
from stars_guard.prompting._guard_evidence import Evidence
from stars_guard.prompting._shown_texts import ASKED, AskedOfText, Shown, asks_about_texts
from stars_guard.prompting.guard_formats import GuardFormat
from stars_guard.prompting.plain_text import as_text

__all__ = ["Encoder", "LabelTokens", "Question", "Questions", "template_problem"]

_BROKEN = re.compile(r"\x02|(?:u00|%|\\x|&#x?)0?2")
"""What is left of a mark that a template has changed."""
_PROBES = tuple(
    Passage(call_id="", messages=before, accepted=accepted, segment="!", role=role)
    for role in ("assistant", "user")
    for before, accepted in (
        ((Message("user", "?"),), ""),
        ((Message("system", "?"), Message("user", "?"), Message("assistant", "?"), Message("user", "?")), "!"),
    )
)
"""A short and a long conversation, with a text of the assistant's and of a user's."""
_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_OWN_FIELDS = ("prompt", "answer", "segment", "messages", "role")
"""What a policy's own template may show. The published formats have more."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that is asked, with one label as the answer.

    Attributes:
        category: which hazard; None asks for all of them at once.
        given: for a model that answers in several lines: what the lines before are taken to say.
    """

    category: str | None = None
    given: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """First tokens of the labels of either side."""

    harmful: tuple[int, ...]
    safe: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """All of them, in order."""
        return [*self.harmful, *self.safe]


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A rendered template.

    Attributes:
        rendered: the template's own text, with marks where texts of the passage come.
        texts: what each mark stands for.
        judged: the numbers of the marks that stand for the judged text: as the last message, as ``answer``, as
            ``segment``.
    """

    rendered: str
    texts: list[str]
    judged: tuple[int, int, int]


class Questions:
    """The questions of one format about the picked categories.

    Attributes:
        asked: one or more a passage, always the same.

    Raises:
        ScorerError: the format's template isn't valid Jinja2.
    """

    def __init__(
        self,
        form: GuardFormat,
        categories: Sequence[str] = (),
        *,
        controversial: str = "unsafe",
        effort: str = "medium",
    ) -> None:
        picked = [name for name in categories if name in form.categories] or form.default
        self._form = form
        self._categories = {name: form.categories[name] for name in form.categories if name in picked}
        try:
            self._template = _ENVIRONMENT.from_string(form.template)
        except jinja2.TemplateSyntaxError as exc:
            raise ScorerError(f"the judge's template is not Jinja2: {exc.message}", hint="correct it") from exc
        self._middle = {"safe": (), "unsafe": (), controversial: form.controversial}
        self._effort = effort
        self._probes = tuple(map(_with_evidence, _PROBES)) if form.needs else _PROBES
        self._frame: Frame | None = None
        self._of_answers: Questions | None = None
        self._of_users = form.user and Questions(form.user, categories, controversial=controversial, effort=effort)
        if self._of_users:
            self._of_users._of_answers = self
        self.asked = tuple(self._all())

    def about(self, role: Role) -> Questions:
        """Those about a text of that role: what users and tools write may have a form of its own.

        Raises:
            ScorerInputError: the model was trained to judge answers and nothing else.
        """
        if role != "assistant" and self._form.answers_only:
            raise ScorerInputError(
                f"{self._form.name} was trained to judge answers only",
                hint="leave it to answers and calls",
            )
        return self if role == "assistant" else self._of_users or self

    def _all(self) -> list[Question]:
        if self._form.lines:
            deepest = max(self._depth(name) for name in self._categories)
            depths = range(deepest + 1)
            return [Question(None, given) for k in depths for given in itertools.product((True, False), repeat=k)]
        return [Question(name) for name in self._categories] if self._form.each else [Question()]

    def _depth(self, category: str) -> int:
        return list(self._form.categories).index(category)

    def encode(self, encoder: Encoder, passage: Passage) -> list[list[int]]:
        """Token ids of each question that is asked about a passage: those of `about` its role.

        Raises:
            ScorerInputError: the template does not take the passage, or does not show the judged text.
        """
        questions = self.about(passage.role)
        if questions is not self:
            return questions.encode(encoder, passage)
        return [self._encoded(encoder, question, passage) for question in self.asked]

    def labels(self, encoder: Encoder) -> LabelTokens:
        """The tokens that are compared.

        Raises:
            ScorerError: the template fails, does not show texts as they are, both sides begin with the same token, or a
                label has none.
        """
        try:
            rendered = self._render(self.asked[0], self._probes[0]).rendered
        except ScorerInputError as exc:
            # nothing is wrong with a plain question, so it is the template
            kind = type(exc.__cause__).__name__
            raise ScorerError(f"the judge's template fails: {kind}", hint="correct the template") from exc.__cause__
        if problem := self.problem():
            raise ScorerError(f"the judge's template cannot be used: {problem}", hint="correct the template")
        rendered = self._form.writes or rendered
        harmful = encoder.first_tokens(rendered, self._form.harmful + self._middle["unsafe"])
        safe = encoder.first_tokens(rendered, self._form.safe + self._middle["safe"])
        if both := set(harmful) & set(safe):
            raise ScorerError(
                f"labels of both sides begin with the same token: {encoder.names(sorted(both))}",
                hint="write the labels as the model does, a leading space or line break included",
            )
        return LabelTokens(harmful, safe)

    def verdict(self, chances: Sequence[float]) -> tuple[float, str | None]:
        """The highest chance of harm over the picked categories, and of which, where each has its own.

        A chance that is not a number counts most: the model didn't answer.
        """
        if self._form.lines:
            tree = {question.given: chance for question, chance in zip(self.asked, chances, strict=True)}
            return max((_marginal(tree, self._depth(name)), name) for name in self._categories)
        value, question = max(zip(chances, self.asked, strict=True), key=lambda pair: (math.isnan(pair[0]), pair[0]))
        return value, question.category

    @property
    def writes(self) -> str:
        """What the model writes before the label; empty where the label is what comes next."""
        return self._form.writes

    @cached_property
    def shows_segment_only(self) -> bool:
        """Whether the template leaves out what was accepted before the segment."""
        return set(self._shown) == {2}

    @cached_property
    def copies(self) -> int:
        """How often the template shows the judged text."""
        return max(1, len(self._shown))

    @cached_property
    def _shown(self) -> list[int]:
        """In which forms, of `_Rendered.judged`, the template shows the judged text."""
        for probe in self._probes[::-1]:
            with suppress(ScorerInputError):
                shown = self._render(self.asked[0], probe)
                found = [int(match[1]) for match in MARK.finditer(shown.rendered)]
                return [shown.judged.index(number) for number in found if number in shown.judged]
        return []

    def problem(self) -> str | None:
        """What goes wrong when short and long conversations are put into the template, or None."""
        if asks_about_texts(_ENVIRONMENT.parse(self._form.template)):
            return ASKED
        for probe in self._probes:
            if probe.role != "assistant":
                continue  # a template that shows answers only is of use, and fails for other texts when it is asked
            try:
                rendered = self._render(self.asked[0], probe).rendered
            except ScorerError as exc:
                cause = exc.__cause__
                if cause is None:
                    return exc.message.removeprefix("the judge's template ")
                known = isinstance(cause, jinja2.TemplateError | AskedOfText)
                return str(cause) if known else f"it fails: {type(cause).__name__}"
            if any(_BROKEN.search(own) for own in MARK.split(rendered)[::2]):
                return "it changes a text before it shows it, so the model would judge something else"
        return None

    def _encoded(self, encoder: Encoder, question: Question, passage: Passage) -> list[int]:
        shown = self._render(question, passage)
        if self._frame is None:
            # a text must not imitate the format's other question either
            other = self._of_users or self._of_answers
            more = other._own_texts() if other else ()
            self._frame = Frame((*self._own_texts(), *more))
        return encoder.encode(shown.rendered, [self._frame.plain(text) for text in shown.texts])

    def _own_texts(self) -> Iterator[str]:
        for question, probe in itertools.product(self.asked, self._probes):
            with suppress(ScorerInputError):
                yield self._render(question, probe).rendered

    def _render(self, question: Question, passage: Passage) -> _Rendered:
        role: Role = "assistant" if passage.role == "assistant" else "user"
        if role == "assistant" and not any(message.role == "user" for message in passage.messages):
            # formats show an answer as one to a message of the user
            passage = replace(passage, messages=(*passage.messages, Message("user", "")))
        evidence = Evidence.of(passage, self._form.needs.get(question.category or ""))
        passage = evidence.passage
        turns = [*as_text(passage.messages), Message(role, passage.answer)]
        said = [message.content for message in passage.messages if message.role == "user"]
        fields = {
            "answer": passage.answer,
            "segment": passage.segment,
            "prompt": "\n".join(said),
            "question": said[-1] if said else "",
        }
        marks = {name: _mark(len(turns) + i) for i, name in enumerate(fields)}
        texts = [*(turn.content for turn in turns), *fields.values()]
        beside = {"documents": evidence.documents, "tools": evidence.tools}
        shown: dict[str, list[Shown]] = {}
        for name, found in beside.items():
            shown[name] = [_mark(len(texts) + i) for i in range(len(found))]
            texts += found
        marked = [{"role": turn.role, "content": _mark(i)} for i, turn in enumerate(turns)]
        try:
            rendered = self._template.render(
                messages=marked,
                turns=[turn for turn in marked if turn["role"] != "system"],
                role=passage.role,
                categories=self._categories,
                category=question.category,
                definition=self._categories.get(question.category or ""),
                effort=self._effort,
                **shown,
                **marks,
            )
        except Exception as exc:
            # a template's expressions may raise anything, such as a division by zero
            raise ScorerInputError(
                f"the judge's template does not take the conversation: {type(exc).__name__}",
                hint="correct the template",
            ) from exc
        judged = (len(turns) - 1, len(turns), len(turns) + 1)
        if {int(match[1]) for match in MARK.finditer(rendered)}.isdisjoint(judged):
            raise ScorerInputError(
                "the judge's template does not show answer, segment or the last message, so every answer would get the "
                "same score",
                hint="correct the template",
            )
        for line, label in itertools.zip_longest(self._form.lines[: len(question.given) + 1], question.given):
            rendered += line + ("" if label is None else (self._form.harmful if label else self._form.safe)[0])
        return _Rendered(rendered, [text.strip() for text in texts] if self._form.trim else texts, judged)


def template_problem(template: str) -> str | None:
    """What is wrong with a template that a policy brings, or None."""
    try:
        parsed = _ENVIRONMENT.parse(template)
        # jinja2 itself finds these only where they are reached
        for node in parsed.find_all(jinja2.nodes.Filter):
            if node.name not in _ENVIRONMENT.filters:
                return f"there is no filter {node.name!r}"
        for test in parsed.find_all(jinja2.nodes.Test):
            if test.name not in _ENVIRONMENT.tests:
                return f"there is no test {test.name!r}"
        used = jinja2.meta.find_undeclared_variables(parsed) - set(_ENVIRONMENT.globals)
        questions = Questions(GuardFormat("custom", template, (), ()))
    except jinja2.TemplateSyntaxError as exc:
        return f"not a Jinja2 template: {exc.message}"
    except ScorerError as exc:
        return exc.message
    if unknown := used - {*_OWN_FIELDS}:
        return f"a template has no {', '.join(sorted(unknown))}; only {', '.join(_OWN_FIELDS)}"
    if problem := questions.problem():
        return f"the template cannot be used: {problem}"
    return None


def _with_evidence(probe: Passage) -> Passage:
    """The same probe with a document and a tool, for formats that show them."""
    tool = Tool(name="tool", description="", parameters={})
    return replace(probe, messages=(*probe.messages, Message("tool", "?")), tools=(tool,))


def _mark(index: int) -> Shown:
    return Shown(f"\x02{index}\x02")


def _marginal(tree: Mapping[tuple[bool, ...], float], depth: int, given: tuple[bool, ...] = ()) -> float:
    """P(the line at ``depth`` says yes), summed over what the lines before it may say."""
    yes = tree[given]
    if len(given) == depth:
        return yes
    return yes * _marginal(tree, depth, (*given, True)) + (1 - yes) * _marginal(tree, depth, (*given, False))
