"""Counting calls in a database: the same answers as `stars_guard.audit.stats` gives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, case, cast, func, select

from stars_guard.audit._query import Filter
from stars_guard.audit._sql_query import conditions
from stars_guard.audit._tables import attempts, blames, calls
from stars_guard.audit.stats import (
    LAST_INDEX,
    Cell,
    Cost,
    IndexCount,
    JudgeCount,
    Stats,
    bin_width,
    bucket_seconds,
)

__all__ = ["count_rows"]

_TOKENS = ("proposals", "rejections", "drawn", "kept", "rejected", "surplus", "overrun")
_LAST = 253_402_214_400.0
"""Seconds from 1970 to the last day that there is."""

_Where = list[ColumnElement[bool]]


def count_rows(connection: Connection, wanted: Filter) -> Stats:
    """Add up the wanted calls."""
    where = conditions(wanted, connection.dialect.name)
    span = connection.execute(select(func.min(calls.c.started), func.max(calls.c.started)).where(*where)).one()
    first, last = (_moment(when or 0.0) for when in span)
    bucket = bucket_seconds(first, last)
    number = func.count()
    policy, stretch = calls.c.policy, cast(func.floor(calls.c.started / bucket), BigInteger)
    if connection.dialect.name == "sqlite":
        # a cast to INTEGER cuts off, as floor does of a time after 1970, and SQLite may lack floor
        stretch = cast(calls.c.started / bucket, BigInteger)
    finishes = select(calls.c.finish, number).where(*where).group_by(calls.c.finish)
    by_judge = select(blames.c.judge, func.sum(blames.c.vetoes), func.sum(blames.c.low_reward))
    judges = by_judge.join_from(blames, calls, blames.c.call == calls.c.id).where(*where).group_by(blames.c.judge)
    by_index, width, cells = _by_index(connection, where)
    return Stats(
        total=next(iter(_costs(connection, where, None)), Cost("")),
        finishes=tuple(sorted(((row[0], row[1]) for row in connection.execute(finishes)), key=lambda r: (-r[1], r[0]))),
        judges=tuple(
            sorted(
                (
                    JudgeCount(judge, vetoes=int(vetoes), low_reward=int(low))
                    for judge, vetoes, low in connection.execute(judges)
                ),
                key=lambda found: (-found.vetoes - found.low_reward, found.judge),
            )
        ),
        policies=tuple(sorted(_costs(connection, where, policy), key=lambda cost: (-cost.calls, cost.name))),
        bucket=bucket,
        times=tuple(
            sorted((_renamed(cost, bucket) for cost in _costs(connection, where, stretch)), key=lambda cost: cost.name)
        ),
        by_index=by_index,
        width=width,
        cells=cells,
    )


def _costs(connection: Connection, where: _Where, by: ColumnElement[Any] | None) -> list[Cost]:
    columns = [func.count(), *(func.sum(calls.c[name]) for name in _TOKENS)]
    columns += [func.sum(calls.c.seconds), func.max(calls.c.seconds)]
    query = select(*columns).where(*where)
    if by is not None:
        query = query.add_columns(by).group_by(by)
    return [_cost(row, "" if by is None else str(row[-1])) for row in connection.execute(query) if row[0]]


def _cost(row: Row[Any], name: str) -> Cost:
    seconds, slowest = row[len(_TOKENS) + 1 : len(_TOKENS) + 3]
    sums = {token: int(row[at]) for at, token in enumerate(_TOKENS, start=1)}
    return Cost(name=name, calls=row[0], **sums, seconds=seconds, slowest=slowest)


def _renamed(cost: Cost, bucket: int) -> Cost:
    return replace(cost, name=_moment(int(cost.name) * bucket).isoformat())


def _moment(seconds: float) -> datetime:
    """A time in UTC. What is beyond the calendar was not written by us, and `verify` says so; counting goes on."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST), UTC)


def _by_index(connection: Connection, where: _Where) -> tuple[tuple[IndexCount, ...], float, tuple[Cell, ...]]:
    index = case((attempts.c.segment > LAST_INDEX, LAST_INDEX), else_=attempts.c.segment).label("place")
    accepted, rejected = (
        func.sum(case((attempts.c.verdict == verdict, 1), else_=0)) for verdict in ("accepted", "rejected")
    )
    decided = (attempts.c.verdict != "surplus", *where)
    joined = attempts.join(calls, attempts.c.call == calls.c.id) if where else attempts
    by_place = (
        select(
            index,
            accepted,
            rejected,
            func.avg(attempts.c.threshold),
            func.min(attempts.c.reward),
            func.max(attempts.c.reward),
        )
        .select_from(joined)
        .where(*decided)
        .group_by(index)
    )
    rows = sorted(tuple(row) for row in connection.execute(by_place))
    by_index = tuple(
        IndexCount(place, accepted=int(yes), rejected=int(no), threshold=tau) for place, yes, no, tau, _, _ in rows
    )
    lows, highs = ([row[at] for row in rows if row[at] is not None] for at in (4, 5))
    if not lows:
        return by_index, 0.0, ()
    width = bin_width(min(lows), max(highs))
    ratio = attempts.c.reward / width
    bin_: ColumnElement[int]
    if connection.dialect.name == "sqlite":
        cut = cast(ratio, BigInteger)
        bin_ = case((ratio < cut, cut - 1), else_=cut)
    else:
        bin_ = cast(func.floor(ratio), BigInteger)
    bin_ = bin_.label("bin")
    by_bin = select(index, bin_, accepted, rejected).select_from(joined)
    by_bin = by_bin.where(*decided, attempts.c.reward.is_not(None)).group_by(index, bin_)
    cells = tuple(
        Cell(place, low * width, accepted=int(yes), rejected=int(no))
        for place, low, yes, no in sorted(tuple(row) for row in connection.execute(by_bin))
    )
    return by_index, width, cells
