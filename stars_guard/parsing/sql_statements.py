"""What SQL would do: the kind of each statement, its tables, and whether it changes all rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.simplify import simplify

from stars_guard.parsing.word_lists import word_list

__all__ = ["Statement", "UnreadableSql", "read_sql", "risk_of_sql"]

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it logs parts of what it cannot parse


class UnreadableSql(Exception):
    """The text is no SQL that can be read. The message holds none of it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement.

    Attributes:
        kind: in lower case: ``select``, ``insert``, ``update``, ``delete``, ``create``, ``drop``, ``alter``,
            ``truncate``, ``merge``, ``grant``, ``set`` or, for what is none of them, its first word.
        tables: the names of all tables in it, in lower case, with their schema where it is given.
        all_rows: whether it changes or removes every row, because there is no condition or one that always holds.
        writes_file: whether it reads or writes a file, or runs a program, outside of the database.
    """

    kind: str
    tables: tuple[str, ...] = ()
    all_rows: bool = False
    writes_file: bool = False


_KINDS: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Insert, "insert"),
    (exp.Update, "update"),
    (exp.Delete, "delete"),
    (exp.Create, "create"),
    (exp.Drop, "drop"),
    (exp.Alter, "alter"),
    (exp.TruncateTable, "truncate"),
    (exp.Merge, "merge"),
    (exp.Grant, "grant"),
    (exp.Set, "set"),
    (exp.Use, "use"),
    (exp.Describe, "describe"),
    (exp.Copy, "copy"),
    (exp.LoadData, "load"),
    (exp.Pragma, "pragma"),
    (exp.Transaction, "begin"),
    (exp.Commit, "commit"),
    (exp.Rollback, "rollback"),
    (exp.Show, "show"),
    (exp.Kill, "kill"),
    (exp.Attach, "attach"),
    (exp.Detach, "detach"),
    (exp.Analyze, "analyze"),
)
_FUNCTIONS = frozenset(word_list("sql_statements.functions"))


def read_sql(text: str, dialect: str = "") -> list[Statement]:
    """All statements of a text, those inside of others (``WITH x AS (DELETE ...)``) too.

    Args:
        dialect: one of sqlglot's; empty for what most have in common.

    Raises:
        UnreadableSql: it cannot be parsed.
    """
    if len(text) > 100_000:
        raise UnreadableSql("too long")
    try:
        trees = sqlglot.parse(_shown(text), read=dialect or None)
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError):
        raise UnreadableSql("not SQL that can be parsed") from None
    return [
        statement for tree in trees if not isinstance(tree, exp.Semicolon | None) for statement in _statements(tree)
    ]


def _shown(text: str) -> str:
    """The text with what MySQL runs in a comment: ``/*!50000 DROP ... */``."""
    return re.sub(r"/\*!\d*(.*?)\*/", r" \1 ", text, flags=re.DOTALL)


def _statements(tree: exp.Expr) -> Iterator[Statement]:
    nodes = [
        tree,
        *(
            node
            for kind in (exp.Insert, exp.Update, exp.Delete, exp.Merge)
            for node in tree.find_all(kind)
            if node is not tree
        ),
    ]
    outside = any(_reaches_out(node) for node in tree.walk())
    for node in nodes:
        yield Statement(_kind(node), _tables(node), _changes_all(node), outside)


def _kind(node: exp.Expr) -> str:
    for kind, name in _KINDS:
        if isinstance(node, kind):
            return name
    if isinstance(node, exp.Query | exp.Values):
        return "insert" if node.args.get("into") else "select"
    if isinstance(node, exp.Command):
        return str(node.this).lower().split()[0] if node.this else "unknown"
    return "revoke" if type(node).__name__ == "Revoke" else type(node).__name__.lower()


def _tables(node: exp.Expr) -> tuple[str, ...]:
    names = (".".join(part.name for part in table.parts) for table in node.find_all(exp.Table))
    return tuple(dict.fromkeys(name.lower() for name in names if name))


def _changes_all(node: exp.Expr) -> bool:
    if isinstance(node, exp.TruncateTable):
        return True
    if not isinstance(node, exp.Update | exp.Delete):
        return False
    where = node.args.get("where")
    if where is None:
        return node.args.get("limit") is None
    return _always(where.this)


def _always(condition: exp.Expr) -> bool:
    """Whether a condition holds for every row."""
    try:
        simple = simplify(condition.copy())
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError):
        simple = condition
    match simple:
        case exp.Paren():
            return _always(simple.this)
        case exp.Boolean():
            return bool(simple.this)
        case exp.Literal():
            return simple.name not in ("0", "", "0.0")
        case exp.Or():
            return _always(simple.left) or _always(simple.right)
        case exp.And():
            return _always(simple.left) and _always(simple.right)
        case exp.Not():
            inner = simple.this
            return _never(inner) or (isinstance(inner, exp.Is) and isinstance(inner.expression, exp.Null))
        case exp.EQ() | exp.GTE() | exp.LTE() | exp.NullSafeEQ():
            return simple.left == simple.right
        case exp.Like() | exp.ILike():
            return isinstance(simple.expression, exp.Literal) and set(simple.expression.name) == {"%"}
        case exp.Is():
            return not isinstance(simple.expression, exp.Null) and simple.this == simple.expression
        case exp.Exists():
            return not list(simple.find_all(exp.Table))
        case exp.In():
            return any(one == simple.this for one in simple.expressions)
        case exp.GT():
            # numbers that ids never reach
            return isinstance(simple.right, exp.Neg) or (simple.right.name == "0" and "id" in simple.left.name.lower())
        case _:
            return not list(simple.find_all(exp.Column)) and not isinstance(
                simple, exp.Placeholder | exp.Parameter | exp.Subquery | exp.EQ | exp.NEQ
            )


def _never(condition: exp.Expr) -> bool:
    while isinstance(condition, exp.Paren):
        condition = condition.this
    if isinstance(condition, exp.Boolean):
        return not condition.this
    if (
        isinstance(condition, exp.EQ)
        and isinstance(condition.left, exp.Literal)
        and isinstance(condition.right, exp.Literal)
    ):
        return condition.left != condition.right
    return isinstance(condition, exp.NEQ) and condition.left == condition.right


def _reaches_out(node: exp.Expr) -> bool:
    if isinstance(node, exp.Copy | exp.LoadData | exp.Attach):
        return True
    if type(node).__name__ in ("IntoOutfile", "Into") and "outfile" in node.sql().lower():
        return True
    name = node.name if isinstance(node, exp.Anonymous) else node.sql_name() if isinstance(node, exp.Func) else ""
    return name.lower() in _FUNCTIONS


_READS = frozenset(word_list("sql_statements.reads"))
_ADDS = frozenset(word_list("sql_statements.adds"))


def risk_of_sql(text: str, *, scratch: bool = False) -> str:
    """Why a person should look at statements that a client is given, in a few words; empty for everyday ones.

    Args:
        scratch: whether the database is one for tests, in which tables may be dropped.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    meta = [line.strip() for line in lines if line.strip()[:1] in ("\\", ".")]
    if any(
        line.startswith(
            (
                "\\!",
                "\\copy",
                "\\o",
                "\\i",
                "\\w",
                "\\g |",
                ".shell",
                ".system",
                ".output",
                ".once",
                ".read",
                ".load",
                ".import",
                ".restore",
            )
        )
        and not line.startswith(("\\i ", ".read ", ".import "))
        for line in meta
    ):
        return "runs a program"
    body = "\n".join(line for line in lines if line.strip()[:1] not in ("\\", "."))
    if not body.strip():
        return ""
    try:
        statements = read_sql(body)
    except UnreadableSql:
        return "runs statements that cannot be read"
    for one in statements:
        if one.writes_file:
            return "reaches out of the database"
        if one.kind in ("drop", "truncate"):
            if not scratch:
                return "loses data"
        elif one.all_rows:
            return "changes every row"
        elif one.kind in ("grant", "revoke", "kill", "call", "execute", "exec", "do", "shutdown", "reset"):
            return "hands out access"
        elif one.kind not in _READS and one.kind not in _ADDS:
            return "runs an unusual statement"
    if any(one.kind in ("alter", "create") for one in statements) and _changes_access(body):
        return "loses data" if not scratch else ""
    return ""


def _changes_access(body: str) -> bool:
    return bool(
        re.search(
            r"\balter\s+table\b.*\b(?:drop|truncate)\b|\b(?:create|alter)\s+(?:or\s+replace\s+)?(?:user|role|login|extension|function|procedure|trigger|event|server|system|database)\b",
            body,
            re.IGNORECASE | re.DOTALL,
        )
    )
