"""From settings to a decoder: the one table of methods."""

from __future__ import annotations

from dataclasses import replace

from stars_guard.decoding.baselines import BestOfK, Vanilla
from stars_guard.decoding.protocol import Decoder, Settings
from stars_guard.decoding.rejection import RejectionSampler

__all__ = ["make_decoder"]


def make_decoder(settings: Settings, seed: int) -> Decoder:
    """A fresh decoder for one call.

    Args:
        seed: everything random in the call follows from it.
    """
    match settings.method:
        case "stars":
            return RejectionSampler(replace(settings, entropy_threshold=None), seed)
        case "cards":
            return RejectionSampler(settings, seed)
        case "vanilla":
            return Vanilla(settings, seed)
        case "best_of_n":
            return BestOfK(replace(settings, segment_tokens=settings.max_tokens), seed)
        case "blockwise_best_of_k":
            return BestOfK(settings, seed)
