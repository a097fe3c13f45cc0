"""The prompt formats of published guard models."""

from stars_guard.prompting.guard_formats.formats import GuardFormat, guard_format, presets

__all__ = ["GuardFormat", "guard_format", "presets"]
