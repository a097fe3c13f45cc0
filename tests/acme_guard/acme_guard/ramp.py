"""A schedule that asks for more and more."""

from typing import ClassVar

from pydantic import Field

from stars_guard.decoding import Numbers, Progress, Schedule


class Ramp(Schedule):
    """From r_star - drop at the beginning of the answer to r_star after so many tokens."""

    needs_prompt_reward: ClassVar[bool] = False

    drop: float = Field(1.0, ge=0, description="how much less the first token needs, in units of the reward")
    tokens: int = Field(64, ge=1, description="from this token of the answer on, r_star is asked for")

    def threshold(self, numbers: Numbers, at: Progress) -> float:
        return numbers.r_star - self.drop * max(0.0, 1.0 - at.tokens / self.tokens)
