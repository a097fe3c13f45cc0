"""The sampling of the transformers backend beside vLLM's own code: one policy, one output distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stars_guard.backends._sampling import _truncate
from stars_guard.core.sampling import Sampling

pytest.importorskip("vllm")


def of_vllm(logits: torch.Tensor, options: Sampling) -> torch.Tensor:
    """vLLM's probabilities, by its own functions in its own order (``Sampler.sample``)."""
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    logits = logits / options.temperature
    probs = logits.softmax(-1)
    # MinPLogitsProcessor.apply
    logits = logits.masked_fill(probs < options.min_p * probs.amax(-1, keepdim=True), -float("inf"))
    k = torch.tensor([min(options.top_k or logits.shape[-1], logits.shape[-1])])
    return apply_top_k_top_p_pytorch(logits, k, torch.tensor([options.top_p])).softmax(-1)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(2, 40),
    options=st.builds(
        Sampling,
        temperature=st.floats(0.3, 3.0),
        top_p=st.floats(0.05, 1.0),
        top_k=st.integers(0, 40),
        min_p=st.floats(0.0, 1.0),
    ),
)
def test_the_order_is_that_of_vllm(seed: int, size: int, options: Sampling) -> None:
    logits = 3 * torch.randn(1, size, generator=torch.Generator().manual_seed(seed))
    kept = _truncate((logits / options.temperature).softmax(-1)[0], options)
    torch.testing.assert_close(kept / kept.sum(), of_vllm(logits, options)[0], atol=1e-5, rtol=1e-4)


def test_min_p_comes_before_top_p() -> None:
    """Where the two orders differ: min-p leaves the first two tokens, of which the first holds 0.6 and not 0.48."""
    probs = torch.tensor([0.48, 0.32, 0.10, 0.10])
    kept = _truncate(probs, Sampling(min_p=0.5, top_p=0.55))
    assert kept.nonzero().flatten().tolist() == [0]
