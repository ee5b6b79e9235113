"""The machine that a new study is sized for: this one, or one that is named."""

from __future__ import annotations

import os
from dataclasses import dataclass

from yarnlab.cost.devices import DEVICES, PEAK_FP32, Device, peak_flops, this_cpu
from yarnlab.new.parent import NewError

HOURS = {"cpu": 0.5, "gpu": 8.0}  # that training may take unless somebody says otherwise


@dataclass(frozen=True)
class Machine:
    """What computes: the device, how many there are (of a CPU: cores), and the hours that training may take."""

    device: Device
    count: int
    hours: float


def find_machine(device: str | None, hours: float | None) -> Machine:
    """This machine's GPUs, else its CPU; with `device` a single one of that kind. NewError for an unknown one."""
    if hours is not None and not hours > 0:
        raise NewError(f"--hours {hours:g}: give the hours that training may take, a number above 0")
    if device not in (None, "cpu", *DEVICES):
        raise NewError(f"--device {device}: known are {', '.join((*DEVICES, 'cpu'))}")
    found, count = (DEVICES[device], 1) if device in DEVICES else _here(cpu=device == "cpu")
    return Machine(found, count, hours or HOURS["gpu" if found.is_gpu else "cpu"])


def _here(*, cpu: bool) -> tuple[Device, int]:
    import torch

    if cpu or not torch.cuda.is_available():
        return this_cpu(), os.cpu_count() or 1
    properties, (peak, source) = torch.cuda.get_device_properties(0), peak_flops()
    name = str(properties.name).lower()
    fp32 = next((rate for known, rate in PEAK_FP32.items() if known in name), peak / 15)
    return Device(name, peak, fp32, float(properties.total_memory), source), torch.cuda.device_count()
