"""What all decoding methods have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, cast

from stars_guard.core.events import Decision, Kept, Totals
from stars_guard.core.judging import Judgement
from stars_guard.core.segments import Candidate
from stars_guard.core.step_costs import WidthCost
from stars_guard.core.vocabulary import KeptHow, Verdict
from stars_guard.decoding.ledger import Ledger
from stars_guard.decoding.methods import Method, method_of
from stars_guard.decoding.parts import PartOptions
from stars_guard.decoding.protocol import Done, Generate, Judged, Outcome
from stars_guard.decoding.randomness import derive_seed
from stars_guard.decoding.settings import Settings
from stars_guard.decoding.verdict import Decided
from stars_guard.decoding.width import ALONE, AcceptanceRate
from stars_guard.errors import ProtocolError

__all__ = ["Decoder", "Tried", "decoder_of", "make_decoder"]


class Tried(NamedTuple):
    """A candidate that has been judged."""

    attempt: int
    candidate: Candidate
    judgement: Judgement

    @property
    def worth(self) -> float:
        """Its reward, for comparing."""
        return float("-inf") if self.judgement.reward is None else self.judgement.reward


class Decoder(Method):
    """A decoding method, for one call. A package names its own in the entry points ``stars_guard.methods``.

    Args:
        seed: everything random in the call follows from it.
        rate: what other calls of the policy have seen of acceptance, for ``parallel: auto``; this call adds to it.
    """

    def __init__(self, settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> None:
        self.settings = settings
        self.ledger = Ledger(settings, seed)
        self.rate = rate or AcceptanceRate()
        self.prompt_reward: float | None = None
        self._begun = False

    @property
    def needs_judgement(self) -> bool:
        """Whether candidates must be judged at all."""
        return self.decides != "none"

    @property
    def needs_prompt_reward(self) -> bool:
        """Whether `begin` wants r(x, "")."""
        return False

    @property
    def totals(self) -> Totals:
        """The cost so far."""
        return self.ledger.totals

    @classmethod
    def limit(cls, settings: Settings, kept: int) -> int:
        """Where the next segment's boundary is, in tokens, when ``kept`` tokens are in the answer."""
        return min(settings.segment_tokens, settings.max_tokens - kept)

    def begin(self, prompt_reward: float | None) -> None:
        """Start.

        Args:
            prompt_reward: r(x, ""); None when it is not known.
        """
        if self._begun:
            raise ProtocolError("the decoder has begun already")
        self._begun = True
        self.prompt_reward = prompt_reward

    def hold(self, characters: int) -> None:
        """Say how many characters at the end of the answer so far are not released, so that it may go back over them.
        None are held before this is called."""
        self.ledger.held = characters

    def charge(self, tokens: int) -> None:
        """Count tokens that were generated past a boundary and thrown away. What `plan` said before is void."""
        self.ledger.charge(tokens)

    def plan(self, cost: WidthCost = ALONE) -> Generate | Done:
        """What to do next. Asking again without deciding gives the same answer.

        Args:
            cost: of a width, for ``parallel: auto``; see `StepCosts.shared`.
        """
        if not self._begun:
            raise ProtocolError("begin() comes before plan()")
        ledger = self.ledger
        if ledger.done is not None:
            return ledger.done
        if ledger.outstanding is not None:
            return ledger.outstanding
        limit = self.limit(self.settings, ledger.kept_tokens)
        if ledger.affordable(limit) < 1:
            return ledger.out_of_budget()
        width = self._width(limit, cost)
        recovery = self.settings.is_recovery(ledger.attempt)
        ahead = range(ledger.attempt, ledger.attempt + width)
        # all of one source
        width = next((n for n, at in enumerate(ahead) if self.settings.is_recovery(at) != recovery), width)
        ledger.outstanding = Generate(
            segment=ledger.segment,
            attempt=ledger.attempt,
            seeds=tuple(derive_seed(ledger.seed, ledger.segment, ledger.attempt + i) for i in range(width)),
            limit=limit,
            cut_entropy=self.settings.entropy_threshold if self.needs_entropy else None,
            stretch=ledger.stretch(limit, width),
            recovery=recovery,
        )
        return ledger.outstanding

    @abstractmethod
    def _width(self, limit: int, cost: WidthCost) -> int:
        """How many candidates to generate at once, at most `Ledger.affordable`, which is 1 or more."""

    @abstractmethod
    def decide(self, judged: Sequence[Judged]) -> Outcome:
        """Decide on what was generated for the last plan.

        Raises:
            ProtocolError: nothing was to be generated, or the number of candidates is not that of the seeds. The
                state is then unchanged.
        """

    def _decision(self, tried: Tried, verdict: Verdict, reason: str, decided: Decided | None = None) -> Decision:
        """One on a candidate of this segment; ``decided`` where it was held against a threshold."""
        return Decision(
            segment=self.ledger.segment,
            attempt=tried.attempt,
            candidate=tried.candidate,
            judgement=tried.judgement,
            verdict=verdict,
            reason=reason,
            threshold=decided.threshold if decided else None,
            probability=decided.probability if decided else None,
            u=decided.u if decided else None,
            recovery=self.settings.is_recovery(tried.attempt),
        )

    def _kept(
        self, tried: Tried, how: KeptHow, *, was_rejected: bool = False, reward_before: float | None = None
    ) -> Kept:
        """Make a candidate part of the answer."""
        kept = Kept(segment=self.ledger.segment, attempt=tried.attempt, how=how)
        return self.ledger.keep(tried.candidate, kept, was_rejected=was_rejected, reward_before=reward_before)


def decoder_of(said: str | PartOptions) -> type[Decoder]:
    """The method that a policy names. Raises what `Parts.get` does."""
    return cast("type[Decoder]", method_of(said))


def make_decoder(settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> Decoder:
    """A fresh decoder for one call. The arguments are those of `Decoder`."""
    return decoder_of(settings.method)(settings, seed, rate)
