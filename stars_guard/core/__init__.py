"""Values, events, judging and the closed vocabularies. No I/O; every other room imports from here."""

__all__: list[str] = []
