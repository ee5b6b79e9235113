"""Which rows of each weight a process holds, reading only those from safetensors files, and whole weights again.

A weight is either whole in every process, or sharded by its first dimension (FSDP2) in equal parts of ⌈n / processes⌉
rows, of which the last processes may have fewer or none.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from yarnlab.errors import UserError
from yarnlab.weights import INDEX, weight_map


class WeightsError(UserError):
    """Weights on disk that are not those of the model; the message names them."""


def part(tensor: Tensor) -> Tensor:
    """This process's rows of a weight, its gradient or its moments: the tensor itself where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows(tensor: Tensor) -> slice:
    """Which rows of the whole tensor `part` has."""
    if not isinstance(tensor, DTensor):
        return slice(0, tensor.shape[0] if tensor.dim() else 1)
    if tensor.placements != (Shard(0),):
        raise ValueError(f"a weight is placed as {tensor.placements}, not in rows over one dimension of processes")
    mesh = tensor.device_mesh
    first, last = rows_of(tensor.shape[0], mesh.get_local_rank(), mesh.size())
    return slice(first, last)


def rows_of(count: int, rank: int, size: int) -> tuple[int, int]:
    """(first, behind the last) of `count` rows that process `rank` of `size` holds, as torch.chunk cuts them."""
    each = -(-count // size)
    return min(rank * each, count), min((rank + 1) * each, count)


def whole(tensor: Tensor) -> Tensor:
    """The whole weight in every process; all must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(model: nn.Module, dtype: torch.dtype, keep: bool) -> dict[str, Tensor]:
    """Every weight, whole, in `dtype` in host memory, where `keep` is set; else nothing. All processes call it.

    One weight at a time is gathered, so a device needs room for one, and a host that keeps them for one model.
    """
    kept = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter.detach())
        if keep:
            kept[name] = tensor.to(dtype=dtype, device="cpu", copy=True)
    return kept


def read_weights(model: nn.Module, folder: Path) -> None:
    """Fill every parameter from a checkpoint's safetensors files; each process reads only the rows that it holds.

    Raises WeightsError for a weight that is missing or has another shape.
    """
    from safetensors import safe_open

    files = _files(folder)
    problems = []
    with ExitStack() as opened, torch.no_grad():
        handles: dict[Path, Any] = {}
        for name, parameter in model.named_parameters():
            stored_as = name if name in files else _older_name(model, name, parameter)
            if stored_as not in files:
                problems.append(f"{name} is missing")
                continue
            file = files[stored_as]
            if file not in handles:
                handles[file] = opened.enter_context(safe_open(file, framework="pt"))
            stored = handles[file].get_slice(stored_as)
            if tuple(stored.get_shape()) != tuple(parameter.shape):
                problems.append(f"{name} is {tuple(stored.get_shape())}, the model's {tuple(parameter.shape)}")
                continue
            if (mine := part(parameter)).numel():
                mine.copy_(stored[rows(parameter)])
    if problems:
        raise WeightsError(f"{folder}: {'; '.join(problems[:5])}{' …' if len(problems) > 5 else ''}")


def _older_name(model: nn.Module, name: str, parameter: Tensor) -> str:
    """What files of the family call a weight that transformers has renamed (GPT-NeoX's head); else its own name."""
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    if not isinstance(model, PreTrainedModel):
        return name
    stored = revert_weight_conversion(model, {name: torch.empty(parameter.shape, device="meta")})
    return next(iter(stored)) if len(stored) == 1 else name


def _files(folder: Path) -> dict[str, Path]:
    """Weight name → file of a checkpoint in one file or several."""
    from safetensors import safe_open

    index = folder / INDEX
    if index.exists():
        names = weight_map(index)
        return {name: folder / file for name, file in names.items()}
    with safe_open(folder / "model.safetensors", framework="pt") as opened:
        return dict.fromkeys(opened.keys(), folder / "model.safetensors")
