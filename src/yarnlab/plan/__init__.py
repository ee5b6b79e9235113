"""What a study will take before anything starts: operations, hours, memory, disk, downloads (`yarnlab plan`).

FLOPs and memory are closed forms (`yarnlab.cost`); hours follow from a stated share of the device's peak. Overheads
of compilation, input and start-up are not counted.
"""

from __future__ import annotations

from pathlib import Path

from yarnlab.cost.devices import DEVICES, Device, this_cpu
from yarnlab.hub.lock import lock_file
from yarnlab.plan import evaluations, models, storage
from yarnlab.plan.render import render
from yarnlab.plan.stages import Plan, PlanError, Stage, needed, room
from yarnlab.study.schema import Study

__all__ = ["Plan", "PlanError", "Stage", "plan_study", "render"]


def plan_study(study: Study, device: str | Device | None = None, mfu: float = 0.4, lock: Path | None = None) -> Plan:
    """The plan of a whole study.

    Args:
        device: a name in `DEVICES`, `cpu` (this machine, measured), or a device; by default an H100 where a published
            model is used, else this machine's CPU.
        mfu: the share of the device's dense peak that is reached, counting attention causally.
        lock: the file in which the hub's file sizes are recorded; by default the project's.

    Raises PlanError for a device that is not known and for an mfu outside 0 … 1. A study that does not fit gives a
    plan with `problems`; `Plan.check` raises them.
    """
    if not 0 < mfu <= 1:
        raise PlanError(f"mfu is the share of the peak that is reached, above 0 and up to 1, not {mfu:g}")
    usual = "h100" if any(model.hub is not None for model in study.models.values()) else "cpu"
    machine = device if isinstance(device, Device) else _device(device or usual)
    made: list[Stage] = []
    notes: dict[str, None] = {}
    problems: list[str] = []
    if machine.peak < machine.peak_fp32 / 2:
        factor = machine.peak_fp32 / machine.peak
        notes[f"this CPU has no fast bf16: `precision: fp32` is about {factor:.0f} times as fast here"] = None
    for stage, note in storage.stages(study, lock or lock_file()):
        made.append(stage)
        notes |= {note: None} if note else {}
    for stage, problem in models.stages(study, machine):
        made.append(stage)
        problems += [problem] if problem else []
    for _, settings in study.evaluations:
        for model, (arm, _) in study.instances().items():
            if settings is None or arm not in settings.models:
                continue
            stage, note = evaluations.stage(study, settings, arm, model, machine)
            made.append(stage)
            notes |= {note: None} if note else {}
            if needed(stage, machine) > room(machine):
                problems.append(f"{models.too_large(stage, machine)} Shorten its lengths, or use a larger device.")
    return Plan(study.study, study.title, machine, mfu, tuple(made), tuple(notes), tuple(problems))


def _device(name: str) -> Device:
    if name == "cpu":
        return this_cpu()
    if name not in DEVICES:
        raise PlanError(f"unknown device {name!r}; known: {', '.join((*DEVICES, 'cpu'))}")
    return DEVICES[name]
