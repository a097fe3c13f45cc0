"""Whether a condition picks out rows, or holds for all of them.

A condition that always holds can be written in endless ways, so they are not listed. What counts is the other side: a
condition is narrow where one of the few forms is in it that pick rows out, such as a column that equals a value. All
else, a subselect of everything included, is taken to hold for every row.
"""

from __future__ import annotations

import re

from sqlglot import exp

__all__ = ["is_narrow", "is_small"]

_MOST_ROWS = 1000
_SHORT_INTERVALS = {"year": 20, "quarter": 80, "month": 240, "week": 1000, "day": 7300, "hour": 175_200}
_NOW = frozenset({"now", "getdate", "sysdate", "current_timestamp", "datetime", "date", "timestamp", "curdate"})


def is_small(limit: exp.Expr | None) -> bool:
    """Whether a limit lets only few rows through."""
    number = _number(limit.expression) if isinstance(limit, exp.Limit) else None
    return number is not None and number <= _MOST_ROWS


def is_narrow(condition: exp.Expr | None) -> bool:
    """Whether a condition picks out rows in a way that is known."""
    match condition:
        case exp.Paren():
            return is_narrow(condition.this)
        case exp.And():
            return is_narrow(condition.left) or is_narrow(condition.right) or _is_a_window(condition)
        case exp.Or():
            branches = [*condition.flatten()]
            return all(map(is_narrow, branches)) and not _fill_up(branches)
        case exp.EQ() | exp.NullSafeEQ():
            pairs = ((condition.left, condition.right), (condition.right, condition.left))
            return any(_is_column(one) and _is_value(other) for one, other in pairs)
        case exp.In():
            return _is_column(condition.this) and _is_short_list(condition)
        case exp.Is():
            is_value = isinstance(condition.expression, exp.Null | exp.Boolean)
            return _is_column(condition.this) and is_value
        case exp.Like() | exp.ILike():
            return _is_column(condition.this) and _is_a_beginning(condition.expression)
        case exp.Between():
            return _is_column(condition.this) and _is_short_range(condition.args["low"], condition.args["high"])
        case exp.GT() | exp.GTE():
            return _bounds(condition.left, condition.right, upper=False)
        case exp.LT() | exp.LTE():
            return _bounds(condition.left, condition.right, upper=True)
        case exp.Exists():
            return _is_narrow_query(condition.this)
        case _:
            return False


def _is_a_window(condition: exp.And) -> bool:
    """``id > 5 AND id < 9``."""
    low = next((one for one in condition.flatten() if isinstance(one, exp.GT | exp.GTE)), None)
    high = next((one for one in condition.flatten() if isinstance(one, exp.LT | exp.LTE)), None)
    if low is None or high is None or low.left != high.left or not _is_column(low.left):
        return False
    return _is_short_range(low.right, high.right)


def _fill_up(branches: list[exp.Expr]) -> bool:
    """Whether comparisons of the same column, put together, may leave nothing out: ``a < 5 OR a >= 5``."""
    seen: set[str] = set()
    for one in branches:
        bounds = one.find_all(exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.Between)
        columns = {column.sql() for bound in bounds for column in bound.find_all(exp.Column)}
        if columns & seen:
            return True
        seen |= columns
    return False


def _is_column(node: exp.Expr) -> bool:
    while isinstance(node, exp.Paren | exp.Lower | exp.Upper | exp.Trim | exp.Date | exp.TsOrDsToDate | exp.Cast):
        node = node.this
    return isinstance(node, exp.Column) and node.name.lower() not in ("true", "false") and not _is_parameter(node)


