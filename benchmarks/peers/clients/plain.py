"""No guardrail: the model's stream."""

from __future__ import annotations

from common import completions, run

run(completions)
