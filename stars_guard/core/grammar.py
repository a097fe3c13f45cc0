"""What an answer must look like, token by token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from stars_guard.core.arguments import has_lone_surrogate
from stars_guard.core.nesting import MOST_NESTED, is_too_deep
from stars_guard.core.schemas import self_contained
from stars_guard.errors import InputError

__all__ = ["Grammar", "json_format"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that the answer is generated under: tokens that it does not allow have no chance.

    Make it with `json_schema`, `regex` or `ebnf`.

    Attributes:
        tag: a structural tag of xgrammar, as JSON. All engines take this form, so their output distribution is the
            same.
        whole: whether it describes the answer as a whole, which is then generated and judged as one segment; else text
            between whose parts the answer may be cut.
    """

    tag: str = field(repr=False)
    _: KW_ONLY
    whole: bool = True

    @classmethod
    def of(cls, form: Mapping[str, Any], *, whole: bool = True) -> Grammar:
        """From a format of a structural tag.

        Args:
            form: the format, as xgrammar describes it.
            whole: whether it describes the answer as a whole.

        Raises:
            InputError: it holds half a character (a lone surrogate).
        """
        if has_lone_surrogate(form):
            raise InputError("a grammar holds a lone surrogate", hint="decode its text with errors='replace'")
        return cls(json.dumps({"type": "structural_tag", "format": form}, sort_keys=False), whole=whole)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        """JSON that a schema describes, its properties in the schema's order.

        Raises:
            InputError: the schema is nested too deeply, or refers to something that it does not hold.
        """
        if is_too_deep(schema):
            raise InputError("the JSON schema is nested too deeply", hint=f"at most {MOST_NESTED} levels fit")
        return cls.of(json_format(self_contained(schema)))

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that a regular expression (``pattern``) matches as a whole. Engines say if they can't read it."""
        return cls.of({"type": "regex", "pattern": pattern})

    @classmethod
    def ebnf(cls, rules: str) -> Grammar:
        """Text that rules in GGML's form (``root ::= "yes" | "no"``) describe."""
        return cls.of({"type": "grammar", "grammar": rules})


def json_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema as a part of a structural tag. A small model would otherwise write white space without end."""
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
