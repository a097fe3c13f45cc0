"""What SQL would do: the kind of each statement, its tables, and whether it changes all rows."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from stars_guard.parsing.shell_arguments import like
from stars_guard.parsing.sql_conditions import is_narrow, is_small
from stars_guard.parsing.word_lists import word_list

__all__ = ["Statement", "UnreadableSql", "is_sql", "read_sql", "risk_of_sql"]

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # it logs parts of what it cannot parse


class UnreadableSql(Exception):
    """The text is no SQL that can be read. The message holds none of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement.

    Attributes:
        kind: in lower case: ``select``, ``insert``, ``update``, ``delete``, ``create``, ``drop``, ``alter``,
            ``truncate``, ``merge``, ``grant``, ``set`` or, for all others, its first word. ``create``,
            ``set`` and ``pragma`` alone are the harmless ones: of tables, views and indexes, and of a few settings.
            Others have a second word: ``create function``, ``set role``.
        tables: the names of all tables in it, in lower case, with their schema where it is given.
        all_rows: whether it changes or removes every row, because there is no condition or one that always holds.
        writes_file: whether it reads or writes a file, or runs a program, outside of the database, or reads passwords.
        functions: names of the functions that it calls and of which it isn't known that they only compute.
    """

    kind: str
    tables: tuple[str, ...] = ()
    all_rows: bool = False
    writes_file: bool = False
    functions: tuple[str, ...] = ()


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
_FUNCTIONS = word_list("sql_statements.functions")


_LOOKS_LIKE_SQL = re.compile(
    r"(?is)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*\(*\s*(?:select\b.*(?:\bfrom\s+[\w\"`\['(]|\w\s*\()|with\s+(?:recursive\s+)?\w+[^;]*\bas\s*\(|"
    r"insert\s+(?:or\s+\w+\s+|overwrite\s+)?(?:into|table)\b|replace\s+into\b|update\s+[\w\"`.\[\]]+\s+(?:as\s+)?(?:\w+\s+)?set\s|"
    r"delete\s+from\s+[\w\"`.\[\]]+\s*(?:$|;|where\b|using\b|limit\b|as\b|returning\b)|truncate\s+(?:table\s+)?[\w\"`.]+\s*(?:;|$|cascade|restart)|"
    r"(?:drop|alter)\s+(?:table|view|schema|database|index|user|role|function|trigger|sequence|type|extension|materialized)\s+\S|"
    r"create\s+(?:or\s+replace\s+)?(?:temp\w*\s+|unique\s+|virtual\s+|foreign\s+)?(?:table|view|user|role|function|trigger|rule|extension|procedure|database)\s+[\w\"`]+\s*"
    r"(?:[;(.]|$|as\b|on\b|using\b|identified|with\b|from\b|returns|login|superuser)|"
    r"merge\s+into\s|grant\s[\w\s,*]+\bon\b.+\bto\b|grant\s+\w+\s+to\s+\w+\s*;?\s*$|revoke\s.+\bfrom\b\s+\w+\s*;?\s*$|copy\s+[\w\"(.].*\b(?:from|to)\s+(?:'|program|std)|"
    r"attach\s+(?:database\s+)?'|pragma\s+[\w.]+\s*(?:[=(;]|$)|call\s+[\w.]+\s*\(|exec(?:ute)?\s+(?:xp_|sp_|immediate)|"
    r"load\s+data\s|set\s+(?:role|global|session|persist|password)\s|explain\s+(?:\(|analyze|verbose|select|delete|update|insert|with))"
)


def is_sql(text: str) -> bool:
    """Whether a text reads like a statement rather than like prose, or one of several does."""
    return any(map(_LOOKS_LIKE_SQL.match, _shown(text).split(";"))) or bool(_INTO_FILE.search(text))


_INTO_FILE = re.compile(r"(?i)^\s*select\b.*\binto\s+(?:out|dump)file\b", re.DOTALL)


def read_sql(text: str, dialect: str = "") -> list[Statement]:
    """All statements of a text, those inside of others (``WITH x AS (DELETE ...)``) too.

    Args:
        dialect: one of sqlglot's; empty for what most have in common.

    Raises:
        UnreadableSql: it cannot be parsed.
    """
    if len(text) > 100_000:
        raise UnreadableSql("too long")
    text = _in_common(text) if not dialect else text
    found = _read(_shown(text), dialect or ("tsql" if _TOP.match(text) else ""))
    if not dialect:
        if "`" in text:  # which MySQL alone has around names
            found = [one for one in found if not one.kind.startswith("create table")]
        # what ends a text or a comment differs, and so does where a statement begins
        for other in _OTHER_READERS:
            if other.signs.search(text):
                try:
                    found += [one for one in _read(other.edited(_shown(text)), other.dialect) if one not in found]
                except UnreadableSql:
                    continue
    return found


_TOP = re.compile(r"\s*select\s+(?:distinct\s+)?top\b", re.IGNORECASE)
_SWITCH = re.compile(r"(\bpragma\s+[\w.]+\s*=\s*)(on|off)\b", re.IGNORECASE)


def _in_common(text: str) -> str:
    """The text with what the parser doesn't know of SQLite as it knows it."""
    return _SWITCH.sub(r"\1'\2'", text)


