"""Cross-entropy of a linear head in chunks, with the gradient computed on the way forward.

The logits of a whole sequence never exist at once (131,072 × 32,000 in fp32 would be 16.8 GB), and they are computed
once, not a second time for the backward pass. What is done to a chunk's logits comes in two kernels: torch's own
operations (`torch`), everywhere, or Liger's fused one (`liger`) on GPUs, one pass over the logits instead of five.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from yarnlab.errors import UserError
from yarnlab.families.logits import LogitTransform

PLAIN = LogitTransform()
CHUNK = 1024  # positions whose logits exist at once

# Logits (tokens, vocabulary), which it may overwrite, and targets → NLL in fp32, d NLL/d logits.
Kernel = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class LossUnavailable(UserError):
    """The kernel that a phase asks for does not work here; the message says why and what to do."""


def _torch(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.float()
    log_total = logits.logsumexp(-1)
    nll = log_total - logits.gather(-1, targets[:, None])[:, 0]
    gradient = logits.sub_(log_total[:, None]).exp_()  # softmax − one-hot
    gradient.scatter_add_(-1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))
    return nll, gradient


def _liger(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel alone: the functions around it in Liger return losses in the logits' dtype, or sum the head's
    gradient before weights are applied, and make the host wait."""
    from liger_kernel.ops.cross_entropy import MAX_FUSED_SIZE, liger_cross_entropy_kernel
    from triton import next_power_of_2

    tokens, vocabulary = logits.shape
    nll = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    liger_cross_entropy_kernel[(tokens,)](
        X_ptr=logits,
        X_stride=logits.stride(0),
        Y_ptr=targets,
        Y_stride=targets.stride(0),
        weight_ptr=None,
        loss_ptr=nll,
        z_loss_ptr=None,
        loss_stride=nll.stride(0),
        token_accuracy_ptr=None,
        token_accuracy_stride=0,
        predicted_tokens_ptr=None,
        predicted_tokens_stride=0,
        n_cols=vocabulary,
        n_non_ignore=tokens,
        sum_non_ignore_weight=tokens,
        weight_sum=0.0,
        ignore_index=-100,
        lse_square_scale=0.0,
        label_smoothing=0.0,
        reduction="none",
        softcap=None,
        RETURN_Z_LOSS=False,
        RETURN_TOKEN_ACCURACY=False,
        RETURN_PREDICTED_TOKENS=False,
        BLOCK_SIZE=min(MAX_FUSED_SIZE, next_power_of_2(vocabulary)),
        HAS_WEIGHT=False,
        HAS_SOFTCAPPING=False,
        HAS_GRADIENTS=True,
        num_warps=32,
    )
    return nll, logits  # overwritten by their gradient


KERNELS: dict[str, Kernel] = {"torch": _torch, "liger": _liger}


def choose(asked: str, device: torch.device) -> str:
    """The kernel's name for what a phase asks: `auto` is Liger's on a GPU where it is installed, else torch's.

    Raises LossUnavailable if `liger` is asked for where it cannot run.
    """
    installed = importlib.util.find_spec("liger_kernel") is not None
    if asked == "liger" and not (installed and device.type == "cuda"):
        why = "it needs an NVIDIA GPU" if installed else "liger-kernel is not installed (envs/run --gpu installs it)"
        raise LossUnavailable(f"loss: liger cannot be used on this {device.type} device: {why}; or set loss: auto")
    if asked != "auto":
        return asked
    return "liger" if installed and device.type == "cuda" else "torch"


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        weights: Tensor,
        dtype: torch.dtype,
        kernel: str,
        transform: LogitTransform,
    ) -> tuple[Tensor, Tensor]:
        low = head.to(dtype)
        nll = torch.empty_like(weights)
        grad_hidden = torch.empty_like(hidden)
        grad_head = torch.zeros_like(head, dtype=torch.float32)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        for first in range(0, len(hidden), CHUNK):
            part = slice(first, first + CHUNK)
            h, y, w = hidden[part].to(dtype), targets[part], weights[part]
            logits = h @ low.T
            if bias is not None:
                logits += bias.to(dtype)
            logits = transform(logits)
            # The kernel may overwrite the logits, which a cap's derivative is made of.
            capped = logits.float().clone() if transform.softcap else logits
            nll[part], gradient = KERNELS[kernel](logits, y)
            gradient = transform.chain(gradient, capped).mul_(w[:, None]).to(dtype)  # of Σ w·nll
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
            grad_hidden[part] = gradient @ low
            grad_head += gradient.T @ h
        ctx.save_for_backward(grad_hidden, grad_head, grad_bias)
        ctx.mark_non_differentiable(nll)
        return (nll * weights).sum(), nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head, grad_bias = ctx.saved_tensors
        by_bias = None if grad_bias is None else grad_bias * grad
        return grad_hidden * grad, grad_head * grad, by_bias, None, None, None, None, None


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    dtype: torch.dtype,
    kernel: str = "torch",
    bias: Tensor | None = None,
    transform: LogitTransform = PLAIN,
) -> tuple[Tensor, Tensor]:
    """(Σ w·NLL, NLL of each target) of next-token prediction through a linear head.

    Args:
        hidden: (tokens, hidden_size), what the head reads.
        head: (vocabulary, hidden_size), the head's weight.
        targets: (tokens,) int64.
        weights: (tokens,) float32; they take part in the gradient of the sum.
        dtype: of the matrix products; log-sum-exp, losses and the head's gradient are in fp32.
        kernel: of KERNELS, see `choose`.
        bias: (vocabulary,), the head's, where it has one.
        transform: what the model does to the head's output.

    Returns: the weighted sum (differentiable in hidden, head and bias) and the unweighted NLL (a plain record), fp32.
    """
    return _LinearCrossEntropy.apply(hidden, head, bias, targets, weights, dtype, kernel, transform)
