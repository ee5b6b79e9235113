"""A plan as data: what each stage of a study will take, before anything has started."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from yarnlab.cost.devices import Device
from yarnlab.cost.memory import HELD_BACK, Components
from yarnlab.errors import UserError


class PlanError(UserError):
    """A study that cannot run on the device as it is; the message names each stage, its memory and what to change."""


@dataclass(frozen=True)
class Stage:
    """One job.

    stage: asset, corpus, train, or a kind of evaluation; `name`: the asset, corpus or model.
    flops, flops_palm: of the whole job by both conventions.
    devices: accelerators (CPU: cores) that it runs on; they are used all the while.
    processes: how many share one machine's memory, where the device is a CPU.
    memory: peak bytes of one process by component.
    host: bytes of host memory that one process takes beside a GPU's.
    disk: bytes that stay; scratch: bytes that are removed when the job ends.
    download: bytes to fetch; None if nobody has recorded them yet.
    after: models that must be ready before.
    """

    stage: str
    name: str
    flops: float = 0.0
    flops_palm: float = 0.0
    precision: str = "bf16"
    devices: int = 0
    processes: int = 1
    memory: Components = field(default_factory=dict)
    host: float = 0.0
    disk: float = 0.0
    scratch: float = 0.0
    download: float | None = 0.0
    after: tuple[str, ...] = ()

    @property
    def peak(self) -> float:
        """Peak bytes of one process."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class Plan:
    """All stages of a study on one kind of device at one utilisation (share of the dense peak, causal FLOPs).

    notes: assumptions behind numbers that the study file does not decide.
    problems: one message for each stage that cannot run.
    """

    study: str
    title: str
    device: Device
    mfu: float
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def device_hours(self, stage: Stage) -> float:
        return stage.flops / (self.mfu * self.device.rate(stage.precision)) / 3600

    def wall_hours(self, stage: Stage) -> float:
        return self.device_hours(stage) / stage.devices if stage.devices else 0.0

    @property
    def computing(self) -> tuple[Stage, ...]:
        return tuple(stage for stage in self.stages if stage.devices)

    def longest_chain(self) -> float:
        """Wall hours if everything that can run side by side does: the longest chain of models and an evaluation."""
        ready: dict[str, float] = {}
        end = 0.0
        for stage in self.computing:  # in an order in which parents come first
            start = max((ready.get(name, 0.0) for name in stage.after), default=0.0)
            done = start + self.wall_hours(stage)
            if stage.stage == "train":
                ready[stage.name] = done
            end = max(end, done)
        return end

    def totals(self) -> dict[str, float]:
        """Sums over all stages; `scratch` is the largest stage's, `download` what is known."""
        return {
            "flops": sum(stage.flops for stage in self.stages),
            "flops_palm": sum(stage.flops_palm for stage in self.stages),
            "device_hours": sum(map(self.device_hours, self.stages)),
            "wall_hours_one_by_one": sum(map(self.wall_hours, self.stages)),
            "wall_hours_longest_chain": self.longest_chain(),
            "peak_memory": max((stage.peak for stage in self.stages), default=0.0),
            "host_memory": max((stage.host * stage.processes for stage in self.stages), default=0.0),
            "disk": sum(stage.disk for stage in self.stages),
            "scratch": max((stage.scratch for stage in self.stages), default=0.0),
            "download": sum(stage.download or 0.0 for stage in self.stages),
            "downloads_of_unknown_size": sum(stage.download is None for stage in self.stages),
        }

    def check(self) -> None:
        """PlanError with all problems, if there are any."""
        if self.problems:
            raise PlanError("\n".join((f"{self.study} cannot run on {self.device.name} as it is.", *self.problems)))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values: bytes, FLOPs, hours."""
        stages = [
            {**asdict(stage), "peak_memory": stage.peak, "device_hours": self.device_hours(stage),
             "wall_hours": self.wall_hours(stage)}
            for stage in self.stages
        ]  # fmt: skip
        return {
            "study": self.study,
            "device": asdict(self.device),
            "mfu": self.mfu,
            "totals": self.totals(),
            "stages": stages,
            "notes": list(self.notes),
            "problems": list(self.problems),
        }


def room(device: Device) -> float:
    """Bytes of a device (CPU: of the machine) that its processes can use."""
    return device.memory * (1 - HELD_BACK)


def needed(stage: Stage, device: Device) -> float:
    """Bytes of a device (CPU: of the machine) that a stage needs at its peak."""
    return stage.peak if device.is_gpu else stage.peak * stage.processes
