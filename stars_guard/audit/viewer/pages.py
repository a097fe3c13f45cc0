"""The templates, and what all of them know. Every text of a record is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, get_args
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from stars_guard.audit._query import Filter, Place
from stars_guard.audit.record import CallRecord, Segment, ShadowAttempt
from stars_guard.audit.viewer.charts import compact

__all__ = ["asset", "load", "query_of", "render"]

_FIELDS = CallRecord.model_fields
_FINISHES = [value for part in get_args(_FIELDS["finish"].annotation) for value in get_args(part)]
_STAGES = get_args(_FIELDS["stage"].annotation)
_GOOD = {"eos", "stop", "length", "passed"}


def load() -> None:
    """Read all templates, style sheets and scripts, so that later no request waits for a file."""
    environment = _environment()
    for template in environment.list_templates():
        environment.get_template(template)
    for file in files(__package__).joinpath("static").iterdir():
        asset(file.name)


def render(template: str, **values: Any) -> str:
    """A page."""
    return _environment().get_template(template).render(**values)


@cache
def asset(name: str) -> str:
    """A style sheet or script of the package."""
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def query_of(wanted: Filter, typed: Mapping[str, str], before: Place | None = None) -> str:
    """The query of an address for a filter, with times as they were typed."""
    values: dict[str, Any] = {name: value for name, value in asdict(wanted).items() if value}
    values |= {name: typed[name] for name in ("since", "until") if typed.get(name)}
    if wanted.rejected:
        values["rejected"] = "1"
    if before is not None:
        values |= {"before": before[0], "before_id": before[1]}
    return urlencode(values)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("stars_guard.audit.viewer"),
        auto_reload=False,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"compact": compact, "moment": _moment, "number": _number, "quote": lambda text: quote(text, "")}
    made.globals |= {
        "finishes": _FINISHES,
        "stages": _STAGES,
        "tone": _tone,
        "tries": _tries,
        "rejected_before": _rejected,
        "parts": _parts,
        "verdict_of": _verdict_of,
    }
    return made


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        # a list of a database shows what someone has written there by hand
        return text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _tone(finish: str) -> str:
    return "good" if finish in _GOOD else "bad" if finish in ("refused", "failed", "raised") else "fair"


def _tries(segment: Segment) -> list[Any]:
    """The candidates that are not in the answer."""
    return [attempt for attempt in segment.attempts if attempt.attempt != segment.kept]


def _parts(standing: Mapping[int, tuple[int, int]], segment: Segment) -> tuple[str, str]:
    """The text of a segment's kept candidate, as far as it is on record: what is in the answer, and what was taken back
    of it."""
    kept = segment.kept_attempt
    text = kept.text.text or "" if kept is not None else ""
    _, characters = standing.get(segment.index, (0, 0))
    return text[:characters], text[characters:]


def _verdict_of(record: CallRecord, row: ShadowAttempt) -> str:
    """What was decided about a candidate."""
    attempts = (attempt for segment in record.segments if segment.index == row.segment for attempt in segment.attempts)
    return next((attempt.verdict for attempt in attempts if attempt.attempt == row.attempt), "")


def _rejected(record: CallRecord) -> int:
    return sum(attempt.verdict == "rejected" for segment in record.segments for attempt in segment.attempts)
