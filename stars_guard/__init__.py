"""A guardrail that works while the model writes: STARS decoding under a policy, with an audit record."""

from stars_guard.errors import StarsGuardError

__all__ = ["StarsGuardError", "__version__"]

__version__ = "0.1.0"
