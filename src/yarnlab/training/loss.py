"""Cross-entropy of a linear head in chunks, with the gradient computed on the way forward.

The logits of a whole sequence never exist at once (131,072 × 32,000 in fp32 would be 16.8 GB), and they are computed
once, not a second time for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 1024  # positions whose logits exist at once


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        low = head.to(dtype)
        nll = torch.empty_like(weights)
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32)
        for first in range(0, len(hidden), CHUNK):
            part = slice(first, first + CHUNK)
            h, y, w = hidden[part].to(dtype), targets[part], weights[part]
            logits = (h @ low.T).float()
            log_total = logits.logsumexp(-1)
            nll[part] = log_total - logits.gather(-1, y[:, None])[:, 0]
            # d(Σ w·nll)/d logits = w·(softmax − one-hot)
            gradient = logits.sub_(log_total[:, None]).exp_()
            gradient.scatter_add_(-1, y[:, None], gradient.new_full((len(y), 1), -1.0))
            gradient = gradient.mul_(w[:, None]).to(dtype)
            grad_hidden[part] = gradient @ low
            grad_head += gradient.T @ h
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.mark_non_differentiable(nll)
        return (nll * weights).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad, grad_head * grad, None, None, None


def linear_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, *, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(Σ w·NLL, NLL of each target) of next-token prediction through a linear head.

    Args:
        hidden: (tokens, hidden_size), what the head reads.
        head: (vocabulary, hidden_size), the head's weight.
        targets: (tokens,) int64.
        weights: (tokens,) float32; they take part in the gradient of the sum.
        dtype: of the matrix products; log-sum-exp, losses and the head's gradient are in fp32.

    Returns: the weighted sum (differentiable in hidden and head) and the unweighted NLL (a plain record), fp32.
    """
    return _LinearCrossEntropy.apply(hidden, head, targets, weights, dtype)
