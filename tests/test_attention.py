"""All kernels compute the same, in the same dtype; on CPUs the one that was measured to be fastest is taken."""

from __future__ import annotations

import pytest
import torch

from yarnlab import attention
from yarnlab.attention import chunks
from yarnlab.machine.choice import attention_work


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


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (9, 3), (8, 1)])
def test_a_few_heads_at_a_time_compute_what_all_at_once_do(monkeypatch, heads):
    """Without gradients the heads are taken as a cache holds their scores; the result is torch's either way."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, 700, 16) for h in (heads[0], heads[1], heads[1]))
    expected = attention.causal_tail(q.requires_grad_(), k, v, None).detach()
    with torch.no_grad():
        for cached in (1, 2**20, 2**40):  # one head at a time, a few, all
            monkeypatch.setattr(attention, "CACHED", cached)
            assert torch.allclose(attention.causal_tail(q, k, v, None), expected, atol=1e-6, rtol=0)
        assert torch.allclose(expected, attention.torch_causal(q, k, v, None), atol=1e-5, rtol=0)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(("heads", "queries"), [((4, 4), 700), ((6, 2), 700), ((9, 3), 300), ((8, 1), 1)])
def test_chunks_of_keys_compute_what_all_keys_at_once_do(monkeypatch, heads, queries, half):
    """Long passes without gradients, of whole rows and of last positions; chunks that blocks of queries do not tile."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    q = torch.randn(2, heads[0], queries, 16, dtype=dtype)
    k, v = (torch.randn(2, heads[1], 700, width, dtype=dtype) for width in (16, 24))
    with torch.no_grad():
        expected = attention.causal_tail(q.float(), k.float(), v.float(), 1.0)
        monkeypatch.setattr(attention, "LONG", 699)
        for chunk in (64, 201, 1000):
            monkeypatch.setattr(chunks, "CHUNK", chunk)
            out = attention.causal_tail(q, k, v, 1.0)
            assert (out - expected).norm() <= (2e-2 if half else 1e-6) * expected.norm()


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("excess", [0.0, 60.0, 89.0, 300.0, -300.0])
@pytest.mark.parametrize("around", [-200.0, 0.0, 200.0])
def test_large_scores_neither_overflow_nor_vanish(monkeypatch, around, excess, half):
    """Scores around any value, and a key that all later queries look at, or none: no further from fp32 than before."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    q, k, v = (torch.randn(1, 2, 600, 16, dtype=dtype) for _ in range(3))
    q[..., :2], k[..., 0], k[..., 1] = 1.0, 0.0, around
    k[:, :, 250, 0] = excess
    with torch.no_grad():
        exact = attention.torch_causal(q.float(), k.float(), v.float(), 1.0)
        at_once = attention.causal_tail(q, k, v, 1.0)
        monkeypatch.setattr(attention, "LONG", 599)
        out = attention.causal_tail(q, k, v, 1.0)
    assert out.isfinite().all()
    assert (out - exact).norm() <= 1.3 * (at_once - exact).norm() + 1e-5 * exact.norm()


@pytest.mark.parametrize("threads", [1, 2])  # one: the compiled loop
def test_the_exponential_of_every_number_of_bf16(monkeypatch, threads):
    """To bf16's rounding; 0 and infinite where fp32's range ends, and a row that holds NaN has no finite sum."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).view(512, 128)
    found = x.clone()
    sums = chunks.exponentiate(found)
    exact, x = x.double().exp(), x.float()
    inside = (x > -86.5) & (x < 88.5)
    assert (found.double() / exact - 1)[inside].abs().max() <= 2**-8
    assert (found == exact.to(torch.bfloat16))[inside].float().mean() > 0.999
    assert (found[x < -94.0] == 0).all() and found[x > 89.0].isposinf().all()
    finite = found.isfinite().all(-1)
    assert not sums[x.isnan().any(-1)].isfinite().any()
    assert torch.allclose(sums[finite], found[finite].float().sum(-1), rtol=1e-6)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("excess", [0.0, 60.0, 300.0])
