"""Exact causal attention: by blocks of queries or through torch's kernel on CPUs, through fused kernels on GPUs.

By blocks: plain matrix products of blocks of queries with the keys before them. The probabilities are kept for the
backward pass, in memory of seq_len², up to LONG keys; beyond, they are computed twice, and memory grows with seq_len.
On CPUs that multiply bf16 blocks are up to twice as fast as torch's kernel, on others as slow as half of it: what was
measured on the machine decides, by number format and length (machine/).
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from yarnlab.attention.chunks import chunked, chunked_backward, queries_at_once
from yarnlab.errors import UserError
from yarnlab.machine.choice import LONG, kernel_for
from yarnlab.machine.record import this_machine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEASURED = "yarnlab_measured"  # on CPUs: whichever of the next and torch's own was faster on this machine
NAME = "yarnlab_blockwise"
FUSED = "yarnlab_fused"
VARIABLE = "YARNLAB_ATTENTION"  # an implementation's name, to be used whatever else is installed
Kernel = Callable[[Tensor, Tensor, Tensor, float | None], Tensor]  # of query, key, value and scaling
CACHED = 4 << 20  # bytes of the scores of several heads at once; those of one head may be more
# How the kernels' operations begin in torch's dispatcher; what they return is all that their backward pass needs.
OPERATIONS = (
    "aten::_scaled_dot_product_",
    "aten::_efficient_attention_forward",  # what a CausalBias may call instead
    "flash_attn",
    "yarnlab::blockwise_attention",
)


class AttentionError(UserError):
    """Attention that a kernel can't compute, or a kernel that is not there; the message says which to use instead."""


