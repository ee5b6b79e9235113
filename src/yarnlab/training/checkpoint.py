"""Checkpoints from which training continues bit for bit: weights, AdamW moments and the place in the run.

No random state: rows follow from (seed, step) and the models have no dropout. Everything is safetensors and JSON,
so nothing that is loaded can execute code. A checkpoint is complete or absent: it is renamed into place when every
process has written its part; the sha256 of each file of rows lies beside it, that of place.json in it. Sharded models
are written as one file of rows for each process, whole ones as one file by the leader; either can be read by any number
of processes.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from yarnlab.provenance import read_json, record_is_intact, sha256_of, write_record
from yarnlab.training.checkpoint_files import DIGEST, PLACE, UNFINISHED, rows_file, rows_intact
from yarnlab.training.lock import StateBusy as StateBusy
from yarnlab.training.parallel import Group
from yarnlab.training.shards import part, rows, rows_of
from yarnlab.weights import save_tensors

KEPT = 2  # the newest and the one before, should the newest prove unreadable
FORMAT = 4
MOMENTS = ("exp_avg", "exp_avg_sq")


class CheckpointFailed(OSError):
    """A checkpoint could not be written; those before it are as they were."""


@dataclass(frozen=True)
class TrainState:
    """`step` optimizer steps of phase `phase` are done; counters run over all phases."""

    phase: int = 0
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def after_step(self, tokens: int, seconds: float) -> TrainState:
        """The state one step of the same phase later."""
        return replace(
            self,
            step=self.step + 1,
            total_steps=self.total_steps + 1,
            tokens=self.tokens + tokens,
            seconds=self.seconds + seconds,
        )


def save(
    state: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_state: TrainState,
    group: Group,
    notes: Mapping[str, Any],
) -> None:
    """Write checkpoint-<total_steps>, then drop all but it and the one before. Every process of the group calls it.

    notes: JSON, the leader's, that comes back with the weights: the step log.
    Raises CheckpointFailed, in all processes, if any of them can't write its part.
    """
    sharded = any(isinstance(p, DTensor) for p in model.parameters())
    files = group.size if sharded else 1
    target, temporary = state / f"checkpoint-{train_state.total_steps:08d}", state / UNFINISHED
    reason: OSError | None = None
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        if sharded or group.is_leader:
            _write(temporary / rows_file(group.rank if sharded else 0, files), model, optimizer)
        if group.is_leader:
            place = {"format": FORMAT, "files": files, "state": asdict(train_state), "notes": dict(notes)}
            write_record(temporary / PLACE, place)
            _sync(temporary / PLACE)
    except OSError as error:
        reason = error
    if not group.all_true(reason is None):
        shutil.rmtree(temporary, ignore_errors=True)
        why = f"{reason}" if reason is not None else "another process could not write its part"
        raise CheckpointFailed(f"{target}: {why}. The checkpoints before it are kept; run the same command again")
    if group.is_leader:
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        there = _checkpoints(state)
        # Those of later steps were unreadable, or this training would have begun with one of them.
        kept = there[there.index(target) :][:KEPT]
        for other in there:
            if other not in kept:
                shutil.rmtree(other)
    group.all_true(True)  # nobody starts the next one before this has its name


def _write(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """This process's rows of every weight and moment."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = part(parameter.detach())
        moments = optimizer.state[parameter]
        tensors |= {f"optimizer.{name}.{key}": part(moments[key]) for key in MOMENTS}
        tensors[f"optimizer.{name}.step"] = moments["step"]
    save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    _sync(file)
    digest = file.with_suffix(DIGEST)
    digest.write_text(sha256_of(file), encoding="utf-8")
    _sync(digest)


@dataclass(frozen=True)
class Found:
    """A readable checkpoint: where it is, the model that it continues, and what `save` was given to note."""

    folder: Path
    train_state: TrainState
    files: int
    model: nn.Module
    notes: dict[str, Any]

    def restore(self, optimizer: torch.optim.Optimizer | None) -> None:
        """Copy this process's rows into the model and, unless None, the optimizer."""
        with ExitStack() as opened, torch.no_grad():
            stored = _Stored(self.folder, self.files, opened)
            for name, parameter in self.model.named_parameters():
                stored.fill(parameter, f"model.{name}")
                if optimizer is None:
                    continue
                moments = {key: torch.zeros_like(parameter) for key in MOMENTS}
                for key, moment in moments.items():
                    stored.fill(moment, f"optimizer.{name}.{key}")
                step = stored.handles[0].get_tensor(f"optimizer.{name}.step").to(part(parameter).device)
                optimizer.state[parameter] = {"step": step, **moments}


class _Stored:
    """The files of one checkpoint, open; any rows of any tensor."""

    def __init__(self, folder: Path, files: int, opened: ExitStack) -> None:
        from safetensors import safe_open

        paths = [folder / rows_file(i, files) for i in range(files)]
        self.handles: list[Any] = [opened.enter_context(safe_open(path, framework="pt")) for path in paths]

    def fill(self, tensor: Tensor, name: str) -> None:
        """Copy a tensor's rows, of those that this process holds, from whichever files have them."""
        mine, local, size = rows(tensor), part(tensor), len(self.handles)
        for i, handle in enumerate(self.handles):
            start, stop = rows_of(tensor.shape[0], i, size)
            first, last = max(start, mine.start), min(stop, mine.stop)
            if first < last:
                local[first - mine.start : last - mine.start] = handle.get_slice(name)[first - start : last - start]


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def newest(state: Path, model: nn.Module, group: Group, say: Callable[[str], None] = _print) -> Found | None:
    """The newest checkpoint that every process can read, or None; the leader says which ones are passed over.

    All processes agree on it: the leader's list counts, and each says whether it can open all files. Their bytes are
    compared with what was written too, each file by one process.
    """
    for number in group.broadcast([int(folder.name.split("-")[1]) for folder in _checkpoints(state)]):
        found = _readable(state / f"checkpoint-{number:08d}", model, group)
        if group.all_true(found is not None):
            return found
        if group.is_leader:
            say(f"{state / f'checkpoint-{number:08d}'} is not what was written, or can't be read: it is passed over")
    return None


def _readable(folder: Path, model: nn.Module, group: Group) -> Found | None:
    from safetensors import SafetensorError

    try:
        place = read_json(folder / PLACE)
        if not record_is_intact(folder / PLACE) or place["format"] != FORMAT:
            return None
        files = place["files"]
        with ExitStack() as opened:
            stored = _Stored(folder, files, opened)  # checks each file's header against its size
            for handle in stored.handles:
                if not {f"model.{name}" for name, _ in model.named_parameters()} <= set(handle.keys()):
                    return None
        if not all(rows_intact(folder / rows_file(i, files)) for i in range(group.rank, files, group.size)):
            return None
        return Found(folder, TrainState(**place["state"]), files, model, place["notes"])
    except (OSError, ValueError, TypeError, KeyError, SafetensorError):
        return None


def remove_unfinished(state: Path, group: Group) -> None:
    """Remove what a killed run left halfway. Every process of the group calls it."""
    if group.is_leader:
        shutil.rmtree(state / UNFINISHED, ignore_errors=True)
    group.all_true(True)


def _checkpoints(state: Path) -> list[Path]:
    """Complete checkpoints, the newest first."""
    return sorted(state.glob(f"checkpoint-{'[0-9]' * 8}"), reverse=True)


def _sync(file: Path) -> None:
    """Have the file on disk before anything says that it is: a machine may fail right after."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
