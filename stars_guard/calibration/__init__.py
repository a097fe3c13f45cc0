"""From unguarded answers to a policy's numbers."""

__all__: list[str] = []