@dataclass(frozen=True, slots=True)
class _Reader:
    dialect: str
    signs: re.Pattern[str]

    def edited(self, text: str) -> str:
        # in MySQL two dashes are a comment only where a space is behind them
        return re.sub(r"--(?=\S)", "- -", text) if self.dialect == "mysql" else text


_OTHER_READERS = (
    _Reader("mysql", re.compile(r"\\|#|--\S|`|\"")),
    _Reader("postgres", re.compile(r"\$|[eE]'")),
)


def _read(text: str, dialect: str) -> list[Statement]:
    try:
        trees = sqlglot.parse(text, read=dialect or None)
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError):
        raise UnreadableSql("not SQL that can be parsed") from None
    found = []
    for tree in trees:
        if not isinstance(tree, exp.Semicolon | None):
            inner = _explained(tree)
            found += [*_statements(tree), *(_read(inner, dialect) if inner else ())]
    return found


def _explained(tree: exp.Expr) -> str:
    """The statement that ``EXPLAIN ANALYZE`` runs; empty where nothing runs."""
    if not isinstance(tree, exp.Command) or str(tree.this).lower() not in ("explain", "profile", "prepare"):
        return ""
    said = tree.expression.name if isinstance(tree.expression, exp.Expr) else str(tree.expression or "")
    if match := re.match(
        r"\s*(?:\(([^)]*)\)|((?:analyze|analyse|verbose|extended|partitions|query|plan|for)\b\s*)*)", said, re.I
    ):
        options = (match[1] or match[0] or "").lower()
        return said[match.end() :].strip() if re.search(r"analy[sz]e", options) else ""
    return ""


def _shown(text: str) -> str:
    """The text with what MySQL and MariaDB run in a comment: ``/*!50000 DROP ... */``."""
    return re.sub(r"/\*M?!\d*(.*?)\*/", r" \1 ", text, flags=re.DOTALL)


def _statements(tree: exp.Expr) -> Iterator[Statement]:
    nodes = [
        tree,
        *(
            node
            for kind in (exp.Insert, exp.Update, exp.Delete, exp.Merge)
            for node in tree.find_all(kind)
            if node is not tree and not isinstance(node.parent, exp.When)
        ),
    ]
    inside = [*tree.walk()]
    outside = any(map(_reaches_out, inside))
    functions = tuple(sorted({name for node in inside if (name := _unknown_function(node))}))
    for node in nodes:
        tables = _tables(node)
        yield Statement(
            kind=_kind(node),
            tables=tables,
            all_rows=_changes_all(node),
            writes_file=outside or _touches_system(node, tables),
            functions=functions,
        )


_SECRET_TABLES = word_list("sql_statements.secret_tables")
_SYSTEM_TABLES = word_list("sql_statements.system_tables")


def _touches_system(node: exp.Expr, tables: tuple[str, ...]) -> bool:
    """Whether it reads where passwords are, reads a file as a table, or changes tables that the database lives on."""
    changes = isinstance(node, exp.Insert | exp.Update | exp.Delete | exp.Merge | exp.Create | exp.Drop | exp.Alter)
    return any(
        like(table, _SECRET_TABLES) or "/" in table or "\\" in table or (changes and like(table, _SYSTEM_TABLES))
        for table in tables
    )


_PURE = word_list("sql_statements.pure")


def _unknown_function(node: exp.Expr) -> str:
    """The name of a function that may do more than compute; empty for all others."""
    if not isinstance(node, exp.Anonymous | exp.AnonymousAggFunc | exp.UserDefinedFunction) or isinstance(
        node.parent, exp.Pragma
    ):
        return ""
    name = node.name.lower()
    return "" if like(name, _PURE) else name or "?"