def _blockwise(q: Tensor, k: Tensor, v: Tensor, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """(attention, with `keep` each block's probabilities); shapes as in _BlockwiseAttention.

    The heads that share keys are rows of one product. Without `keep` a few heads at a time share the memory of their
    scores, which become probabilities in place, as many as a cache holds: softmax waits for memory otherwise.
    """
    if k.shape[1] > LONG:
        return chunked(q, k, v, keep)
    heads, length, groups, _ = q.shape
    block, before = min(queries_at_once(groups), length), k.shape[1] - length
    out = q.new_empty(heads, length, groups, v.shape[2])
    at_once = heads if keep else max(1, min(heads, CACHED // (block * groups * k.shape[1] * q.element_size())))
    space = q.new_empty(0 if keep else at_once * block * groups * k.shape[1])
    hidden = torch.full((block, block), -torch.inf, dtype=q.dtype).triu(1)[:, None]
    kept = []
    for head in range(0, heads, at_once):
        some = slice(head, head + at_once)
        keys, values = k[some], v[some]
        for first in range(0, length, block):
            last = min(length, first + block)
            rows = q[some, first:last].flatten(1, 2)
            seen_keys, seen_values = keys[:, : before + last], values[:, : before + last]
            if len(keys) == 1:  # strides as if there were no further head: else bmm copies both, block for block
                seen_keys, seen_values = seen_keys[0][None], seen_values[0][None]
            shape = (*rows.shape[:2], before + last)
            scores = q.new_empty(shape) if keep else space[: math.prod(shape)].view(shape)
            torch.bmm(rows, seen_keys.transpose(1, 2), out=scores)
            scores.unflatten(1, (-1, groups))[..., before + first :].add_(hidden[: last - first, :, : last - first])
            p = torch.softmax(scores, -1, out=None if keep else scores)
            torch.bmm(p, seen_values, out=out[some, first:last].flatten(1, 2))
            if keep:
                kept.append(p)
    return out, kept


@cache
def _operation() -> tuple[Any, torch.library.Library]:
    """`_blockwise` as one operation of torch's, as the fused kernels are, and the library that it lives with.

    Selective recomputation keeps what an operation returns (training/recompute.py).
    """
    library = torch.library.Library("yarnlab", "DEF")
    library.define("blockwise_attention(Tensor q, Tensor k, Tensor v, bool keep) -> (Tensor, Tensor[])")
    library.impl("blockwise_attention", _blockwise, "CPU")
    return torch.ops.yarnlab.blockwise_attention, library


class _BlockwiseAttention(torch.autograd.Function):
    """q (scaled): (batch·heads of keys, queries, heads that share keys, head_dim), k, v: (batch·heads of keys, keys,
    head_dim) → q's shape, as wide as v.

    The queries are the last of the keys' positions.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, kept = _operation()[0](q, k, v, any(ctx.needs_input_grad))
        ctx.chunked = k.shape[1] > LONG
        ctx.save_for_backward(q, k, v, *([out] if ctx.chunked else []), *kept)
        ctx.block = min(queries_at_once(q.shape[2]), q.shape[1])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, *kept = ctx.saved_tensors
        grad = grad.contiguous()
        if ctx.chunked:
            out, totals = kept
            grad_q, grad_k, grad_v = chunked_backward(q, k, v, out, totals, grad)
            return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)
        grad_q = torch.empty_like(q)
        # fp32 sums: each key gathers gradients from every later block.
        grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for i, p in enumerate(kept):
            block, keys = slice(i * ctx.block, (i + 1) * ctx.block), p.shape[2]
            g = grad[:, block].flatten(1, 2)
            grad_v[:, :keys] += torch.bmm(p.transpose(1, 2), g)
            dp = torch.bmm(g, v[:, :keys].transpose(1, 2))
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            torch.bmm(ds, k[:, :keys], out=grad_q[:, block].flatten(1, 2))
            grad_k[:, :keys] += torch.bmm(ds.transpose(1, 2), q[:, block].flatten(1, 2))
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def causal_tail(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention of the last positions of a sequence to all before them: (batch, heads, positions, head_dim) each.

    The queries are the positions with which the keys end; key and value may have fewer heads. Returns query's shape,
    as wide as value.
    """
    if query.device.type != "cpu":
        return _fused_tail(query, key, value, scaling)
    batch, heads, length, dim = query.shape
    scaled = query * (scaling or dim**-0.5)
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    if learning and key.shape[2] <= LONG:
        scaled, key, value = _alike(scaled, key, value)  # a head at a time: other sums would be other trainings
    dtype, shared = _computed_in(query), key.shape[1]
    q = scaled.to(dtype).view(batch, shared, -1, length, dim).transpose(2, 3)
    q = q.contiguous().view(batch * shared, length, -1, dim)
    k, v = (t.to(dtype).reshape(batch * shared, *t.shape[2:]) for t in (key, value))
    out = _BlockwiseAttention.apply(q, k, v).view(batch, shared, length, -1, value.shape[3])
    return out.transpose(2, 3).reshape(batch, heads, length, value.shape[3])


def torch_causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention over a whole sequence by torch's own kernel: shapes as in `causal_tail`, as many queries as keys."""
    query, key, value = _alike(query, key, value)
    return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)


# On CPUs, by the names of machine/choice.py.
KERNELS: dict[str, Kernel] = {"blockwise": causal_tail, "sdpa": torch_causal}


def _alike(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All three in the dtype that attention computes in, keys and values with as many heads as queries."""
    dtype = _computed_in(query)  # autocast does not cast them for a CausalBias, nor for us
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _computed_in(query: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on: under it, rotated queries and keys are fp32 and values are not."""
    device = query.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype


def _fused_tail(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """The same through scaled_dot_product_attention: cuDNN's kernel from Hopper on, else FlashAttention's."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention

    query, key, value = _alike(query, key, value)
    if query.shape[2] != key.shape[2]:
        bias = causal_lower_right(query.shape[2], key.shape[2])
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if torch.cuda.get_device_capability(query.device) >= (9, 0):
        order.insert(0, SDPBackend.CUDNN_ATTENTION)
    with sdpa_kernel(order, set_priority=True):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)


def causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    kernel: Kernel = causal_tail,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (batch, heads, seq_len, head_dim) each → (batch, seq_len, heads, head_dim).

    Raises AttentionError for whatever is not causal self-attention over whole sequences.
    """
    refuse(attention_mask, dropout, options, length=key.shape[2])
    if query.shape[2] != key.shape[2]:
        raise AttentionError(f"{query.shape[2]} queries to {key.shape[2]} keys: a key cache needs attention sdpa")
    return kernel(query, key, value, scaling).transpose(1, 2).contiguous(), None


def measured_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """`causal_attention` on a CPU, with the kernel that was measured to be fastest for such a row."""
    found = kernels("fp32" if _computed_in(query) == torch.float32 else "bf16")
    gradients = torch.is_grad_enabled() and query.requires_grad
    kernel = KERNELS[kernel_for(found, query.shape[2], gradients)]
    return causal_attention(module, query, key, value, attention_mask, kernel=kernel, **options)


def kernels(precision: str) -> dict[str, str]:
    """What was timed → the kernel that MEASURED takes for it in this number format; empty: blockwise for all."""
    return dict(this_machine().get("kernels", {}).get("fp32" if precision == "fp32" else "bf16", {}))


def facts(model: PreTrainedModel, precision: str) -> dict[str, Any]:
    """Which attention is in force, for the record, and where that is MEASURED, which kernel it takes for what."""
    name = model.config._attn_implementation
    return {"attention": name} | ({"kernels": kernels(precision) or "blockwise"} if name == MEASURED else {})


def refuse(mask: Tensor | None, dropout: float, options: Mapping[str, Any], *, length: int) -> None:
    """Raise AttentionError for what an attention without masks would silently leave out.

    Args:
        options: the further arguments of transformers' attention interface.
        length: keys of the sequence; a sliding window of at least that many hides nothing.
    """
    window = options.get("sliding_window")
    if dropout:
        raise AttentionError("the model's config asks for dropout in attention, and models are trained without here")
    changed = {
        "soft-capped scores": options.get("softcap") is not None,
        "attention sinks": options.get("s_aux") is not None,
    }
    if any(changed.values()):
        what = " and ".join(name for name, present in changed.items() if present)
        raise AttentionError(f"this attention has no {what}: use {VARIABLE}=eager, for inputs that its memory allows")
    asked = {
        "attention mask": mask is not None,
        f"sliding window of {window} in a sequence of {length} tokens": window is not None and window < length,
        "attention to later positions": options.get("is_causal") is False,
    }
    if any(asked.values()):
        what = ", ".join(name for name, present in asked.items() if present)
        raise AttentionError(f"causal attention over whole, unpadded sequences has no {what}: use {VARIABLE}=sdpa")


def without_mask(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> None:
    """transformers' mask interface: no mask; AttentionError for one that hides a token, instead of ignoring it."""
    if attention_mask is not None and not bool(attention_mask.all()):
        raise AttentionError(f"padded sequences need attention with masks: use {VARIABLE}=sdpa")


def register(name: str) -> str:
    """Make one of our attentions known to transformers under `name` (masks are not built for it); returns the name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(name, measured_attention if name == MEASURED else causal_attention)
    AttentionMaskInterface.register(name, without_mask)
    return name


def masked(model: PreTrainedModel) -> str:
    """The name of an attention with masks, for windows, padding and key caches: torch's own, or transformers' plain one
    for a family whose scores are changed on the way (attention sinks, a soft-cap), in memory of seq_len²."""
    return "sdpa" if model._supports_sdpa else "eager"


def choose(
    model: PreTrainedModel,
    *,
    length: int | None = None,
    half: bool | None = None,
    within_documents: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """The name of the fastest exact attention for the model, its device and what is installed.

    YARNLAB_ATTENTION overrides. A family whose scores no fused kernel computes gets transformers' plain one. A model
    with a sliding window shorter than `length` (or with any, where no length is given) needs masks, or flash-attn. On
    GPUs: FlashAttention 3, then cuDNN's kernel or torch's own FlashAttention 2
    (on an H100 648, 595 and 370 TFLOP/s forward at 16k, head dimension 128, by the FlashAttention-3 paper).

    Args:
        half: whether attention computes in 16 bits; default: whether the weights are.
        within_documents: whether a row holds documents that must not attend to each other, which takes masks.
            AttentionError if YARNLAB_ATTENTION names one without.
    """
    if within_documents:
        if (named := environment.get(VARIABLE, "sdpa")) not in ("sdpa", "eager"):
            raise AttentionError(f"attention {named} can't keep to the documents of a row: use {VARIABLE}=sdpa")
        return masked(model) if VARIABLE not in environment else named
    if (given := environment.get(VARIABLE)) is not None:
        return register(given) if given in (MEASURED, NAME, FUSED) else given
    if not model._supports_sdpa:
        return masked(model)
    window = getattr(model.config, "sliding_window", None)
    windowed = window is not None and (length is None or window < length)
    if model.device.type == "cpu":
        return "sdpa" if windowed else register(MEASURED)
    half = model.dtype in (torch.bfloat16, torch.float16) if half is None else half
    major = torch.cuda.get_device_capability(model.device)[0]
    if half and major == 9 and importlib.util.find_spec("flash_attn_interface"):
        return "flash_attention_3"
    if windowed:
        return "flash_attention_2" if half and importlib.util.find_spec("flash_attn") else "sdpa"
    return register(FUSED)
