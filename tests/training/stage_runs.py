"""The stage `train` on a tiny model: its section of a study, the jobs that run it, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import torch
from tiny_runs import VOCABULARY, during, phase

from yarnlab.stages.layout import Layout
from yarnlab.stages.models import make_model
from yarnlab.study.training import EXECUTION, Parallel, Train

PLAIN, YARN = {"method": "none", "scale": 1.0}, {"method": "yarn", "scale": 4.0}


def spec(shape, name: str, parent: str | None, ways: dict) -> dict:
    chosen = phase(steps=3).model_copy(update={"parallel": Parallel.model_validate(ways)})
    return {
        "model": name,
        "arm": name,
        "seed": 0,
        "architecture": shape.model_dump(),
        "rope": PLAIN if parent is None else YARN,
        "kind": "pretrain" if parent is None else "finetune",
        "parent": parent,
        "asset": None,
        "drop_sliding_window": False,
        "depth": 0 if parent is None else 1,
        "vocab_size": VOCABULARY,
        "phases": [chosen.model_dump(mode="json")],
    }


def make(layout: Layout, given: dict) -> None:
    """`given` has whole phases; the stage gets what is in the section and the rest by itself."""
    phases = [Train.model_validate(phase) for phase in given["phases"]]
    section = given | {"phases": [phase.model_dump(mode="json", exclude=EXECUTION) for phase in phases]}
    execution = [phase.model_dump(mode="json", include=EXECUTION) for phase in phases]
    make_model(layout, given["model"], section, "v2", layout.root / f"{given['model']}.log", execution=execution)


def make_and_stop(layout: Layout, given: dict, step: int) -> None:
    """SIGTERM arrives in the last micro-batch of that step."""
    during(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    make(layout, given)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def step_log(layout: Layout, name: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in layout.training(name).read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def run_id(layout: Layout, name: str) -> str:
    return json.loads((layout.root / "tracking" / "records" / f"train.{name}.json").read_text())["run"]
