"""What generates: the seam, and one module for each engine."""

from stars_guard.backends.base import Backend, LoadableBackend, OpenRequest, Proposal, Session
from stars_guard.backends.registry import BACKENDS

__all__ = ["BACKENDS", "Backend", "LoadableBackend", "OpenRequest", "Proposal", "Session"]
