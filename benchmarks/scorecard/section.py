"""What a section says: figures under stable names, and the tables that readers see."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from scipy.stats import binomtest

__all__ = ["Bar", "Figure", "Held", "NotMeasured", "Section", "Share", "Table"]


class NotMeasured(Exception):
    """A section cannot be measured here. The text says why, for readers of the page."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Share(_Frozen):
    """So many of so many, with Wilson's interval at 95%."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        """As a fraction; 0 of none is 0."""
        return self.hits / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with a confidence of 95%."""
        if not self.of:
            return 0.0, 1.0
        low, high = binomtest(self.hits, self.of).proportion_ci(method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        if not self.of:
            return "-"
        low, high = self.interval
        return f"{self.hits:,} of {self.of:,}: {_percent(self.value)} [{_percent(low)}, {_percent(high)}]"


def _percent(share: float) -> str:
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%"


Figure = Share | int | float
"""What was measured under one name."""

Cell = Share | int | float | str


class Table(_Frozen):
    """Rows under a head."""

    title: str = ""
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Bar(_Frozen):
    """A bar of the plot: a value with its interval."""

    label: str
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, label: str, share: Share) -> Bar:
        """The bar of a share, in percent."""
        low, high = share.interval
        return cls(label=label, value=100 * share.value, low=100 * low, high=100 * high)


class Section(_Frozen):
    """What a section found.

    Attributes:
        title: of the section, unique on the page.
        about: what was done, of what, and where the inputs are from.
        figures: by the names that goals and documents know them by.
        bars: what the plot of the section shows; ``axis`` says what they count.
        notes: what a reader should know beside the tables, such as what is left out and where a rival is better.
    """

    title: str
    about: str
    figures: dict[str, Figure]
    tables: tuple[Table, ...] = ()
    bars: tuple[Bar, ...] = ()
    axis: str = "%"
    notes: tuple[str, ...] = ()


class Held(_Frozen):
    """A section with where it was measured.

    Attributes:
        seconds: how long it took; None where it was measured before there was a scorecard.
    """

    name: str
    size: str
    date: str
    machine: str
    command: str
    seconds: float | None
    section: Section
