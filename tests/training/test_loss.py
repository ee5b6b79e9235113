"""The chunked cross-entropy equals torch's."""

from __future__ import annotations

import torch

from yarnlab.training.loss import linear_cross_entropy


def test_chunked_cross_entropy_equals_the_plain_one():
    """Loss, per-token NLL and both gradients equal torch's cross-entropy, over several chunks and with weights."""
    torch.manual_seed(0)
    hidden, head = torch.randn(2500, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets, w = torch.randint(0, 50, (2500,)), torch.rand(2500)
    total, nll = linear_cross_entropy(hidden, head, targets, w, dtype=torch.float32)
    (total / 7).backward()
    ours = [hidden.grad.clone(), head.grad.clone()]
    hidden.grad = head.grad = None
    each = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    ((each * w).sum() / 7).backward()
    assert torch.allclose(nll, each, atol=1e-5)
    for a, b in zip(ours, [hidden.grad, head.grad], strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)
