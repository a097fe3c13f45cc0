"""In which language a text is written, found on this machine. Needs the extra ``languages``."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

from stars_guard.errors import MissingExtra

__all__ = ["language_of", "need_detector"]

SURE = 0.1
"""The probability, over all languages, from which a guess counts. A greeting of one word has less."""


def need_detector() -> None:
    """See that languages can be detected here.

    Raises:
        MissingExtra: the detector isn't installed.
    """
    if importlib.util.find_spec("py3langid") is None:
        raise MissingExtra("choosing the refusal by the user's language", "languages")


def language_of(text: str) -> str | None:
    """The language of a text, as the part of its tag before a hyphen, such as ``de``; None where it is not clear.

    Blocks, and the first time for a second or two, because it then reads the detector's model.

    Raises:
        MissingExtra: the detector isn't installed.
    """
    need_detector()
    language, probability = _detector().classify(text)
    return str(language) if probability >= SURE else None


@cache
def _detector() -> Any:
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