def _is_parameter(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and bool(re.fullmatch(r"[$@:]\w+", node.name))


def _is_value(node: exp.Expr) -> bool:
    """Whether it is one value, which depends on no row."""
    if isinstance(node, exp.Subquery | exp.Select):
        return _is_narrow_query(node)
    if _is_parameter(node) or _is_quoted_text(node):
        return True
    if node.find(exp.Column, exp.Query) is not None:
        return False
    return not isinstance(node, exp.Any | exp.All | exp.Null | exp.Array)


def _is_quoted_text(node: exp.Expr) -> bool:
    """MySQL and SQLite take ``"x"`` for a text where there is no such column."""
    return (
        isinstance(node, exp.Column) and not node.table and isinstance(node.this, exp.Identifier) and node.this.quoted
    )


def _is_short_list(node: exp.In) -> bool:
    query = node.args.get("query")
    if query is not None:
        return _is_narrow_query(query)
    values = node.expressions
    return 0 < len(values) <= _MOST_ROWS and all(map(_is_value, values)) and not node.args.get("unnest")


def _is_narrow_query(node: exp.Expr) -> bool:
    query = node.unnest()
    if not isinstance(query, exp.Select) or query.args.get("from_") is None:
        return False
    where = query.args.get("where")
    limited = is_small(query.args.get("limit")) and not _has_outer_columns(query)
    return limited or (where is not None and is_narrow(where.this) and not _has_outer_columns(query))


def _has_outer_columns(query: exp.Select) -> bool:
    """Whether it may read a column of the statement around it, so that it holds for every row: ``SELECT t.id``."""
    names = {table.alias_or_name.lower() for table in query.find_all(exp.Table)}
    return any(column.table and column.table.lower() not in names for column in query.find_all(exp.Column))


def _is_a_beginning(node: exp.Expr) -> bool:
    if isinstance(node, exp.Escape):
        node = node.this
    if not isinstance(node, exp.Literal):
        return isinstance(node, exp.Placeholder | exp.Parameter)
    letters = re.sub(r"[%_\\]", "", node.name)
    return bool(letters) and (node.name[0] not in "%_" or len(letters) >= 3)


def _number(node: exp.Expr | None) -> float | None:
    try:
        if isinstance(node, exp.Neg):
            return -float(node.this.name)
        if isinstance(node, exp.Literal) and not node.is_string:
            return float(node.name)
    except ValueError:
        return None
    return None


def _is_short_range(low: exp.Expr, high: exp.Expr) -> bool:
    numbers = _number(low), _number(high)
    if numbers[0] is not None and numbers[1] is not None:
        return 0 <= numbers[1] - numbers[0] <= _MOST_ROWS
    return all(_is_value(end) and not _is_extreme(end) for end in (low, high)) and numbers == (None, None)


def _bounds(column: exp.Expr, value: exp.Expr, *, upper: bool) -> bool:
    """Whether an inequality leaves something out: one of a number that ids and amounts reach, or of a time."""
    if not _is_column(column):
        return _is_column(value) and _bounds(value, column, upper=not upper)
    number = _number(value)
    if number is not None:
        is_key = bool(re.search(r"(?:^|_)(?:id|key|rowid|ctid|oid|rownum|seq|no)$|Id$|ID$", column.name))
        return not is_key and (number > 1 if not upper else number <= 10_000)
    if isinstance(value, exp.Placeholder | exp.Parameter):
        return True
    return _is_a_time(value) and not _is_extreme(value)


def _is_a_time(node: exp.Expr) -> bool:
    if isinstance(node, exp.Literal):
        return bool(re.match(r"\d{4}-\d\d", node.name))
    if isinstance(node, exp.Cast | exp.Paren):
        return _is_a_time(node.this)
    if isinstance(node, exp.Sub | exp.DateSub | exp.DatetimeSub | exp.TimestampSub):
        return _is_a_time(node.this)
    if isinstance(node, exp.CurrentTimestamp | exp.CurrentDate | exp.CurrentDatetime | exp.CurrentTime):
        return True
    if isinstance(node, exp.Date | exp.TsOrDsToDate):
        return node.find(exp.Literal) is not None and node.find(exp.Column) is None
    name = node.name if isinstance(node, exp.Anonymous) else node.sql_name() if isinstance(node, exp.Func) else ""
    return name.lower() in _NOW and node.find(exp.Column) is None


def _is_extreme(node: exp.Expr) -> bool:
    """A time before or after all that a table may hold."""
    for literal in node.find_all(exp.Literal):
        year = re.match(r"(\d{4,})-\d\d", literal.name)
        if year and not 1990 <= int(year[1]) <= 2060:
            return True
        if (told := re.fullmatch(r"[-+]?\s*(\d+)\s*(\w+?)s?", literal.name.strip())) and _is_long(told[1], told[2]):
            return True
    for interval in node.find_all(exp.Interval, exp.DateSub, exp.DatetimeSub, exp.TimestampSub):
        amount = interval.this if isinstance(interval, exp.Interval) else interval.expression
        if not isinstance(amount, exp.Literal | exp.Interval):
            return True
        unit = str(interval.args.get("unit") or "")
        if isinstance(amount, exp.Literal) and amount.name.isdigit() and _is_long(amount.name, unit):
            return True
    return False


def _is_long(amount: str, unit: str) -> bool:
    most = _SHORT_INTERVALS.get(unit.lower().rstrip("s"))
    return int(amount) > most if most is not None else unit.lower().rstrip("s") in ("decade", "century", "millennium")
