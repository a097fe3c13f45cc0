"""The audit log as pages: served on the spot, or written to one file."""

from stars_guard.audit.viewer.report import report

__all__ = ["report"]
