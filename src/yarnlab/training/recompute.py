"""Activation checkpointing: a layer's intermediate values are computed again in the backward pass.

Only each layer's input is kept: rows × seq_len × hidden_size numbers, in device memory (`full`) or in the host's
(`offload`: 0.5 GB a layer of a 7B model at 65,536 tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


def recompute_layers(layers: nn.ModuleList, mode: str) -> None:
    """Have each layer recomputed: `mode` is a study's activation_checkpointing.

    Each layer's own `forward` is replaced, so that FSDP's hooks stay outside: they gather a layer's weights once for
    its recomputation and its backward pass, and names of parameters do not change.
    """
    if mode == "none":
        return
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward, mode == "offload")


def _recomputed(forward: Callable[..., Any], offload: bool, hidden: Tensor, *arguments: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(hidden, *arguments, **options)
    run = partial(checkpoint, forward, hidden, *arguments, use_reentrant=False, preserve_rng_state=False, **options)
    if not offload:
        return run()

    def pack(tensor: Tensor) -> Tensor | tuple[torch.device, Tensor]:
        # checkpoint saves all of its inputs; cos and sin are shared by all layers and stay where they are.
        if tensor.data_ptr() != hidden.data_ptr() or tensor.shape != hidden.shape:
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return tensor.device, host.copy_(tensor, non_blocking=True)

    def unpack(packed: Tensor | tuple[torch.device, Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed[1].to(packed[0], non_blocking=True)

    with saved_tensors_hooks(pack, unpack):
        return run()
