"""Whether judges that are asked in doubt fit the judge on whose doubt they depend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from stars_guard.core.nearest import did_you_mean
from stars_guard.scorers.options import Ask, JudgeOptions

__all__ = ["check_doubt"]


def check_doubt(judges: Sequence[JudgeOptions]) -> None:
    """Check the ``ask`` of each judge of one list.

    Raises:
        ValidationError: where something is wrong, at the key where it is.
    """
    problems: list[InitErrorDetails] = []
    for index, judge in enumerate(judges):
        for key, text in _problems(judge, index, judges) if judge.in_doubt is not None else ():
            error = PydanticCustomError("doubt", "{text}", {"text": text})
            problems.append(InitErrorDetails(type=error, loc=(index, "ask", key), input=None))
    if problems:
        raise ValidationError.from_exception_data("judges", problems)


def _problems(judge: JudgeOptions, index: int, judges: Sequence[JudgeOptions]) -> Iterator[tuple[str, str]]:
    """Keys of a judge's ``ask``, and what is wrong there."""
    ask = judge.in_doubt
    assert ask is not None  # noqa: S101
    places = {other.name: place for place, other in enumerate(judges)}
    if ask.when not in places:
        meant = did_you_mean(ask.when, (name for name in places if name != judge.name))
        yield "when", f"there is no judge {ask.when!r} beside it" + (f"; {meant}" if meant else "")
        return
    other = judges[places[ask.when]]
    if places[ask.when] >= index:
        yield "when", f"judge {ask.when!r} must come before the judge that is asked when it is in doubt"
    elif other.in_doubt is not None:
        yield "when", f"judge {ask.when!r} is not always asked itself: name a judge without ask"
    elif not other.sees_everything and other.scope != judge.scope:
        yield "when", f"judge {ask.when!r} sees another part of the text: give both the same scope"
    elif other.every != 1 and (other.every, other.asked_last) != (judge.every, judge.asked_last):
        yield "when", f"judge {ask.when!r} is asked at other segments: give both the same every and final"
    elif judge.weight is not None and other.weight is None:
        yield (
            "when",
            (
                f"judge {judge.name!r} has a weight, so where it isn't asked another reward stands for its own: give "
                f"{ask.when!r} a weight too (0 if it counts only there), or leave out the weight here"
            ),
        )
    else:
        yield from _open_sides(judge, ask, other)


def _open_sides(judge: JudgeOptions, ask: Ask, other: JudgeOptions) -> Iterator[tuple[str, str]]:
    """Ends of the band beyond which the other judge may find a text bad and let it pass, while nobody else is asked."""
    if judge.reject_above is None and judge.ask_above is None:
        return  # it has no veto that could be missing
    vetoes = other.reject_above is not None or other.ask_above is not None
    # the reward's direction; where a weight is 0, that of the judge for which the score stands
    sign = (other.weight or judge.weight or 0.0) if other.weight is not None else 0.0
    limit = other.reject_above
    if ask.below is not None and (vetoes or sign < 0) and (limit is None or ask.below < limit):
        said = "rejects nothing" if limit is None else f"rejects above {limit:g} only"
        least = "" if limit is None else ", or give at least that number"
        yield (
            "below",
            (
                f"high scores of judge {other.name!r} are bad and it {said}, so what is above this would pass unasked: "
                f"leave it out{least}"
            ),
        )
    if ask.above is not None and sign > 0:
        yield (
            "above",
            (
                f"low scores of judge {other.name!r} are bad and it doesn't reject them, so what it finds worst would "
                "pass unasked: leave out above"
            ),
        )
    if not vetoes and not sign and ask.above is not None and ask.below is not None:
        yield (
            "above",
            (
                f"judge {other.name!r} rejects nothing and has the weight 0, so nobody knows which scores are bad, and "
                "these would pass unasked: leave out above or below, on the side where texts are bad"
            ),
        )
