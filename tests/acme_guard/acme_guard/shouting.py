"""A judge that finds shouting."""

from collections.abc import Sequence

from pydantic import Field

from stars_guard import JudgeOptions, Passage, Rating, Scorer


class ShoutingOptions(JudgeOptions):
    """Shouting: the share of capital letters among the letters of the answer."""

    letters: int = Field(12, ge=1, description="fewer letters than this are never shouting")
    reject_above: float | None = Field(0.7, ge=0, description="a larger share of capitals vetoes")

    async def load(self) -> Scorer:
        return ShoutingScorer(self.letters)


class ShoutingScorer(Scorer):
    """Scores an answer from 0 (no capital letter) to 1 (nothing else)."""

    cost = 0.01

    def __init__(self, letters: int) -> None:
        self.identity = {"kind": "acme/shouting", "letters": str(letters)}
        self._letters = letters

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [self._rate(passage.answer) for passage in passages]

    def _rate(self, answer: str) -> Rating:
        letters = [character for character in answer if character.isalpha()]
        if len(letters) < self._letters:
            return Rating(0.0)
        return Rating(sum(letter.isupper() for letter in letters) / len(letters))
