"""The protocol between a decoder, which decides, and a driver, which draws and asks the judges.

    decoder.begin(prompt_reward)
    while isinstance(step := decoder.plan(), Draw):
        outcome = decoder.decide(what was drawn for step.seeds, judged, in order)

Nothing here does I/O, reads a clock or makes a random number of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from stars_guard.core.events import Decision, Ended, Kept, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.core.vocabulary import Acceptance, AnswerFinish, Method, OnExhausted, Schedule
from stars_guard.decoding.acceptance import Step
from stars_guard.decoding.width import ALONE

__all__ = ["Decoder", "Done", "Draw", "Judged", "Outcome", "Settings"]

Judged = tuple[Candidate, Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The numbers of a method. Rewards, thresholds and beta are in the reward model's own unit.

    Attributes:
        segment_tokens: B; in CARDS the longest segment.
        max_tokens: T, the longest answer.
        attempts: N proposals a segment; k of the best-of methods.
        thresholds: of the schedule ``learned``, by growing tokens; at least one there, none elsewhere.
        entropy_threshold: CARDS cuts before a token whose entropy in nats is at least this, from the fifth of a segment
            on. The entropy is of the model's own distribution, before temperature and truncation.
        parallel: proposals drawn at once.
        budget_tokens: the most tokens that a call may draw, all counted; None for no limit.
        monitor: decide as always, and let everything through.
        stretch: let a segment run past B tokens, up to T, where it would be cut inside a tool call.
        optimistic: let a proposal run on past its boundary while it is judged, where the engine can. Without effect
            under ``budget_tokens``.
    """

    method: Method = "stars"
    segment_tokens: int = 16
    max_tokens: int = 512
    attempts: int = 8
    alpha: float = 0.5
    beta: float = 0.3
    r_star: float = 0.0
    schedule: Schedule = "linear"
    thresholds: tuple[Step, ...] = ()
    acceptance: Acceptance = "gibbs"
    parallel: int | Literal["auto"] = "auto"
    on_exhausted: OnExhausted = "best"
    budget_tokens: int | None = None
    entropy_threshold: float | None = None
    monitor: bool = False
    stretch: bool = False
    optimistic: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Draw one proposal a seed, from the prefix of all kept segments.

    Attributes:
        attempt: index of the first proposal; the others follow.
        limit: where the segment's boundary is, in tokens.
        cut_entropy: the boundary is also before the first token, from the fifth on, whose entropy is at least this.
        stretch: how many tokens past the limit a proposal may take to the end of what must not be cut.
    """

    segment: int
    attempt: int
    seeds: tuple[int, ...]
    limit: int
    cut_entropy: float | None = None
    stretch: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is over."""

    finish: AnswerFinish
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was decided.

    Attributes:
        decisions: in order of attempts. Best-of methods decide on a proposal when it loses, so not all of a draw
            need be here.
        end: the segment's end, or None while it must be drawn again.
        retain: attempts that may yet be kept: the driver holds on to them and lets all others go.
    """

    decisions: tuple[Decision, ...]
    end: Kept | Ended | None = None
    retain: frozenset[int] = frozenset()


class Decoder(Protocol):
    """A decoding method, for one call."""

    @property
    def needs_judgement(self) -> bool:
        """Whether candidates must be judged at all."""

    @property
    def needs_prompt_reward(self) -> bool:
        """Whether `begin` wants r(x, "")."""

    @property
    def needs_entropy(self) -> bool:
        """Whether tokens must carry their entropy."""

    @property
    def totals(self) -> Totals:
        """The cost so far."""

    def begin(self, prompt_reward: float | None) -> None:
        """Start; None when the prompt's reward could not be had."""

    def charge(self, tokens: int) -> None:
        """Count tokens that were drawn past a boundary and thrown away. What `plan` said before is void."""

    def plan(self, row_cost: float = ALONE) -> Draw | Done:
        """What to do next. Asking again without deciding gives the same answer.

        Args:
            row_cost: what one more proposal costs, as a share of drawing one; ``parallel: auto`` weighs it.
        """

    def decide(self, judged: Sequence[Judged]) -> Outcome:
        """Decide on what was drawn for the last plan.

        Raises:
            ProtocolError: nothing was to be drawn, or the number of candidates is not that of the seeds. The state
                is then unchanged.
        """
