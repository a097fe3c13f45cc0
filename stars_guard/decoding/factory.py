"""From settings to a decoder: the one table of methods."""

from __future__ import annotations

from dataclasses import replace

from stars_guard.decoding.baselines import BestOfK, Vanilla
from stars_guard.decoding.protocol import Decoder, Settings
from stars_guard.decoding.rejection import RejectionSampler
from stars_guard.decoding.width import AcceptanceRate

__all__ = ["make_decoder"]


def make_decoder(settings: Settings, seed: int, rate: AcceptanceRate | None = None) -> Decoder:
    """A fresh decoder for one call.

    Args:
        seed: everything random in the call follows from it.
        rate: what other calls of the policy have seen of acceptance, for ``parallel: auto``; this call adds to it.
    """
    match settings.method:
        case "stars":
            return RejectionSampler(replace(settings, entropy_threshold=None), seed, rate)
        case "cards":
            return RejectionSampler(settings, seed, rate)
        case "vanilla":
            return Vanilla(settings, seed)
        case "best_of_n":
            return BestOfK(replace(settings, segment_tokens=settings.max_tokens), seed)
        case "blockwise_best_of_k":
            return BestOfK(settings, seed)
