"""Loading Hugging Face models without progress bars of their own on the user's terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

_lock = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars; they are as before afterwards. One thread at a time."""
    from transformers.utils import logging

    with _lock:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()
