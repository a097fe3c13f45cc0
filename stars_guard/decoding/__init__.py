"""The pure core: what to draw next, and what to make of what was drawn."""

from stars_guard.decoding.cutting import SegmentCutter, releasable
from stars_guard.decoding.factory import make_decoder
from stars_guard.decoding.protocol import Decoder, Done, Draw, Judged, Method, OnExhausted, Outcome, Settings

__all__ = [
    "Decoder",
    "Done",
    "Draw",
    "Judged",
    "Method",
    "OnExhausted",
    "Outcome",
    "SegmentCutter",
    "Settings",
    "make_decoder",
    "releasable",
]
