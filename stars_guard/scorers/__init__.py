"""Judges. Each scorer lives in a file of its own, with its options; import it from there."""

from stars_guard.scorers.base import Find, Rating, Scorer
from stars_guard.scorers.cascade import Cascade, Judge
from stars_guard.scorers.options import JudgeOptions, Loosening, Strict

__all__ = [
    "Cascade",
    "Find",
    "Judge",
    "JudgeOptions",
    "Loosening",
    "Rating",
    "Scorer",
    "Strict",
]
