"""Languages that the arguments of tool calls are written in: commands, SQL, paths, URLs and bits of code.

Everything here is pure. It reads texts and says what they would do, as far as that can be said without running them.
What cannot be said is marked as unknown, and whoever judges decides what that means.
"""

__all__ = []
