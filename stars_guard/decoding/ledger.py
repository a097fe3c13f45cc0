"""What every decoder keeps account of: tokens, segments and the answer's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stars_guard.core.events import Ended, Kept, Rewound, Totals
from stars_guard.core.segments import Candidate
from stars_guard.core.vocabulary import RewindWhy
from stars_guard.decoding.protocol import Done, Generate, Judged
from stars_guard.decoding.rewinding import Back, Standing
from stars_guard.decoding.settings import Settings
from stars_guard.errors import ProtocolError

__all__ = ["Ledger", "affordable", "may_go_back", "spare"]


def affordable(settings: Settings, *, limit: int, attempt: int, generated: int, kept: int) -> int:
    """How many more candidates the attempts and the budget allow for a segment.

    Args:
        limit: tokens of each.
        attempt: how many the segment has had.
        generated: tokens that the call has generated so far, all counted.
        kept: tokens of the answer so far.
    """
    left = settings.attempts_at(kept) - attempt
    if settings.budget_tokens is None:
        return left
    return min(left, max(0, settings.budget_tokens - generated) // limit)


def spare(settings: Settings, *, limit: int, attempt: int, generated: int, kept: int) -> int:
    """The same, so many that each later segment can still have a candidate of its own."""
    later = settings.max_tokens - kept - limit
    return affordable(settings, limit=limit, attempt=attempt, generated=generated + later, kept=kept)


def may_go_back(settings: Settings, *, rewinds: int, limit: int, generated: int, left: int) -> bool:
    """Whether an answer may go back: the policy's rewinds are not used up, and an answer can still be paid for.

    Args:
        rewinds: how often it went back before.
        limit: tokens of the segment after it.
        left: tokens of the answer that stay.
    """
    if settings.monitor or rewinds >= settings.rewinds:
        return False
    return spare(settings, limit=limit, attempt=0, generated=generated, kept=left) >= 1


class Ledger:
    """Shared bookkeeping. In ``totals``, these sums are equal:
    ``drawn == kept + rejected + surplus + overrun + rewound``.

    Attributes:
        standing: the segments that are in the answer.
        held: characters at the answer's end that are not released.
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.seed = seed
        self.segment = 0
        self.attempt = 0
        self.totals = Totals()
        self.standing = Standing()
        self.held = 0
        self.done: Done | None = None
        self.outstanding: Generate | None = None

    @property
    def kept_tokens(self) -> int:
        """Length of the answer so far."""
        return self.totals.kept

    def affordable(self, limit: int) -> int:
        """How many more candidates of ``limit`` tokens this segment can have."""
        at = {"attempt": self.attempt, "generated": self.totals.drawn, "kept": self.kept_tokens}
        return affordable(self.settings, limit=limit, **at)

    def spare(self, limit: int) -> int:
        """The same, so many that each later segment can still have a candidate of its own."""
        at = {"attempt": self.attempt, "generated": self.totals.drawn, "kept": self.kept_tokens}
        return spare(self.settings, limit=limit, **at)

    def stretch(self, limit: int, width: int) -> int:
        """How many tokens past the limit each of ``width`` candidates may take: the rest of the answer and budget."""
        if not self.settings.stretch:
            return 0
        rest = self.settings.max_tokens - self.kept_tokens
        if self.settings.budget_tokens is not None:
            rest = min(rest, (self.settings.budget_tokens - self.totals.drawn) // width)
        return rest - limit

    def claim(self, judged: Sequence[Judged]) -> Generate:
        """Check that ``judged`` answers the last plan, count what was generated, and close the plan."""
        plan = self.outstanding
        if plan is None or len(judged) != len(plan.seeds):
            wanted = "no candidate was planned" if plan is None else f"{len(plan.seeds)} candidates were planned"
            raise ProtocolError(f"{wanted}, {len(judged)} were handed in")
        for candidate, _ in judged:
            if not 0 < len(candidate) <= plan.limit + plan.stretch:
                most = plan.limit + plan.stretch
                raise ProtocolError(f"a candidate has {len(candidate)} tokens; 1 to {most} were planned")
        self.outstanding = None
        self.attempt += len(judged)
        self.totals = replace(
            self.totals,
            proposals=self.totals.proposals + len(judged),
            drawn=self.totals.drawn + sum(len(candidate) for candidate, _ in judged),
        )
        return plan

    def charge(self, tokens: int) -> None:
        """Count tokens that were generated past a boundary and thrown away. A plan made before is void: it may now cost
        more than there is."""
        self.outstanding = None
        self.totals = replace(self.totals, drawn=self.totals.drawn + tokens, overrun=self.totals.overrun + tokens)

    def reject(self, candidate: Candidate) -> None:
        """Count a candidate that was decided against."""
        self.totals = replace(
            self.totals,
            rejected=self.totals.rejected + len(candidate),
            rejections=self.totals.rejections + 1,
        )

    def pass_over(self, candidate: Candidate) -> None:
        """Count a candidate that was not decided on."""
        self.totals = replace(self.totals, surplus=self.totals.surplus + len(candidate))

    def keep(
        self, candidate: Candidate, kept: Kept, *, was_rejected: bool = False, reward_before: float | None = None
    ) -> Kept:
        """Make a candidate part of the answer and go to the next segment.

        Args:
            reward_before: r(x, y) of the answer before it; None when it is not known.
        """
        self.standing.add(self.segment, candidate, reward_before)
        self.totals = replace(
            self.totals,
            kept=self.totals.kept + len(candidate),
            rejected=self.totals.rejected - (len(candidate) if was_rejected else 0),
            segments=self.totals.segments + 1,
        )
        self._next()
        if candidate.finish is not None:
            self.done = Done(candidate.finish)
        elif self.kept_tokens >= self.settings.max_tokens:
            self.done = Done("length")
        return kept

    def go_back(self, back: Back, why: RewindWhy, reason: str) -> tuple[Rewound, float | None]:
        """Take back what was kept, and go to the next segment.

        Returns:
            What to tell, and the reward of the answer before the first segment of which something was taken back.
        """
        told = Rewound(
            segment=self.segment,
            to=back.to,
            left=back.left,
            place=back.place,
            tokens=back.tokens,
            why=why,
            reason=reason,
        )
        self.held -= self.standing.characters - back.place
        reward = self.standing.cut(back)
        self.totals = replace(
            self.totals,
            kept=self.totals.kept - back.tokens,
            rewound=self.totals.rewound + back.tokens,
            rewinds=self.totals.rewinds + 1,
            segments=len(self.standing),
        )
        self._next()
        return told, reward

    def _next(self) -> None:
        self.segment += 1
        self.attempt = 0

    def exhaust(self, reason: str) -> Ended:
        """End the answer because nothing can be kept, as ``on_exhausted`` says; ``best`` without a best refuses."""
        match self.settings.on_exhausted:
            case "raise":
                self.done = Done("raised", reason)
                return Ended(segment=self.segment, action="raise", reason=reason)
            case "stop":
                self.done = Done("stopped", reason)
                return Ended(segment=self.segment, action="stop", reason=reason)
            case "best" | "refuse":
                self.done = Done("refused", reason)
                return Ended(segment=self.segment, action="refuse", reason=reason)

    def out_of_budget(self) -> Done:
        """The end when not even one candidate for a new segment can be paid for. What was kept stays."""
        reason = f"the call's {self.settings.budget_tokens} tokens are spent"
        match "stop" if self.settings.monitor else self.settings.on_exhausted:
            case "raise":
                self.done = Done("raised", reason)
            case "refuse":
                self.done = Done("refused", reason)
            case "best" | "stop":
                self.done = Done("budget", reason)
        return self.done