@pytest.mark.parametrize(("heads", "queries"), [((4, 4), 700), ((6, 2), 700), ((9, 3), 300)])
def test_gradients_of_chunks_are_those_of_the_formula(monkeypatch, heads, queries, excess, half):
    """From the sums that were kept, for whole rows and last positions; also where a sum overflowed.

    No further off than those of all keys at once, but for what rounds in the difference of grad · v and grad · out.
    """
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    q = torch.randn(1, heads[0], queries, 16).to(dtype)
    k, v = (torch.randn(1, heads[1], 700, width).to(dtype) for width in (16, 24))
    q[..., 0], k[..., 0], k[:, :, 450, 0] = 1.0, 0.0, excess
    grad = torch.randn(1, heads[0], queries, 24).to(dtype)

    def gradients():
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        out = attention.causal_tail(*inputs, 1.0)
        return [out.detach(), *torch.autograd.grad(out, inputs, grad)]

    exact = [t.double().requires_grad_() for t in (q, k, v)]
    wide_k, wide_v = (t.repeat_interleave(heads[0] // heads[1], 1) for t in exact[1:])
    hidden = torch.ones(queries, 700, dtype=torch.bool).triu(701 - queries)
    p = (exact[0] @ wide_k.mT).masked_fill(hidden, -torch.inf).softmax(-1)
    out = p @ wide_v
    exact = [out, *torch.autograd.grad(out, exact, grad.double())]
    rounds = torch.finfo(dtype).eps * p * (grad * out).norm(dim=-1, keepdim=True)
    off = [
        0.0,
        (rounds.square() @ wide_k.square()).sum().sqrt(),
        (rounds.square().mT @ q.double().square()).sum().sqrt(),
        0.0,
    ]
    at_once = gradients()
    monkeypatch.setattr(attention, "LONG", 699)
    for chunk in (201, 1000):
        monkeypatch.setattr(chunks, "CHUNK", chunk)
        for found, before, expected, more in zip(gradients(), at_once, exact, off, strict=True):
            assert found.isfinite().all()
            assert (found - expected).norm() <= 1.3 * (before - expected).norm() + more + 1e-7 * expected.norm()


WORKS = [attention_work(length, gradients) for length in (256, 4096) for gradients in (False, True)]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("width", [16, 24])  # of values; latent attention's are of another than keys
@pytest.mark.parametrize("kernel", ["blockwise", "sdpa"])
def test_both_kernels_of_a_cpu_give_the_same(monkeypatch, kernel, width, half):
    """Whichever was measured to be faster: output and gradients of a row with grouped heads, to rounding."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 600, 16), torch.randn(2, 2, 600, 16), torch.randn(2, 2, 600, width)
    if half:
        v = v.bfloat16()
    found = []
    for attend in (attention.measured_attention, attention.causal_attention):
        chosen = {"kernels": {dtype: dict.fromkeys(WORKS, kernel) for dtype in ("bf16", "fp32")}}
        monkeypatch.setattr(attention, "this_machine", lambda chosen=chosen: chosen)
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            out, _ = attend(None, *inputs, None, scaling=0.3)
        found.append([out, *torch.autograd.grad(out.float().square().sum(), inputs)])
    for measured, blockwise in zip(*found, strict=True):
        assert measured.dtype == blockwise.dtype and measured.shape == blockwise.shape
        assert (measured - blockwise).norm() <= (2e-2 if half else 1e-5) * blockwise.norm()
        assert kernel == "sdpa" or torch.equal(measured, blockwise)


def test_the_measured_attention_asks_for_dtype_length_and_gradients(monkeypatch):
    called: list[str] = []

    def kernel(name):
        return lambda query, *_: called.append(name) or query

    monkeypatch.setattr(attention, "KERNELS", {name: kernel(name) for name in "abcdefgh"})
    by = {dtype: dict(zip(WORKS, names, strict=True)) for dtype, names in (("bf16", "abcd"), ("fp32", "efgh"))}
    monkeypatch.setattr(attention, "this_machine", lambda: {"kernels": by})
    for dtype in (torch.bfloat16, torch.float32):
        for length in (128, 2048):
            for gradients in (False, True):
                q = torch.zeros(1, 1, length, 4, dtype=dtype, requires_grad=gradients)
                attention.measured_attention(None, q, q, q, None)
    with torch.no_grad():
        attention.measured_attention(None, q, q, q, None)
    with torch.autocast("cpu", torch.bfloat16):
        attention.measured_attention(None, q, q, q, None)
    assert called == [*"abcdefgh", "g", "d"]


@pytest.mark.parametrize("kernel", ["blockwise", "sdpa"])
def test_neither_kernel_takes_what_it_would_leave_out(monkeypatch, kernel):
    by = {"kernels": {"fp32": dict.fromkeys(WORKS, kernel)}}
    monkeypatch.setattr(attention, "this_machine", lambda: by)
    q = torch.zeros(1, 1, 8, 4)
    for word, given in (
        ("trained without", {"dropout": 0.1}),
        ("YARNLAB_ATTENTION=sdpa", {"sliding_window": 4}),
        ("YARNLAB_ATTENTION=sdpa", {"is_causal": False}),
        ("YARNLAB_ATTENTION=eager", {"softcap": 1.0}),
        ("YARNLAB_ATTENTION=eager", {"s_aux": torch.zeros(1)}),
    ):
        with pytest.raises(attention.AttentionError, match=word):
            attention.measured_attention(None, q, q, q, None, **given)
    with pytest.raises(attention.AttentionError, match="1 queries to 8 keys"):
        attention.measured_attention(None, q[:, :, :1], q, q, None)


def test_the_record_says_which_kernels_are_in_force(monkeypatch, tiny_model):
    monkeypatch.setattr(attention, "this_machine", lambda: {"kernels": {"fp32": {"work": "sdpa"}, "bf16": {}}})
    tiny_model.set_attn_implementation(attention.choose(tiny_model, environment={}))
    assert attention.facts(tiny_model, "fp32") == {"attention": attention.MEASURED, "kernels": {"work": "sdpa"}}
    assert attention.facts(tiny_model, "bf16")["kernels"] == "blockwise"
    tiny_model.set_attn_implementation(attention.choose(tiny_model, environment={attention.VARIABLE: attention.NAME}))
    assert attention.facts(tiny_model, "fp32") == {"attention": attention.NAME}
