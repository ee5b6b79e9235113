"""What the processor says of itself."""

from __future__ import annotations

import math
import platform
from functools import cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
MULTIPLIES_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}  # as /proc/cpuinfo names them: x86 matrix and vector units, Arm


@cache
def processor_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The processor's instruction sets as Linux names them; none where they can't be read."""
    if platform.system() == "Linux" and cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, flags = line.partition(":")
            if name.strip().lower() in ("flags", "features"):
                return frozenset(flags.split())
    return frozenset()


def cpu_quota(cgroups: Path = CGROUPS) -> float:
    """CPUs that all processes of this container may use together, infinity without a limit; Linux's cgroups 2 and 1."""
    for files in ("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"):
        try:
            quota, period = " ".join((cgroups / file).read_text(encoding="ascii") for file in files).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf


def processor_multiplies_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether this processor has instructions that multiply bf16; where that can't be read, no."""
    return not MULTIPLIES_BF16.isdisjoint(processor_flags(cpuinfo))
