"""What a decoder, which decides, and a driver, which generates and asks the judges, say to each other.

    decoder.begin(prompt_reward)
    while isinstance(step := decoder.plan(), Generate):
        outcome = decoder.decide([(candidate, judgement) for each of step.seeds, in order])

Nothing here does I/O, reads a clock or makes a random number of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from stars_guard.core.events import Decision, Ended, Kept, Rewound
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.core.vocabulary import AnswerFinish

__all__ = ["Done", "Generate", "Judged", "Outcome"]

Judged = tuple[Candidate, Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """Generate one candidate for each seed, from the prefix of all kept segments.

    Attributes:
        segment: number of the segment in the call, from 0. After a rewind, the next segment has the next number.
        attempt: number of the first candidate among those of its segment, from 0; the others follow.
        limit: where the segment's boundary is, in tokens.
        cut_entropy: the boundary is also before the first token, from the fifth on, whose entropy is at least this.
        stretch: how many tokens past the limit a candidate may take to the end of what must not be cut.
        recovery: whether they are generated under the policy's recovery instruction.
    """

    segment: int
    attempt: int
    seeds: tuple[int, ...]
    limit: int
    cut_entropy: float | None = None
    stretch: int = 0
    recovery: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over."""

    finish: AnswerFinish
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was decided.

    Attributes:
        decisions: in order of attempts. Best-of methods decide on a candidate when it loses, so some of those that
            were judged may be decided on later.
        end: the segment's end, or None when more candidates must be generated for it.
        retain: attempts that may yet be kept. The driver holds on to them and lets all others go.
    """

    decisions: tuple[Decision, ...]
    end: Kept | Ended | Rewound | None = None
    retain: frozenset[int] = frozenset()
