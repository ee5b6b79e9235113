"""The fused kernels compute in the dtype that the blockwise one does."""

from __future__ import annotations

import pytest
import torch

from yarnlab import attention


@pytest.mark.parametrize("half", [True, False])
def test_the_last_positions_fused_take_what_autocast_makes_of_a_layer(half):
    """Under autocast, rotated queries and keys are fp32 and values bf16, and torch does not cast what it gives to a
    CausalBias. Result and gradients are the blockwise kernel's to bf16's rounding."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 32, 16), torch.randn(1, 2, 64, 16), torch.randn(1, 2, 64, 16)
    if half:
        v = v.bfloat16()
    found = []
    for kernel in (attention._fused_tail, attention.causal_tail):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out = kernel(*inputs, None)
        found.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    for fused, blockwise in zip(*found, strict=True):
        assert fused.dtype == blockwise.dtype
        assert (fused - blockwise).norm() <= (2e-2 if half else 1e-5) * blockwise.norm()
