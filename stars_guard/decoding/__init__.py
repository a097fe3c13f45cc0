"""The pure core: what to generate next, and what to make of it."""

from stars_guard.decoding.acceptance import ACCEPTANCE, AcceptanceRule
from stars_guard.decoding.answer_text import AnswerText, Piece
from stars_guard.decoding.baselines import BestOfK, BestOfN, Vanilla
from stars_guard.decoding.cutting import SegmentCutter
from stars_guard.decoding.decoder import Decoder, decoder_of, make_decoder
from stars_guard.decoding.methods import METHODS
from stars_guard.decoding.parts import PartOptions, Parts, name_of, name_written
from stars_guard.decoding.protocol import Done, Generate, Judged, Outcome
from stars_guard.decoding.rejection import Cards, RejectionSampler
from stars_guard.decoding.schedules import SCHEDULES, Numbers, Progress, Schedule, Threshold
from stars_guard.decoding.settings import PARTS, STEPWISE, Decoding, Recovery, Settings, UpTo
from stars_guard.decoding.width import AcceptanceRate, best_width

__all__ = [
    "ACCEPTANCE",
    "METHODS",
    "PARTS",
    "SCHEDULES",
    "STEPWISE",
    "AcceptanceRate",
    "AcceptanceRule",
    "AnswerText",
    "BestOfK",
    "BestOfN",
    "Cards",
    "Decoder",
    "Decoding",
    "Done",
    "Generate",
    "Judged",
    "Numbers",
    "Outcome",
    "PartOptions",
    "Parts",
    "Piece",
    "Progress",
    "Recovery",
    "RejectionSampler",
    "Schedule",
    "SegmentCutter",
    "Settings",
    "Threshold",
    "UpTo",
    "Vanilla",
    "best_width",
    "decoder_of",
    "make_decoder",
    "name_of",
    "name_written",
]
