"""A tool call as it is given to be decided about, and what the rules say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from stars_guard.calling.plan import messages_of
from stars_guard.concealing import concealed
from stars_guard.core.arguments import text as text_of
from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.tool_call_events import Approval, Ruled, Traced, ValueOrigin
from stars_guard.core.tools import Tool
from stars_guard.errors import InputError
from stars_guard.prompting.call_rendering import render_call
from stars_guard.rules import OriginOf, RuleDecision, RuleSet, RunState
from stars_guard.rules.origin import Origin

__all__ = ["AboutCall", "AboutText", "GivenCall", "Ruling", "forms_of"]


class AboutText(TypedDict, total=False):
    """What may be said about a text that is judged.

    Attributes:
        forms: other forms in which somebody will read the text. Judges that veto read each of them too. The record
            holds their scores but not their texts.
        messages: the conversation before the text.
        run_id: your id for the run, kept in the record.
    """

    forms: Sequence[str]
    messages: Sequence[Message]
    run_id: str | None


class AboutCall(AboutText, total=False):
    """What may be said about a tool call besides its name and arguments, and besides what `AboutText` says.

    Attributes:
        run: what the run has done so far, for conditions and budgets. Without it, the run begins with this call.
        context: what your app says about the run, such as the user's id and roles.
        origin: says where a value came from, instead of what is found by looking for it in the texts of ``run``.
            Without both, conditions that ask can't be evaluated.
        approval: what became of the call after a person was asked about it. A person's approval settles ``ask`` and
            nothing else; any other answer rejects the call.
        judged: whether the judges have let exactly this call pass before. They are then not asked again.
        tool: the tool that is called. Conditions then see its defaults for what the call leaves out, and can't be
            evaluated where they read a value of another type than the tool's schema says.
        text: the call as judges read it. By default the name and a line for each argument.
    """

    run: RunState | None
    context: Mapping[str, Any] | None
    origin: OriginOf | None
    approval: Approval | None
    judged: bool
    tool: Tool | None
    text: str | None


_ANY_TOOL = Tool(name="any", description="", parameters={})


class GivenCall:
    """A call and what is said about it, checked.

    Raises:
        InputError: something is of another type.
    """

    def __init__(
        self,
        name: str,
        args: Mapping[str, Any],
        *,
        run: RunState | None = None,
        context: Mapping[str, Any] | None = None,
        origin: OriginOf | None = None,
        approval: Approval | None = None,
        judged: bool = False,
        tool: Tool | None = None,
        text: str | None = None,
        forms: Sequence[str] = (),
        messages: Sequence[Message] = (),
        run_id: str | None = None,
    ) -> None:
        name = text_of("the name of the tool", name)
        kinds: dict[str, tuple[object, type]] = {
            "args": (args, Mapping),
            "run": (RunState() if run is None else run, RunState),
            "context": ({} if context is None else context, Mapping),
            "judged": (judged, bool),
            "tool": (_ANY_TOOL if tool is None else tool, Tool),
        }
        for what, (value, kind) in kinds.items():
            if not isinstance(value, kind):
                raise InputError(f"{what} is of the type {type(value).__name__}", hint=f"pass a {kind.__name__}")
        if approval is not None and not isinstance(approval, Approval):
            raise InputError(f"approval is of the type {type(approval).__name__}", hint="pass an Approval")
        if origin is not None and not callable(origin):
            raise InputError(f"origin is of the type {type(origin).__name__}", hint="pass a function")
        self._run, self._context = run, context
        self._origin, self._approval, self.tool = origin, approval, tool
        self.judged = judged
        self.forms = forms_of(forms)
        self.messages = messages_of(messages)
        self.run_id = text_of("run_id", run_id) if run_id is not None else None
        self.text = _encodable(render_call(name, args)) if text is None else text_of("the text to check", text)

        self._call: ToolCall | InputError
        try:
            self._call = ToolCall(id="", name=name, arguments=args)
        except InputError as exc:  # the model's fault, and nothing that a rule could be asked about
            self._call = exc

    @property
    def parsed(self) -> ToolCall | None:
        """The call as its tool gets it; None where it can be none."""
        return self._call if isinstance(self._call, ToolCall) else None

    def ruling(self, rules: RuleSet) -> Ruling:
        """What the rules say."""
        call, origin, traced = self._call, self._origin, None
        if isinstance(call, InputError):
            decision = RuleDecision(action="reject", because="arguments", message=call.message)
        else:
            if self._run is not None:
                origins = rules.origins(self._run, call, self.tool)
                traced = _traced(origins.of_all(call.arguments))
                origin = origin or (lambda value: origins.of(value).word)
            decision = rules.decide(call, self._run, origin=origin, context=self._context, tool=self.tool)
        return Ruling(decision, self._approval, traced)

    def ruled_by(self, rules: RuleSet) -> Ruled:
        """The same as an event, without where values came from."""
        return self.ruling(rules).event


class Ruling:
    """What the rules say about the call, and what a person has said about it before."""

    def __init__(self, decision: RuleDecision, approval: Approval | None, traced: Traced | None = None) -> None:
        self.decision, self.approval, self.traced = decision, approval, traced
        self.event = Ruled(
            action=decision.action,
            rule=concealed(decision.rule) if decision.rule is not None else None,
            because=decision.because,
            failed=decision.failed,
            approved=approval is not None and approval.runs,
        )

    @property
    def events(self) -> tuple[Ruled | Approval | Traced, ...]:
        """What to tell."""
        return tuple(event for event in (self.event, self.approval, self.traced) if event is not None)

    @property
    def rejects(self) -> bool:
        """Whether the call is rejected, whatever the judges say."""
        return self.decision.action == "reject" or (self.approval is not None and not self.approval.runs)

    @property
    def reason(self) -> str:
        """Why the call may not be made as it is; empty where it may."""
        if self.approval is not None and not self.approval.runs:
            return self.approval.in_words
        if self.event.lets_through:
            return ""
        verb = "a person is asked because of" if self.decision.action == "ask" else "rejected by"
        return concealed(
            f"{verb} {self.decision.reason}" if self.decision.because != "arguments" else self.decision.message
        )


def _traced(found: Mapping[str, Origin]) -> Traced:
    return Traced(
        origins=tuple(
            ValueOrigin(path=path, origin=one.origin, tool=one.tool, trusted=one.trusted) for path, one in found.items()
        )
    )


def forms_of(forms: Sequence[str]) -> tuple[str, ...]:
    """The other forms of a text, checked.

    Raises:
        InputError: they are no sequence of strings.
    """
    # one string is a sequence too, of characters in which no judge finds anything
    if isinstance(forms, str) or not isinstance(forms, Sequence) or not all(isinstance(one, str) for one in forms):
        raise InputError("forms is not a sequence of strings", hint="pass a tuple of strings")
    return tuple(forms)


def _encodable(text: str) -> str:
    """The text without halves of characters, which no record could hold."""
    return text.encode(errors="replace").decode()
