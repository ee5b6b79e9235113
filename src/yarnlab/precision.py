"""Which number format `precision: auto` stands for on this machine.

bf16 halves the time on some processors that multiply it, doubles it on others, and where it is emulated takes fifty
times as long as fp32. So it is measured (machine/). A study that is to run anywhere says `auto`; the manifest says what
was in force.
"""

from __future__ import annotations

from yarnlab.lazy import torch
from yarnlab.machine.processor import processor_multiplies_bf16
from yarnlab.machine.record import this_machine


def resolve_precision(precision: str) -> str:
    """`precision` itself, or for `auto` what is faster on this process's device.

    On a GPU bf16 if it multiplies that, on a CPU what was measured; without a measurement, what its flags say.
    """
    if precision != "auto":
        return precision

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if measured := this_machine():
        return str(measured["precision"])
    return "bf16" if processor_multiplies_bf16() else "fp32"
