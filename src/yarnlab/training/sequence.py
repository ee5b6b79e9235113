"""Context parallelism: several processes share each sequence, for windows that do not fit into one device's memory.

A sequence is cut into 2c parts for c processes; process i computes parts i and 2c − 1 − i, so that all have the same
number of pairs to attend to (the load balance of Llama 3's context parallelism, arXiv 2407.21783 §3.3.2). Keys and
values of the whole sequence are gathered for every layer; everything else stays where its tokens are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

from yarnlab.attention import AttentionError, causal_tail, refuse, without_mask
from yarnlab.rope import Rope
from yarnlab.training.parallel import Group

NAME = "yarnlab_context"


def local_positions(length: int, group: Group) -> Tensor | None:
    """The positions of a sequence that this process computes: (length / context,) int64; None: all of them.

    Raises AttentionError if the sequence can't be cut into equal parts.
    """
    if group.context == 1:
        return None
    parts = 2 * group.context
    if length % parts:
        raise AttentionError(f"seq_len {length} can't be cut into {parts} equal parts for context {group.context}")
    i, each = group.rank % group.context, length // parts
    return torch.cat([torch.arange(p * each, (p + 1) * each) for p in (i, parts - 1 - i)])


class _Gathered(torch.autograd.Function):
    """(batch, heads, local positions, dim) → (batch, heads, all positions, dim), in the order of the sequence.

    Backward: the sum over the processes of the gradients of the local positions, in fp32.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: distributed.ProcessGroup) -> Tensor:
        ctx.group = group
        everyone = local.new_empty(group.size() * local.shape[0], *local.shape[1:])
        distributed.all_gather_single(everyone, local.contiguous(), group)
        parts = [one.chunk(2, 2) for one in everyone.chunk(group.size())]
        return torch.cat([parts[owner][half] for owner, half in _owners(group.size())], 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        size, parts = ctx.group.size(), grad.float().chunk(2 * ctx.group.size(), 2)
        everyone = torch.cat([torch.cat([parts[i], parts[2 * size - 1 - i]], 2) for i in range(size)])
        local = torch.empty_like(everyone.chunk(size)[0])
        distributed.reduce_scatter_single(local, everyone, group=ctx.group)
        return local.to(grad.dtype), None


def _owners(size: int) -> list[tuple[int, int]]:
    """(process, its first or second part) of every part in the order of the sequence."""
    return [(i, 0) for i in range(size)] + [(i, 1) for i in reversed(range(size))]


def shared_attention(
    group: Group,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface for the local positions of a sequence that the group's processes share."""
    size, rank, each = group.context, group.rank % group.context, query.shape[2] // 2
    refuse(attention_mask, dropout, options, length=query.shape[2] * size)
    key, value = (_Gathered.apply(t, group.sequence_group) for t in (key, value))
    outputs = []
    for i, q in zip((rank, 2 * size - 1 - rank), query.chunk(2, 2), strict=True):
        end = (i + 1) * each
        outputs.append(causal_tail(q, key[:, :, :end], value[:, :, :end], scaling))
    return torch.cat(outputs, 2).transpose(1, 2).contiguous(), None


def register(group: Group, rope: Rope) -> str:
    """Make shared_attention of this group known to transformers; returns its name.

    Raises AttentionError for a dynamic rope: it depends on the whole length, and each process sees a part.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    if rope.dynamic:
        raise AttentionError(f"processes can't share sequences of {rope.method}: set context: 1")
    AttentionInterface.register(NAME, partial(shared_attention, group))
    AttentionMaskInterface.register(NAME, without_mask)
    return NAME
