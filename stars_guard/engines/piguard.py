"""PIGuard, whose checkpoint names code of its own: the same model from its published description, without that code.

Source: leolee99/PIGuard, PIGuard.py: DeBERTa-v3, and one linear layer on the state of the first token. The classifier
of transformers has a layer more, and would fill it with random numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from stars_guard.engines.loading import load_judge

__all__ = ["load_piguard"]


def load_piguard(model: str, revision: str | None, dtype: Any) -> Any:
    """From a directory or hub name. Blocks. Nothing of the checkpoint is run.

    Raises:
        ScorerError: weights are missing.
    """
    from transformers import DebertaV2Config

    return load_judge(_piguard(), model, revision, dtype, config_class=DebertaV2Config)


@cache
def _piguard() -> Any:
    import torch
    from transformers import DebertaV2Model, DebertaV2PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput

    class PIGuard(DebertaV2PreTrainedModel):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.deberta = DebertaV2Model(config)
            self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
            self.post_init()

        def forward(self, **inputs: Any) -> Any:
            first = self.deberta(**inputs).last_hidden_state[:, 0]
            return SequenceClassifierOutput(logits=self.classifier(first))

    return PIGuard
