"""Which number format `precision: auto` stands for on this machine.

bf16 halves the time on processors that multiply it, and on others it is emulated: fifty times slower than fp32 on one
with AVX2 only. A study that is to run anywhere says `auto`; the manifest says what was in force.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

MULTIPLIES_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}  # as /proc/cpuinfo names them: x86 matrix and vector units, Arm


def resolve_precision(precision: str) -> str:
    """`precision` itself, or for `auto` bf16 where this process's device multiplies it, else fp32."""
    if precision != "auto":
        return precision
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if processor_multiplies_bf16() else "fp32"


@cache
def processor_multiplies_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions that multiply bf16; where that can't be read, no."""
    if platform.system() != "Linux" or not cpuinfo.exists():
        return False
    for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, flags = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return not MULTIPLIES_BF16.isdisjoint(flags.split())
    return False
