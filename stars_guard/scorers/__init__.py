"""Judges."""

from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.cascade import Cascade, Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.sequence_classifier import SequenceClassifierScorer

__all__ = [
    "Cascade",
    "Judge",
    "Pattern",
    "PatternScorer",
    "Rating",
    "Scorer",
    "SequenceClassifierScorer",
]
