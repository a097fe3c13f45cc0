"""One guarded call: its parts assembled, its loop driven, its rails checked, its telemetry."""

__all__: list[str] = []
