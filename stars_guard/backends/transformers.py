"""A Hugging Face causal language model on CPU or GPU, shared by many calls in lockstep.

Every live proposal of every call is one row of a batch that advances one token a step (`_lockstep`). A session's
accepted prefix stays in the key-value cache (`_slots`): a rejection sets a row's length back, an acceptance lets the
row go on, and other rows copy only the part that they lack (`_lanes`). Nothing is prefilled twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from stars_guard.backends._lanes import LaneSession
from stars_guard.backends._lockstep import Lockstep
from stars_guard.backends._slots import SlotModel, check_attention, check_layers, check_slots
from stars_guard.backends._states import FinalStates
from stars_guard.backends._token_sessions import TokenBackend
from stars_guard.backends.base import OpenRequest
from stars_guard.core.directions import Directions
from stars_guard.core.vocabulary import NumberType
from stars_guard.engines.checkpoints import Installed, directory_of, fingerprint, installed_probes
from stars_guard.engines.loading import check_device, end_ids, load_config, loading, own_code
from stars_guard.engines.machine import number_type
from stars_guard.engines.options import Plain
from stars_guard.errors import BackendError, MissingExtra
from stars_guard.prompting.chat_templates import give_template, shown_template
from stars_guard.prompting.detokenizer import decoder
from stars_guard.prompting.prompt import Prompt

if TYPE_CHECKING:
    from stars_guard.backends._grammar import Compiler

__all__ = ["TransformersBackend", "TransformersOptions"]


class TransformersOptions(BaseModel):
    """How the model is loaded.

    Attributes:
        dtype: of the weights. The default is bfloat16 on a GPU and float32 on the CPU.
        device: torch's name of it. The default is ``cuda`` where there is one.
        revision: of the model on the hub.
        chat_template: for a model that has none, or in the place of its own: the path of a file with a Jinja template,
            the text of one, or ``plain``, which writes each message under its role's name.
        chat_template_kwargs: variables of the model's chat template, such as ``enable_thinking``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Annotated[NumberType, Plain] | None = None
    device: str | None = None
    revision: str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)


class TransformersBackend(TokenBackend[TransformersOptions]):
    """One causal language model. Make it with `load`."""

    options_model = TransformersOptions
    auto_rank = 1

    def __init__(
        self, model: Any, tokenizer: Any, identity: dict[str, str], installed: Installed | None = None
    ) -> None:
        import torch

        super().__init__()
        config = model.config.get_text_config()
        self.identity = identity
        self.reproducible = model.dtype == torch.float32
        self.eos_ids = end_ids(model.generation_config, model.config, config, tokenizer)
        self.tokenizer = tokenizer
        self.decode = decoder(tokenizer)
        self.slots = SlotModel(model)
        self.states = FinalStates(model)
        self.lockstep = Lockstep(self.slots, self.states, installed.ids if installed else ())
        self.context = self.slots.context
        self._vocabulary_size = int(config.vocab_size)
        self._checkpoint = ""

    @classmethod
    async def load(
        cls,
        model: str,
        options: TransformersOptions = TransformersOptions(),  # noqa: B008
    ) -> TransformersBackend:
        """Load a model directory or hub name.

        Raises:
            InputError: there is no such device here, or the model has no chat template and none was given.
            BackendError: there is no such model, it cannot be loaded, or its layers cannot keep what they have read.
            MissingExtra: torch or transformers is not installed.
        """
        return await asyncio.to_thread(cls._load, model, options)

    @classmethod
    def _load(cls, model: str, options: TransformersOptions) -> TransformersBackend:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            from stars_guard.engines.attention import use_grouped
        except ImportError as exc:
            raise MissingExtra("the transformers backend", "transformers") from exc
        device = options.device
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        check_device(device)
        dtype = number_type(options.dtype, device, model)
        hint = "pass a Hugging Face directory or name, or 'embedded' for the built-in small model"
        with loading(f"the model {model!r}", BackendError, hint=hint):
            tokenizer = AutoTokenizer.from_pretrained(model, **own_code(options.revision))
            ends = give_template(tokenizer, options.chat_template, model)
            # before the weights, which take long
            config = load_config(model, options.revision)
            check_layers(config)
            check_attention(config)
            loaded = AutoModelForCausalLM.from_pretrained(
                model,
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation="sdpa",
                **own_code(options.revision),
            )
            loaded = loaded.to(device).eval()
        identity = {
            "engine": "transformers",
            "model": model,
            "revision": options.revision or "",
            "dtype": dtype,
            "config_sha256": hashlib.sha256(loaded.config.to_json_string().encode()).hexdigest(),
        }
        use_grouped(loaded)
        check_slots(loaded)
        made = cls(loaded, tokenizer, identity, installed_probes(Path(model)))
        made.eos_ids |= ends
        made.use_template(options.chat_template_kwargs, shown_template(options.chat_template, tokenizer))
        return made

    @cached_property
    def grammars(self) -> Compiler:
        """Of this model's tokenizer."""
        from stars_guard.backends._grammar import Compiler

        return Compiler(self.tokenizer, self._vocabulary_size, self.eos_ids)

    async def check_directions(self, directions: Sequence[Directions]) -> None:
        if directions:
            self._checkpoint = self._checkpoint or await asyncio.to_thread(self._fingerprint)
            self.states.check(directions, self._checkpoint)

    def _fingerprint(self) -> str:
        return fingerprint(directory_of(self.identity["model"], self.identity["revision"] or None))

    async def _open(self, request: OpenRequest) -> LaneSession:
        ask, tools, grammar = request.messages, request.tools, request.grammar
        settings = self.template_settings(request)
        prompt = await self.slots.run(partial(Prompt.of, self.tokenizer, ask, self.context, tools, grammar, settings))
        begin = None
        if (rules := prompt.grammar) is not None:
            compiled = await asyncio.to_thread(lambda: self.grammars.compile(rules))
            begin = partial(self.grammars.begin, compiled)
        session = LaneSession(
            prompt,
            request,
            decoder(self.tokenizer, prompt.shown) if prompt.shown else self.decode,
            slots=self.slots,
            eos_ids=self.eos_ids,
            begin=begin,
            join=self.lockstep.join,
        )
        try:
            if not request.lazy:
                await session.prefill()
        except BaseException:
            await session.aclose()
            raise
        return session

    async def _free(self) -> None:
        await self.slots.aclose()
        await self.lockstep.aclose()
        self.states.close()
