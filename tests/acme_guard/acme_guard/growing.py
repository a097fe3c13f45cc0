"""A method whose segments begin short and grow with the answer."""

from typing import ClassVar

from pydantic import Field

from stars_guard.decoding import PartOptions, RejectionSampler, Settings


class GrowingOptions(PartOptions):
    """The options of the method, which a policy writes beside its name."""

    first: int = Field(4, ge=1, description="tokens of the first segment")


class Growing(RejectionSampler):
    """STARS whose next segment is as long as the answer so far, up to segment_tokens."""

    options_model = GrowingOptions
    whole: ClassVar[str | None] = "stars"

    @classmethod
    def limit(cls, settings: Settings, kept: int) -> int:
        first = GrowingOptions.of(settings.method).first
        return min(max(first, kept), super().limit(settings, kept))