def _kind(node: exp.Expr) -> str:
    for kind, name in _KINDS:
        if isinstance(node, kind):
            return " ".join(filter(None, (name, _more(node))))
    if isinstance(node, exp.Query | exp.Values):
        return "insert" if node.args.get("into") else "select"
    if isinstance(node, exp.Command):
        return _kind_of_command(node)
    return "revoke" if type(node).__name__ == "Revoke" else type(node).__name__.lower()


_CREATED = frozenset({"table", "view", "index", "schema", "sequence", "type", "temporary table", "materialized view"})
_SETTINGS = word_list("sql_statements.settings")
_PRAGMAS = word_list("sql_statements.pragmas")
_PLAIN_PROPERTIES = (
    exp.TemporaryProperty, exp.EngineProperty, exp.CharacterSetProperty, exp.CollateProperty, exp.SchemaCommentProperty,
    exp.AutoIncrementProperty, exp.MaterializedProperty, exp.UnloggedProperty, exp.WithSchemaBindingProperty,
    exp.StrictProperty, exp.PartitionedByProperty, exp.SqlSecurityProperty,
)  # fmt: skip


def _more(node: exp.Expr) -> str:
    """The second word of a statement's kind; empty for the everyday ones."""
    match node:
        case exp.Create():
            kind = str(node.args.get("kind") or "?").lower()
            if kind == "table" and node.args.get("replace"):
                return "or replace table"
            properties = node.args.get("properties")
            plain = all(isinstance(one, _PLAIN_PROPERTIES) for one in (properties.expressions if properties else ()))
            engines = [one.name.lower() for one in node.find_all(exp.EngineProperty)]
            if not plain or any(engine not in ("innodb", "myisam", "memory", "aria") for engine in engines):
                return "with properties"
            return "" if kind in _CREATED else kind
        case exp.Set():
            names = [item.sql().lower() for item in node.expressions]
            return (
                ""
                if names and all(like(re.sub(r"^(?:local|session) ", "", name), _SETTINGS) for name in names)
                else "?"
            )
        case exp.Pragma():
            said = re.sub(
                r"^\w+\.", "", (node.this.sql() if isinstance(node.this, exp.Expr) else str(node.this)).lower()
            )
            return "" if like(said, _PRAGMAS) else "?"
        case exp.Describe():
            style = str(node.args.get("style") or "").lower()
            return "analyze" if "analy" in style and not isinstance(node.this, exp.Query) else ""
        case exp.Insert():
            return "overwrite" if node.args.get("overwrite") else ""
        case _:
            return ""


_SHORT_COMMANDS = frozenset(
    {"show", "explain", "analyze", "vacuum", "begin", "start", "end", "savepoint", "release", "help"}
)


def _kind_of_command(node: exp.Command) -> str:
    """What the parser has no tree for: its first word for what only shows, and two words for all else."""
    first = str(node.this).lower().split()[0] if node.this else "unknown"
    said = node.expression.name if isinstance(node.expression, exp.Expr) else str(node.expression or "")
    second = re.sub(r"[^\w ]", " ", said.lower()).split()[:2]
    if first == "set" and like(re.sub(r"^(?:local|session) ", "", said.strip().lower()), _SETTINGS):
        return "set"
    if first == "vacuum" and "into" in said.lower():
        return "vacuum into"
    return first if first in _SHORT_COMMANDS else " ".join([first, *second])


def _tables(node: exp.Expr) -> tuple[str, ...]:
    names = (".".join(part.name for part in table.parts) for table in node.find_all(exp.Table))
    return tuple(dict.fromkeys(name.lower() for name in names if name))


def _changes_all(node: exp.Expr) -> bool:
    if isinstance(node, exp.TruncateTable):
        return True
    if isinstance(node, exp.Merge):
        by_source = any(when.args.get("source") for when in node.find_all(exp.When))
        removes = any(when.args.get("then") == exp.Var(this="DELETE") for when in node.find_all(exp.When))
        return removes or by_source
    if isinstance(node, exp.Insert):
        return bool(node.args.get("overwrite"))
    if not isinstance(node, exp.Update | exp.Delete):
        return False
    where = node.args.get("where")
    return not is_small(node.args.get("limit")) and (where is None or not is_narrow(where.this))


def _reaches_out(node: exp.Expr) -> bool:
    if isinstance(node, exp.Copy | exp.LoadData | exp.Attach):
        return True
    if type(node).__name__ in ("IntoOutfile", "Into") and "outfile" in node.sql().lower():
        return True
    name = node.name if isinstance(node, exp.Anonymous) else node.sql_name() if isinstance(node, exp.Func) else ""
    return like(name.lower(), _FUNCTIONS)


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
        elif (one.kind not in _READS and one.kind not in _ADDS) or one.functions:
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
