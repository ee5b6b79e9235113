"""Weights that were published as .bin files only: read as plain tensors, written once as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yarnlab.hub.api import HubError
from yarnlab.provenance import replacing, sha256_of


def convert(folder: Path, files: list[str]) -> dict[str, Any]:
    """Make safetensors of every pytorch_model*.bin in `folder`; {} where there are none.

    Returns `sources` (name → sha256 of the .bin), `files` (what was written) and `torch`, for the record. The .bin
    files stay, so that the next fetch finds them right. One shard is in memory at a time. Raises HubError for a file
    that holds anything but tensors.
    """
    shards = sorted(name for name in files if name.endswith(".bin"))
    if not shards:
        return {}
    import torch

    sources = {name: sha256_of(folder / name) for name in shards}
    record = _recorded(folder)
    if record.get("sources") == sources and all((folder / name).exists() for name in record["files"]):
        return record
    weight_map: dict[str, str] = {}
    total, written = 0, []
    for i, name in enumerate(shards):
        target = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        tensors = _load(folder / name)
        with replacing(folder / target) as temporary:
            _save(tensors, temporary)
        weight_map |= dict.fromkeys(tensors, target)
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        written.append(target)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        with replacing(folder / "model.safetensors.index.json") as temporary:
            temporary.write_text(json.dumps(index, indent=1), encoding="utf-8")
        written.append("model.safetensors.index.json")
    return {"sources": sources, "files": written, "torch": torch.__version__}


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "asset.json").read_text(encoding="utf-8")).get("conversions", {})
    except (OSError, ValueError):
        return {}


def _load(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # an old file that can't be mapped
        content = _unmapped(path)
    except Exception as error:
        raise _refused(path, type(error).__name__) from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise _refused(path, "something else than named tensors")
    return content


def _unmapped(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refused(path, type(error).__name__) from None


def _refused(path: Path, why: str) -> HubError:
    return HubError(
        f"{path} holds more than plain tensors ({why}) and is not loaded: such a file can run code. Use a revision "
        "with safetensors"
    )


def _save(tensors: dict[str, Any], target: Path) -> None:
    """Each tensor by itself: several views of one storage, as tied weights are, can't be saved as they are."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, target, {"format": "pt"})
