"""Keeping what libraries print away from what a command shows."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

__all__ = ["libraries_kept_quiet"]


@contextmanager
def libraries_kept_quiet() -> Iterator[None]:
    """Keep back what arrives on the error stream: loading bars, warnings, logs, also those of native code and children.

    If the block fails, what was kept back is printed then, because it may say why.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as kept:
        sys.stderr.flush()
        ours = os.dup(2)
        try:
            with redirect_stderr(kept):
                os.dup2(kept.fileno(), 2)
                try:
                    yield
                finally:
                    kept.flush()
                    os.dup2(ours, 2)
        except Exception:
            # whoever wrote to the descriptor moved its end, and not that of our file
            kept.seek(0)
            sys.stderr.write(kept.read())
            raise
        finally:
            os.close(ours)
