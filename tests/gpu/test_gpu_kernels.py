"""On an NVIDIA GPU: the kernels that are installed compute the same, and nothing makes the host wait."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from yarnlab import attention
from yarnlab.families.rotary import RotaryEmbedding
from yarnlab.modeling import create_model, set_rope, use_fast_attention
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture
from yarnlab.training.loss import linear_cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is to be seen (pytest -m gpu shows it)"),
]
SHAPE = Architecture(
    family="llama",
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=128,
    original_context=512,
    rope_theta=10000.0,
    tie_word_embeddings=True,
)
MODULES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def kernel(name: str) -> str:
    """The name under which transformers knows a kernel; skips where its package is not installed."""
    if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
        pytest.skip(f"{MODULES[name]} is not installed")
    if name == "flash_attention_3" and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("FlashAttention 3 needs a Hopper GPU")
    return attention.register(name) if name == attention.FUSED else name


@pytest.mark.parametrize("name", [attention.FUSED, "sdpa", *MODULES])
@pytest.mark.parametrize("length", [64, 1000, 4096])
def test_kernels_agree_with_fp32(name, length):
    """Final hidden states and gradients in bf16 are as near to plain fp32 attention as torch's own kernel is, to 50 %."""
    ids = torch.randint(0, 512, (1, length), device="cuda")

    def run(dtype: torch.dtype, implementation: str) -> list[torch.Tensor]:
        model = create_model(SHAPE, vocab_size=512, seed=0).cuda().to(dtype)
        set_rope(model, make_rope("yarn", scale=8, original_context=512, head_dim=128))
        model.set_attn_implementation(implementation)
        hidden = model.model(input_ids=ids, use_cache=False)[0].float()
        hidden.square().mean().backward()
        return [hidden.detach(), *(p.grad.float() for p in model.parameters() if p.grad is not None)]

    exact = run(torch.float32, "eager")
    usual, ours = run(torch.bfloat16, "sdpa"), run(torch.bfloat16, kernel(name))
    for reference, theirs, mine in zip(exact, usual, ours, strict=True):
        allowed = 1.5 * (theirs - reference).norm() + 1e-6 * reference.norm()
        assert (mine - reference).norm() <= allowed


@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (256, 1024), (100, 700)])
def test_the_last_positions_attend_to_all_before_them(queries, keys):
    """As with the mask written out, forward and gradients, in bf16 and with shared heads."""
    q = torch.randn(1, 4, queries, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = (torch.randn(1, 2, keys, 128, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    seen = torch.ones(queries, keys, dtype=torch.bool, device="cuda").tril(keys - queries)
    wide = [t.double().repeat_interleave(2, 1) for t in (k, v)]
    scores = (q.double() @ wide[0].transpose(2, 3) / 128**0.5).masked_fill(~seen, -torch.inf)
    found = [attention.causal_tail(q, k, v, None), scores.softmax(-1) @ wide[1]]
    results = [(out, *torch.autograd.grad(out.double().square().mean(), (q, k, v))) for out in found]
    for ours, exact in zip(*results, strict=True):
        assert (ours.double() - exact.double()).norm() < 0.02 * exact.double().norm()


@pytest.mark.parametrize(("queries", "keys"), [(256, 256), (256, 1024)])
def test_autocast_reaches_the_last_positions_too(queries, keys):
    """Rotated queries and keys are fp32 under it and values bf16, as where processes share a sequence."""
    q, k, v = (torch.randn(1, 4, n, 128, device="cuda") for n in (queries, keys, keys))
    with torch.autocast("cuda", torch.bfloat16):
        out = attention.causal_tail(q, k, v.bfloat16(), None)
    assert torch.equal(out, attention.causal_tail(q.bfloat16(), k.bfloat16(), v.bfloat16(), None))


def test_a_gpu_takes_a_kernel_without_masks():
    model = create_model(SHAPE, vocab_size=512, seed=0).cuda().bfloat16()
    assert use_fast_attention(model, length=4096) in (attention.FUSED, "flash_attention_3")


@pytest.mark.parametrize("name", ["torch", "liger"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_chunked_loss_equals_the_plain_one(dtype, name):
    """Over several chunks with weights: loss, NLL and gradients equal those of all logits at once, fp32 to 1e-4, bf16 to
    twice what rounding the logits' factors costs the plain one."""
    if name == "liger":
        pytest.importorskip("liger_kernel")
    torch.manual_seed(0)
    hidden, head = (torch.randn(n, 256, device="cuda", requires_grad=True) for n in (3000, 4000))
    targets, weights = torch.randint(0, 4000, (3000,), device="cuda"), torch.rand(3000, device="cuda")

    def plain(dtype: torch.dtype) -> list[torch.Tensor]:
        logits = (hidden.to(dtype) @ head.to(dtype).T).float()
        each = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return [each.detach(), *torch.autograd.grad((each * weights).sum(), (hidden, head))]

    total, nll = linear_cross_entropy(hidden, head, targets, weights, dtype=dtype, kernel=name)
    ours = [nll, *torch.autograd.grad(total, (hidden, head))]
    for mine, exact, rounded in zip(ours, plain(torch.float32), plain(dtype), strict=True):
        assert (mine - exact).norm() <= 2 * (rounded - exact).norm() + 1e-4 * exact.norm()


@pytest.mark.parametrize("name", ["torch", "liger"])
def test_the_chunked_loss_equals_ligers(name):
    """Liger's own fused loss, the one in common use, at Llama 2's vocabulary: the same to bf16's rounding."""
    pytest.importorskip("liger_kernel")
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    torch.manual_seed(0)
    hidden, head = ((torch.randn(n, 512, device="cuda") / 8).bfloat16().requires_grad_() for n in (3000, 32000))
    targets = torch.randint(0, 32000, (3000,), device="cuda")
    theirs = LigerFusedLinearCrossEntropyLoss(reduction="sum")(head, hidden, targets)
    weights = torch.ones(3000, device="cuda")
    ours, _ = linear_cross_entropy(hidden, head, targets, weights, dtype=torch.bfloat16, kernel=name)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-3)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, head)), torch.autograd.grad(theirs, (hidden, head)), strict=True
    ):
        assert (a.float() - b.float()).norm() < 0.02 * b.float().norm()


def test_ligers_kernel_does_not_make_the_host_wait():
    pytest.importorskip("liger_kernel")
    hidden, head = (torch.randn(n, 256, device="cuda", requires_grad=True) for n in (3000, 4000))
    targets, weights = torch.randint(0, 4000, (3000,), device="cuda"), torch.rand(3000, device="cuda")
    linear_cross_entropy(hidden, head, targets, weights, dtype=torch.bfloat16, kernel="liger")  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        linear_cross_entropy(hidden, head, targets, weights, dtype=torch.bfloat16, kernel="liger")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rotation_does_not_make_the_host_wait():
    """A static rope reads nothing back from the GPU, call after call."""
    rotary = RotaryEmbedding(make_rope("yarn", scale=32, original_context=4096, head_dim=128))
    positions, x = torch.arange(131072, device="cuda")[None], torch.zeros(1, device="cuda", dtype=torch.bfloat16)
    rotary(x, positions)
    torch.cuda.set_sync_debug_mode("error")
    try:
        cos, _ = rotary(x, positions)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert cos.dtype == torch.bfloat16 and cos.shape == (1, 131072, 128)
