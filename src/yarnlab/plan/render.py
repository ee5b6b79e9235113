"""A plan as text tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from typing import TYPE_CHECKING

from yarnlab.plan.stages import Plan, Stage, room

if TYPE_CHECKING:
    from rich.table import Table


def render(plan: Plan, width: int = 118) -> str:
    """The plan as plain text, `width` characters wide: models, memory, evaluations, storage, totals, then what is
    assumed and what cannot run."""
    from rich.console import Console

    out = StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    device = plan.device
    console.print(
        f"{plan.study}: {plan.title}\nOn {device.name}: {_number(device.peak / 1e12)} TFLOP/s dense bf16 a "
        f"{'GPU' if device.is_gpu else 'core'}, {device.memory / 1e9:.1f} GB ({device.source}); utilisation "
        f"{plan.mfu:.0%} of the peak, attention counted causally.\n"
    )
    trained = [stage for stage in plan.stages if stage.stage == "train" and stage.devices]
    if trained:
        console.print(_work(plan, "Training", trained, lambda stage: stage.name))
        console.print(_memory(plan, trained))
    evaluated = [stage for stage in plan.computing if stage.stage != "train"]
    if evaluated:
        console.print(_work(plan, "Evaluations, all models together", evaluated, lambda stage: stage.stage))
    console.print(_storage(plan))
    console.print(_totals(plan))
    for title, lines in (("Assumed", plan.notes), ("Cannot run", plan.problems)):
        if lines:
            console.print(f"\n{title}:\n" + "\n".join(lines), markup=False)
    return out.getvalue()


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _work(plan: Plan, title: str, stages: list[Stage], key: Callable[[Stage], str]) -> Table:
    unit = "GPU-hours" if plan.device.is_gpu else "core-hours"
    jobs = "GPUs" if plan.device.is_gpu else "cores"
    table = _table(
        title, "stage", "jobs", "EFLOP causal", "EFLOP palm", unit, f"{jobs} a job", "hours a job", "peak GB"
    )
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    for name, group in groups.items():
        devices = sorted({stage.devices for stage in group})
        table.add_row(
            name,
            str(len(group)),
            _number(sum(stage.flops for stage in group) / 1e18),
            _number(sum(stage.flops_palm for stage in group) / 1e18),
            _number(sum(map(plan.device_hours, group))),
            "-".join(map(str, devices[:: max(1, len(devices) - 1)])),
            _number(max(map(plan.wall_hours, group))),
            _number(max(stage.peak for stage in group) / 1e9),
        )
    table.add_section()
    whole = sum(map(plan.device_hours, stages))
    sums = (sum(stage.flops for stage in stages) / 1e18, sum(stage.flops_palm for stage in stages) / 1e18, whole)
    table.add_row("all", str(len(stages)), *map(_number, sums), "", "", "")
    return table


def _memory(plan: Plan, stages: list[Stage]) -> Table:
    """One row for each distinct budget, named after the models that share it."""
    budgets: dict[tuple[tuple[str, float], ...], list[Stage]] = {}
    for stage in stages:
        budgets.setdefault(tuple(stage.memory.items()), []).append(stage)
    place = "GPU" if plan.device.is_gpu else "process"
    usable = f"{room(plan.device) / 1e9:.1f} GB usable{'' if plan.device.is_gpu else ' on the machine'}"
    names = list(dict.fromkeys(name for budget in budgets for name, _ in budget))
    columns = [", ".join(stage.name for stage in group[:2]) + (" …" if group[2:] else "") for group in budgets.values()]
    table = _table(f"Peak memory of one {place} in training, GB ({usable})", "component", *columns)
    for name in names:
        table.add_row(name, *(_number(dict(budget).get(name, 0.0) / 1e9) for budget in budgets))
    table.add_section()
    table.add_row("all", *(_number(group[0].peak / 1e9) for group in budgets.values()))
    if any(group[0].host for group in budgets.values()):
        table.add_row("host memory beside it", *(_number(group[0].host / 1e9) for group in budgets.values()))
    return table


def _storage(plan: Plan) -> Table:
    table = _table("Disk and download, GB", "what", "number", "disk", "while it runs", "download")
    kinds = {
        "assets": [stage for stage in plan.stages if stage.stage == "asset"],
        "corpora": [stage for stage in plan.stages if stage.stage == "corpus"],
        "models": [stage for stage in plan.stages if stage.stage == "train"],
        "evaluations": [stage for stage in plan.computing if stage.stage != "train"],
    }
    for name, stages in kinds.items():
        if stages:
            unknown = sum(stage.download is None for stage in stages)
            table.add_row(
                name,
                str(len(stages)),
                _number(sum(stage.disk for stage in stages) / 1e9),
                _number(max(stage.scratch for stage in stages) / 1e9),
                _number(sum(stage.download or 0 for stage in stages) / 1e9)
                + (f" + {unknown} unknown" if unknown else ""),
            )
    return table


def _totals(plan: Plan) -> str:
    totals = plan.totals()
    unit = "GPU-hours" if plan.device.is_gpu else "core-hours"
    unknown = int(totals["downloads_of_unknown_size"])
    return (
        f"In all: {_number(totals['flops'] / 1e18)} EFLOP causal ({_number(totals['flops_palm'] / 1e18)} palm), "
        f"{_number(totals['device_hours'])} {unit}. {_number(totals['wall_hours_one_by_one'])} hours if every job runs "
        f"alone, {_number(totals['wall_hours_longest_chain'])} if all that can run side by side do. Disk "
        f"{_number((totals['disk'] + totals['scratch']) / 1e9)} GB, {_number(totals['scratch'] / 1e9)} of it while a "
        f"model trains; download {_number(totals['download'] / 1e9)} GB"
        + (f" and {unknown} assets of unknown size." if unknown else ".")
    )


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2g}" if value < 0.095 else f"{value:.2f}"
