"""Reading the log: verify it, replay a call, ask what another policy would have decided."""

__all__: list[str] = []
