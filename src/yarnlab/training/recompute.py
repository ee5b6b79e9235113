"""Activation checkpointing: a layer's intermediate values are computed again in the backward pass.

Kept is each layer's input, rows × seq_len × hidden_size numbers, in device memory (`full`) or in the host's (`offload`:
0.5 GB a layer of a 7B model at 65,536 tokens). `selective` keeps what attention's kernel returns too, as much again:
at that length attention is most of the work, and none of it is done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from yarnlab.attention import OPERATIONS, AttentionError


def recompute_layers(layers: nn.ModuleList, mode: str) -> None:
    """Have each layer recomputed: `mode` is a study's activation_checkpointing.

    Each layer's own `forward` is replaced, so that FSDP's hooks stay outside: they gather a layer's weights once for
    its recomputation and its backward pass, and names of parameters do not change. A forward pass raises AttentionError
    if `selective` finds no operation of attention that it could keep.
    """
    if mode == "none":
        return
    for layer in layers:
        layer.forward = partial(_MODES[mode], layer.forward)


def _full(forward: Callable[..., Any], hidden: Tensor, *arguments: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(hidden, *arguments, **options)
    return checkpoint(forward, hidden, *arguments, use_reentrant=False, preserve_rng_state=False, **options)


def _offload(forward: Callable[..., Any], hidden: Tensor, *arguments: Any, **options: Any) -> Any:
    # A hook lives as long as what it has packed: one that knew the tensor itself would keep it on the device.
    place, shape = hidden.data_ptr(), hidden.shape

    def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        # checkpoint saves all of its inputs; cos and sin are shared by all layers and stay where they are.
        if tensor.data_ptr() != place or tensor.shape != shape:
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return tensor.device, host.copy_(tensor, non_blocking=True)

    def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed[1].to(packed[0], non_blocking=True)

    with saved_tensors_hooks(pack, unpack):
        return _full(forward, hidden, *arguments, **options)


def _selective(forward: Callable[..., Any], hidden: Tensor, *arguments: Any, **options: Any) -> Any:
    kept = False

    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        nonlocal kept
        if not operation.name().startswith(OPERATIONS):
            return CheckpointPolicy.PREFER_RECOMPUTE
        kept = True
        return CheckpointPolicy.MUST_SAVE

    out = _full(
        forward, hidden, *arguments, context_fn=partial(create_selective_checkpoint_contexts, policy), **options
    )
    if torch.is_grad_enabled() and not kept:
        raise AttentionError(
            "activation_checkpointing: selective keeps what attention's kernel returns, and this attention is made of "
            "several operations: use activation_checkpointing: full, or a kernel (YARNLAB_ATTENTION=sdpa)"
        )
    return out


_MODES = {"full": _full, "offload": _offload, "selective": _selective}
