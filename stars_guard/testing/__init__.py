"""Test doubles, for tests of policies and plugins: yours and ours."""

from stars_guard.testing.function_scorer import FunctionScorer
from stars_guard.testing.scripted import Script, ScriptedBackend

__all__ = ["FunctionScorer", "Script", "ScriptedBackend"]
