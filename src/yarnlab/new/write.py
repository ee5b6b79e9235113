"""`yarnlab new`: write the study file, and say what it is, what it takes and how to go on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from yarnlab.new.machine import Machine, find_machine
from yarnlab.new.parent import NewError, find_parent
from yarnlab.new.study import new_context, new_study, unsound
from yarnlab.new.text import local_text, published_text
from yarnlab.plan.stages import Plan
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
SEED = 42
LARGEST_SCALE = 10_000  # beyond any text that there is


def write_study(
    name: str,
    folder: Path,
    *,
    model: str,
    revision: str,
    scale: float,
    text: Sequence[str],
    column: str,
    ignored: Sequence[str],
    device: str | None,
    hours: float | None,
    force: bool,
) -> str:
    """Write `folder`/`name`.yaml; returns what to tell. The options are those of the command.

    Raises UserError: NewError for what can't be done as asked, HubError, CorpusError, UnsupportedModel. Nothing is
    written then but what the model's config.json says of its shape.
    """
    file = folder / f"{name}.yaml"
    if not NAME.fullmatch(name):
        raise NewError(f"{name!r} is no name of a study: small letters, digits, dots and hyphens, 64 at most")
    if file.exists() and not force:
        raise NewError(f"{file} is there already: choose another name, or overwrite it with --force")
    if not 1 < scale <= LARGEST_SCALE:
        raise NewError(
            f"--scale {scale:g}: give how many times the window shall be, a number above 1 (and at most "
            f"{LARGEST_SCALE:,})"
        )
    machine = find_machine(device, hours)
    parent = find_parent(model, revision, ignored)
    context = new_context(parent, scale)
    found = local_text(text, column, parent, context, SEED) if text else published_text()
    content, plan = new_study(name, parent, found, context, machine, SEED)
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text(content, encoding="utf-8")
    try:
        study = load_study(file)
    except StudyError as error:  # nothing half right stays, so no line of the file can be named
        file.unlink() if before is None else file.write_text(before, encoding="utf-8")
        problems = "; ".join(line.partition(": ")[2] for line in str(error).splitlines())
        raise unsound(parent, problems) from None
    trained = [arm for arm, made in study.models.items() if made.train is not None]
    return "\n".join(
        [
            f"{file}: {parent.name} ({parent.architecture.family}) from {parent.window:,} to {context:,} tokens",
            f"  trained: {', '.join(trained) or 'nothing'}; {found.documents} held-out documents that are long enough",
            *([f"  {parent.said_of_documents}"] if parent.said_of_documents else []),
            *_cost(plan, machine),
            *_next(name, machine),
        ]
    )


def _cost(plan: Plan, machine: Machine) -> list[str]:
    totals, unit = plan.totals(), "GPU-hours" if machine.device.is_gpu else "core-hours"
    training = sum(plan.device_hours(stage) for stage in plan.stages if stage.stage == "train")
    return [
        f"Cost on {machine.count} x {machine.device.name} at {plan.mfu:.0%} of the peak, {len(plan.stages)} stages:",
        f"  {totals['device_hours']:.2g} {unit}, {training:.2g} of them training, and some seconds a stage to start",
        f"  {totals['peak_memory'] / 1e9:.1f} GB of memory at the peak, "
        f"{(totals['disk'] + totals['scratch']) / 1e9:.2g} GB of disk, {totals['download'] / 1e9:.2g} GB of downloads",
    ]


def _next(name: str, machine: Machine) -> list[str]:
    run, device = ("envs/run --gpu", "") if machine.device.is_gpu else ("envs/run", " --device cpu")
    return [
        "Next:",
        f"  {run} yarnlab plan {name}{device}",
        f"  {run} snakemake --cores all --config study={name}",
        f"  then open results/{name}/report.html",
    ]
