"""Does it work? Methods side by side on one engine, with the same judges and real prompts: ``make eval``."""
