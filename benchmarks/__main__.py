"""``python -m benchmarks [NAME ...]``: run all benchmarks or those named."""

from __future__ import annotations

import sys
from importlib import import_module

from stars_guard.calling import portal

NAMES = ("vllm_backend", "transformers_backend", "exactness", "profile", "lockstep", "judges", "rails", "audit")

for name in sys.argv[1:] or NAMES:
    portal.call(import_module(f"benchmarks.{name}").main)
