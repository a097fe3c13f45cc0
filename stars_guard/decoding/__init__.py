"""The pure core: what to draw next, and what to make of what was drawn."""

from stars_guard.decoding.acceptance import Step
from stars_guard.decoding.cutting import SegmentCutter, releasable
from stars_guard.decoding.factory import make_decoder
from stars_guard.decoding.protocol import Decoder, Done, Draw, Judged, Outcome, Settings
from stars_guard.decoding.width import AcceptanceRate, shared_row_cost

__all__ = [
    "AcceptanceRate",
    "Decoder",
    "Done",
    "Draw",
    "Judged",
    "Outcome",
    "SegmentCutter",
    "Settings",
    "Step",
    "make_decoder",
    "releasable",
    "shared_row_cost",
]
