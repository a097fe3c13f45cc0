"""The chat template that a generator's conversations go through: the model's own, or one that the user gives.

Base models have none. Nothing is guessed for them, because a template that the model doesn't know, or one without the
token that every text of it begins with, makes a poor model of a good one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from stars_guard.core.messages import Message
from stars_guard.errors import InputError
from stars_guard.prompting.chat_encoding import mark, render_chat
from stars_guard.prompting.text_encoding import control_tokens

__all__ = ["PLAIN", "give_template", "shown_template", "template_on_record"]

PLAIN = "plain"
"""Names the template that writes each message under its role's name. It is for models that have none."""

_PLAIN = (
    "{%- for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
_LOCAL = "file "


def give_template(tokenizer: Any, given: str | None, model: str) -> frozenset[int]:
    """Give a tokenizer a chat template. Blocks.

    Args:
        given: ``plain``, the path of a file with a Jinja template, or the template's text. None leaves the model's own.
        model: as the message names it.

    Returns:
        Tokens that end an answer under a template that was given: the one that the template writes behind what an
        assistant says. A model's files know nothing of it.

    Raises:
        InputError: the model has no template and none was given, or what was given can't be used.
    """
    if given is None:
        if not tokenizer.chat_template:
            raise InputError(
                f"the model {model!r} has no chat template, so it may be a base model that knows no conversations",
                hint="set the option chat_template to a file with a Jinja template, or to 'plain', which writes each "
                "message under its role's name",
            )
        return frozenset()
    tokenizer.chat_template = _begun(tokenizer, _PLAIN) if given == PLAIN else _text_of(given)
    try:
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Go."}], tokenize=False, add_generation_prompt=True
        )
    except Exception as exc:  # of Jinja, of the template's own, or of what it does with values
        raise InputError(f"the chat template {_name(given)} can't be used: {type(exc).__name__}") from exc
    if "Go." not in rendered:
        raise InputError(f"the chat template {_name(given)} doesn't show the user's message", hint=_FORMS)
    return _turn_ends(tokenizer)


_FORMS = "it is 'plain', a file with a Jinja template, or the text of one"


def _text_of(given: str) -> str:
    if "{%" in given or "{{" in given:
        return given
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise InputError(f"the chat template {given!r} can't be read: {type(exc).__name__}", hint=_FORMS) from exc


def _begun(tokenizer: Any, template: str) -> str:
    """A template with the token before it that the tokenizer puts before every text, if it does."""
    first = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    return "{{ bos_token }}" * begins + template


def _turn_ends(tokenizer: Any) -> frozenset[int]:
    try:
        rendered, texts = render_chat(tokenizer, [Message("user", "Go.")], answer="Gone.")
    except InputError:
        return frozenset()
    tail = rendered.rpartition(mark(len(texts) - 1))[2].lstrip()
    # the longest first, since one may begin like another
    found = [token for text, token in sorted(control_tokens(tokenizer).items(), reverse=True) if tail.startswith(text)]
    return frozenset(found[:1])


def _name(given: str) -> str:
    return "that was given as text" if "{%" in given or "{{" in given else repr(given)


def shown_template(given: str | None, tokenizer: Any) -> str:
    """A template as a record shows it: ``plain``, or a digest of its text, with the file's path where there is one.

    It is empty where none was given.
    """
    if given is None or given == PLAIN:
        return given or ""
    digest = f"sha256:{hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()}"
    return digest if _name(given) != repr(given) else f"{digest} {_LOCAL}{given}"


def template_on_record(shown: str) -> str | None:
    """What to give a backend so that it has the template on record again, or None where that is not to be found.

    Args:
        shown: by `shown_template`; an empty string says that none was given.
    """
    if shown in ("", PLAIN):
        return shown
    digest, _, place = shown.partition(f" {_LOCAL}")
    try:
        text = Path(place).read_text(encoding="utf-8") if place else ""
    except (OSError, ValueError):
        return None
    return place if f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" == digest else None
