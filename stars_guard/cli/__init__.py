"""The ``stars-guard`` command."""

from stars_guard.cli.app import main

__all__ = ["main"]
