"""The decoding methods by name. Policy, schema and record take the names from here.

To add a method, write a class that says its name: ``class Mine(Decoder, method="mine")``.
"""

from __future__ import annotations

__all__ = ["METHODS"]

METHODS: dict[str, type] = {}
"""Each is a `stars_guard.decoding.decoder.Decoder`, which enters itself."""
