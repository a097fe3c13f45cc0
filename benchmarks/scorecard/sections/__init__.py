"""One module a section, each with ``measure(size) -> Section``."""
