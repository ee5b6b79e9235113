"""What a device can do at most, and how much it can hold."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from yarnlab.lazy import torch

# Dense bf16 peak in FLOP/s by what torch calls the device; other devices are measured.
PEAK_BF16 = {
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
}


# fp32 outside the tensor cores, which is what torch uses unless it is told otherwise.
PEAK_FP32 = {"h100": 66.9e12, "a100": 19.5e12, "h200": 66.9e12}
SLOW = 5e9  # FLOP/s below which a kernel is a fallback: CPUs without bf16 instructions reach about 1e9


@dataclass(frozen=True)
class Device:
    """One accelerator, or one core of a CPU.

    peak, peak_fp32: dense FLOP/s in bf16 and in fp32.
    memory: bytes that programs can allocate; a CPU's is the machine's, shared by all processes.
    source: where the numbers are from.
    """

    name: str
    peak: float
    peak_fp32: float
    memory: float
    source: str

    @property
    def is_gpu(self) -> bool:
        return self.name != "cpu"

    def rate(self, precision: str) -> float:
        """Peak FLOP/s of a study's `precision`; `auto` is the faster one."""
        if precision == "auto":
            return max(self.peak, self.peak_fp32)
        return self.peak_fp32 if precision == "fp32" else self.peak


# Memory as torch.cuda.get_device_properties reports it (79.1, 79.1 and 139.8 GiB); peaks from NVIDIA's data sheets.
DEVICES = {
    "h100": Device("h100", 989.4e12, PEAK_FP32["h100"], 84.9e9, "data sheet, H100 SXM 80 GB"),
    "a100": Device("a100", 312e12, PEAK_FP32["a100"], 84.9e9, "data sheet, A100 80 GB"),
    "h200": Device("h200", 989.4e12, PEAK_FP32["h200"], 150.1e9, "data sheet, H200 SXM 141 GB"),
}


def this_cpu() -> Device:
    """A core of this machine, measured, and the machine's memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bf16, fp32 = _measured(torch.bfloat16), _measured(torch.float32)
    finally:
        torch.set_num_threads(threads)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    source = f"measured with one thread of this machine: {bf16 / 1e9:,.0f} GFLOP/s in bf16, {fp32 / 1e9:,.0f} in fp32"
    return Device("cpu", bf16, fp32, float(memory), source)


def peak_flops() -> tuple[float, str]:
    """The bf16 peak of this process's device in FLOP/s, and where the number is from.

    A known GPU's is its published one; any other device's is the best of several large matrix products, on a CPU with
    the threads in force. One device's, however many the machine has.
    """
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if name in PEAK_BF16:
            return PEAK_BF16[name], f"published for {name}"
        return _measured(torch.bfloat16, "cuda", 8192), f"measured: 8192x8192 bf16 product on {name}"
    return _measured(torch.bfloat16), f"measured: 1024x1024 bf16 product, {torch.get_num_threads()} threads"


def _measured(dtype: torch.dtype, where: str = "cpu", size: int = 1024) -> float:
    """FLOP/s of the best of five products of two square matrices; of small ones, if they show that it is a fallback,
    which would take seconds for the large ones."""
    rate = _best(dtype, where, 256)
    return rate if rate < SLOW else _best(dtype, where, size)


def _best(dtype: torch.dtype, where: str, size: int) -> float:
    a = torch.ones(size, size, dtype=dtype, device=where)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float((a @ a)[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
