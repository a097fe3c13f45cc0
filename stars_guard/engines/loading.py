"""Reading tokenizers, configurations and weights of Hugging Face, with errors of the caller's kind."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stars_guard.errors import BackendError, InputError, MissingExtra, ScorerError, StarsGuardError
from stars_guard.prompting.chat_templates import give_template

__all__ = [
    "Vocabulary",
    "check_device",
    "end_ids",
    "load_config",
    "load_judge",
    "load_tokenizer",
    "load_vocabulary",
    "loading",
    "own_code",
    "quiet",
]

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


def check_device(device: str) -> None:
    """Whether torch can put a model there.

    Raises:
        InputError: it is no device of torch, or this machine has none of that name.
    """
    import torch

    try:
        made = torch.device(device)
        if made.type == "meta":
            raise InputError("the device 'meta' holds no numbers", hint=_devices())
        torch.empty(1, device=made)
    except InputError:
        raise
    except Exception as exc:  # torch raises RuntimeError, AssertionError, NotImplementedError, ...
        raise InputError(f"the device {device!r} can't be used: {type(exc).__name__}", hint=_devices()) from exc


def _devices() -> str:
    import torch

    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        found.append("mps")
    return f"this machine has {', '.join(found)}"


@contextmanager
def loading(
    what: str, error: type[StarsGuardError], *, hint: str = "pass a Hugging Face directory or name"
) -> Iterator[None]:
    """Load with transformers: without its progress bars, and with failures as the caller's ``error``.

    Args:
        what: is loaded, as the message names it, such as ``the model 'x'``.

    Raises:
        StarsGuardError: of the kind ``error``; it names the failure's type, as its text may be of any length.
    """
    try:
        with quiet():
            yield
    except StarsGuardError:
        raise
    except Exception as exc:
        raise error(f"cannot load {what}: {type(exc).__name__}", hint=hint) from exc


def load_tokenizer(
    model: str,
    revision: str | None,
    error: type[StarsGuardError],
    *,
    what: str,
    feature: str,
    extra: str = "transformers",
    hint: str = "pass a Hugging Face directory or name",
) -> tuple[Any, Any]:
    """A model's tokenizer and its configuration. Blocks.

    Args:
        what: is loaded, such as ``the judge model``; the message adds the model's name.
        feature: what needs transformers, and ``extra`` what installs it.

    Raises:
        StarsGuardError: of the kind ``error``; there is no such model.
        MissingExtra: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as exc:
        raise MissingExtra(feature, extra) from exc
    with loading(f"{what} {model!r}", error, hint=hint):
        return AutoTokenizer.from_pretrained(model, **own_code(revision)), load_config(model, revision)


def own_code(revision: str | None) -> dict[str, Any]:
    """What every loader of transformers is given, so that a model's files bring no code of their own.

    Without the word ``False`` transformers asks at the terminal whether it should run a model's code.
    """
    return {"revision": revision, "trust_remote_code": False}


def load_config(model: str, revision: str | None = None, config_class: Any = None) -> Any:
    """A model's configuration. Blocks.

    Args:
        config_class: of transformers; by default the one that the model's files name.

    Raises:
        ValueError: it asks for an attention kernel of a hub's repository, which is code.
    """
    from transformers import AutoConfig

    config = (config_class or AutoConfig).from_pretrained(model, **own_code(revision))
    parts = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ())]
    for part, kind in itertools.product(parts, ("_attn_implementation", "_experts_implementation")):
        if "/" in str(getattr(part, kind, None)):
            raise ValueError(f"the model's {kind.strip('_')} is code of another repository")
    return config


def load_judge(model_class: Any, model: str, revision: str | None, dtype: Any, *, config_class: Any = None) -> Any:
    """A judge's model, all of whose weights are in its checkpoint. Blocks.

    transformers fills what is missing with random numbers, which would give scores that mean nothing.

    Args:
        model_class: of transformers, or derived from one of its classes.
        config_class: as `load_config` takes it.

    Raises:
        ScorerError: the checkpoint lacks weights.
    """
    config = load_config(model, revision, config_class)
    loaded, info = model_class.from_pretrained(
        model, config=config, dtype=dtype, output_loading_info=True, **own_code(revision)
    )
    if missing := sorted(info["missing_keys"]):
        raise ScorerError(
            f"the checkpoint of the judge model {model!r} has no weights for {', '.join(missing[:3])}",
            hint="it is another kind of model",
        )
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What an engine that takes and gives token ids must know of its model. `load_vocabulary` makes one.

    Attributes:
        tokenizer: of Hugging Face.
        eos_ids: tokens that end an answer.
        context: positions that the model has.
    """

    tokenizer: Any
    eos_ids: frozenset[int]
    context: int


def load_vocabulary(model: str, revision: str | None = None, chat_template: str | None = None) -> Vocabulary:
    """From a directory or hub name. Blocks.

    Args:
        chat_template: as `give_template` takes it.

    Raises:
        InputError: the model has no chat template and none was given.
        BackendError: there is no such model.
        MissingExtra: transformers is not installed.
    """
    tokenizer, config = load_tokenizer(
        model,
        revision,
        BackendError,
        what="the tokenizer of",
        feature="reading the model's tokenizer",
        hint="pass a Hugging Face directory or name, or set the option tokenizer",
    )
    ends = give_template(tokenizer, chat_template, model)
    from transformers import GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:
        generation = None
    text = config.get_text_config()
    return Vocabulary(
        tokenizer=tokenizer,
        eos_ids=end_ids(generation, config, text, tokenizer) | ends,
        context=text.max_position_embeddings,
    )


def end_ids(*sources: Any) -> frozenset[int]:
    """Tokens that end an answer: all that any of a model's files names, because they often disagree.

    Args:
        sources: the generation config, the model's configs and the tokenizer; None for one that is not there.
    """
    found: set[int] = set()
    for source in sources:
        eos = getattr(source, "eos_token_id", None)
        found.update([eos] if isinstance(eos, int) else eos or [])
    return frozenset(found)
