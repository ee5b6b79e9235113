"""Weights that were published as .bin files only: read as plain tensors, written once as safetensors.

The result is a function of the .bin files alone, byte for byte. The unpickler is torch's restricted one
(`weights_only`), which knows tensors and containers and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.hub.errors import HubError
from yarnlab.lazy import torch
from yarnlab.provenance import replacing, sha256_of
from yarnlab.weights import INDEX, save_tensors


@dataclass(frozen=True)
class Conversion:
    """Which .bin became which safetensors file."""

    source: str
    source_sha256: str
    file: str
    sha256: str


def target_name(source: str) -> str:
    """pytorch_model-00001-of-00002.bin → model-00001-of-00002.safetensors, as transformers expects it."""
    return source.replace("pytorch_model", "model").removesuffix(".bin") + ".safetensors"


def convert(source: Path, source_sha256: str, target: Path) -> Conversion:
    """Write the tensors of one shard as safetensors; the .bin stays. Memory: the mapped shard, and what ties share.

    Raises HubError for a file that holds anything but named tensors, OSError if the disk is full.
    """
    with _one_thread():
        tensors = _separate(_load(source))
        with replacing(target) as temporary:
            save_tensors(tensors, temporary, {"format": "pt"})
            digest = sha256_of(temporary)
    return Conversion(source.name, source_sha256, target.name, digest)


def write_index(folder: Path, files: Sequence[str]) -> Path:
    """The index of converted shards: which tensor is in which file, from what the files really hold."""
    from safetensors import safe_open

    weight_map: dict[str, str] = {}
    total = 0
    for name in files:
        with safe_open(folder / name, framework="pt") as shard:
            for key in shard.keys():  # noqa: SIM118 (no mapping)
                weight_map.setdefault(key, name)
        with (folder / name).open("rb") as file:  # without the header, whose length stands in the first eight bytes
            total += (folder / name).stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    with replacing(folder / INDEX) as temporary:
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder / INDEX


def _load(path: Path) -> dict[str, Any]:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of torch < 1.6 can't be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, KeyError, …: whatever a broken or foreign pickle raises
        raise _refused(path, f"{type(error).__name__} on reading it") from None
    if not isinstance(content, Mapping):
        raise _refused(path, f"a {type(content).__name__}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise _refused(path, f"{key!r} is a {type(value).__name__}")
    return dict(content)


def _separate(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Each tensor with memory of its own, in order of names.

    Tied weights share a storage, which a safetensors file can't express; whoever loads it ties them again. A tensor
    that is a part of a larger storage would take the whole of it along.
    """
    seen: set[int] = set()
    separate = {}
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        storage = tensor.untyped_storage()
        alone = storage.nbytes() == tensor.numel() * tensor.element_size() and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        separate[name] = tensor if alone and tensor.is_contiguous() else tensor.contiguous().clone()
    return separate


@contextmanager
def _one_thread() -> Iterator[None]:
    """Copying is bound by the disk: leave the cores to the jobs beside this one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _refused(path: Path, why: str) -> HubError:
    return HubError(
        f"{path} holds more than named tensors ({why}) and is not loaded: such a file can run code. Use a repository "
        "or a revision with safetensors"
    )
