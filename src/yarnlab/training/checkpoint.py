"""Checkpoints from which training continues bit for bit: weights, AdamW moments and the place in the run.

No random state: rows follow from (seed, step) and the models have no dropout. Everything is safetensors and JSON,
so nothing that is loaded can execute code. A checkpoint is complete or absent: it is renamed into place.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

KEPT = 2  # the newest and the one before, should the newest prove unreadable


class StateBusy(RuntimeError):
    """Another process trains from the same state folder."""


@dataclass(frozen=True)
class Place:
    """`step` optimizer steps of phase `phase` are done; counters run over all phases."""

    phase: int = 0
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def after_step(self, tokens: int, seconds: float) -> Place:
        """The place one step of the same phase later."""
        return replace(
            self,
            step=self.step + 1,
            total_steps=self.total_steps + 1,
            tokens=self.tokens + tokens,
            seconds=self.seconds + seconds,
        )


@contextmanager
def exclusive(state: Path, writes: bool = True) -> Iterator[None]:
    """Hold the state folder's lock, so that there are never two writers of one state; readers need none.

    Raises StateBusy if another live process holds it; a dead one's lock is gone with it.
    """
    import fcntl

    if not writes:
        yield
        return
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StateBusy(
                f"{state} is in use by another training process; wait for it or stop it, then run again"
            ) from None
        yield


def save(state: Path, model: nn.Module, optimizer: torch.optim.Optimizer, place: Place) -> None:
    """Write checkpoint-<total_steps>, then drop all but the newest two."""
    from safetensors.torch import save_file

    tensors = {f"model.{name}": p.detach().clone() for name, p in model.named_parameters()}
    for i, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{key}": value for key, value in values.items()}
    target, temporary = state / f"checkpoint-{place.total_steps:08d}", state / ".checkpoint.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(tensors, temporary / "state.safetensors")
    (temporary / "place.json").write_text(json.dumps(asdict(place)), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    for old in _checkpoints(state)[KEPT:]:
        shutil.rmtree(old)


def newest(state: Path) -> tuple[Place, dict[str, torch.Tensor]] | None:
    """The newest readable checkpoint, or None: an unreadable one is passed over for the one before it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for folder in _checkpoints(state):
        try:
            place = Place(**json.loads((folder / "place.json").read_text(encoding="utf-8")))
            return place, load_file(folder / "state.safetensors")
        except (OSError, ValueError, TypeError, SafetensorError):
            continue
    return None


def restore(tensors: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Copy a checkpoint's tensors into the model and, unless None, the optimizer."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    if optimizer is None:
        return
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".", 2)
            state.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _checkpoints(state: Path) -> list[Path]:
    """Complete checkpoints, the newest first."""
    return sorted(state.glob("checkpoint-*"), reverse=True)
