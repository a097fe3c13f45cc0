"""Qwen3Guard-Stream, whose own code does not run on transformers 5: Qwen3 with heads that rate each token.

Source: QwenLM/Qwen3Guard, eval/eval_stream.py, for the order of the levels and categories. The names and shapes of the
heads are those of the checkpoint's modeling code, as ports of it for SGLang and vLLM have them. A head is a linear
layer, a norm, and a linear layer for each question. One pair of heads rates what the user asks, the other the answer.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from stars_guard.engines.loading import load_judge

__all__ = ["CATEGORIES", "LEVELS", "load_qwen3guard_stream"]

LEVELS = ("Safe", "Unsafe", "Controversial")
CATEGORIES = (
    "Violent",
    "Sexual Content or Sexual Acts",
    "Suicide & Self-Harm",
    "Politically Sensitive Topics",
    "PII",
    "Copyright Violation",
    "Non-violent Illegal Acts",
    "Unethical Acts",
    "Jailbreak",
)
"""The last one is for what users ask only."""


def load_qwen3guard_stream(model: str, revision: str | None, dtype: Any) -> Any:
    """From a directory or hub name. Blocks. None of the checkpoint's own code is run.

    Raises:
        ScorerError: weights are missing.
    """
    from transformers import Qwen3Config

    return load_judge(stream_class(), model, revision, dtype, config_class=Qwen3Config)


@cache
def stream_class() -> Any:
    """The model's class, which needs torch."""
    from torch.nn import Linear
    from transformers import Qwen3Model, Qwen3PreTrainedModel
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    class Qwen3GuardStream(Qwen3PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = Qwen3Model(config)
            inner = config.guard_inner_size
            self.risk_level_category_pre = Linear(config.hidden_size, inner, bias=False)
            self.risk_level_category_layernorm = Qwen3RMSNorm(inner, eps=config.rms_norm_eps)
            self.risk_level_head = Linear(inner, config.num_risk_level, bias=False)
            self.category_head = Linear(inner, config.num_category, bias=False)
            self.query_risk_level_category_pre = Linear(config.hidden_size, inner, bias=False)
            self.query_risk_level_category_layernorm = Qwen3RMSNorm(inner, eps=config.rms_norm_eps)
            self.query_risk_level_head = Linear(inner, config.num_query_risk_level, bias=False)
            self.query_category_head = Linear(inner, config.num_query_category, bias=False)
            self.post_init()

        def rate(self, states: Any, *, of_query: bool) -> tuple[Any, Any]:
            """Logits of the levels and of the categories for the states of tokens."""
            if of_query:
                inner = self.query_risk_level_category_layernorm(self.query_risk_level_category_pre(states))
                return self.query_risk_level_head(inner), self.query_category_head(inner)
            inner = self.risk_level_category_layernorm(self.risk_level_category_pre(states))
            return self.risk_level_head(inner), self.category_head(inner)

    return Qwen3GuardStream
