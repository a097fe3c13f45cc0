"""``python -m stars_guard`` is the command ``stars-guard``."""

from stars_guard.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
