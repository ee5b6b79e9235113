"""The chunked cross-entropy equals torch's, with either kernel.

Liger's kernel is written in Triton, for GPUs; without one, Triton's interpreter computes the same slowly. To test that:
`pip install --no-deps triton liger-kernel` at envs/gpu.lock's versions, and TRITON_INTERPRET=1.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from yarnlab.errors import UserError
from yarnlab.training import loss
from yarnlab.training.loss import LossUnavailable, choose, linear_cross_entropy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIGER = importlib.util.find_spec("liger_kernel") is not None and (
    DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
)
KERNELS = ["torch", pytest.param("liger", marks=pytest.mark.skipif(not LIGER, reason="Liger cannot run here"))]


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunked_cross_entropy_equals_the_plain_one(kernel):
    """Loss, per-token NLL and both gradients equal torch's cross-entropy, over several chunks and with weights, some of
    them 0."""
    torch.manual_seed(0)
    hidden, head = (torch.randn(n, 16, device=DEVICE, requires_grad=True) for n in (2500, 50))
    targets, w = torch.randint(0, 50, (2500,), device=DEVICE), torch.rand(2500, device=DEVICE)
    w[::7] = 0
    total, nll = linear_cross_entropy(hidden, head, targets, w, dtype=torch.float32, kernel=kernel)
    ours = torch.autograd.grad(total / 7, (hidden, head))
    each = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    theirs = torch.autograd.grad((each * w).sum() / 7, (hidden, head))
    assert torch.allclose(total, (each * w).sum(), rtol=1e-5)
    assert torch.allclose(nll, each, atol=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_bf16_losses_and_the_heads_gradient_are_not_rounded(kernel):
    """Within 1.5 times what rounding the factors alone costs; the NLL are fp32 numbers, not bf16's."""
    torch.manual_seed(0)
    hidden, head = (torch.randn(n, 64, device=DEVICE, requires_grad=True) for n in (2500, 500))
    targets, w = torch.randint(0, 500, (2500,), device=DEVICE), torch.rand(2500, device=DEVICE)

    def plain(dtype: torch.dtype) -> list[torch.Tensor]:
        logits = (hidden.to(dtype) @ head.to(dtype).T).float()
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return [each.detach(), *torch.autograd.grad((each * w).sum(), (hidden, head))]

    total, nll = linear_cross_entropy(hidden, head, targets, w, dtype=torch.bfloat16, kernel=kernel)
    ours = [nll, *torch.autograd.grad(total, (hidden, head))]
    for mine, exact, rounded in zip(ours, plain(torch.float32), plain(torch.bfloat16), strict=True):
        assert (mine - exact).norm() <= 1.5 * (rounded - exact).norm()
    assert (nll != nll.bfloat16().float()).any() and ours[2].dtype == torch.float32


def test_liger_is_taken_on_gpus_where_it_is_installed(monkeypatch):
    found: list[object] = [None]
    monkeypatch.setattr(loss.importlib.util, "find_spec", lambda name: found[0])
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [choose("auto", cpu), choose("auto", gpu), choose("torch", gpu)] == ["torch"] * 3
    with pytest.raises(LossUnavailable, match=r"liger-kernel is not installed \(envs/run --gpu") as refused:
        choose("liger", gpu)
    assert isinstance(refused.value, UserError)
    found[0] = object()
    assert [choose("auto", cpu), choose("auto", gpu), choose("torch", gpu)] == ["torch", "liger", "torch"]
    assert choose("liger", gpu) == "liger"
    with pytest.raises(LossUnavailable, match="needs an NVIDIA GPU; or set loss: auto"):
        choose("liger", cpu)
