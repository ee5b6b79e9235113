"""Which number format and which attention kernel a machine's measured times speak for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MARGIN = 1.15  # how many times as fast as the default another candidate must be: noise makes up less
KERNELS = ("blockwise", "sdpa")  # attention/'s own, and torch's
DEFAULTS = {"bf16": "blockwise", "fp32": "sdpa"}  # what was faster in most works of all machines so far
DTYPES = tuple(DEFAULTS)
LENGTHS = (256, 4096)  # tokens of a row; between them, the nearer one by ratio decides
LONG = 8192  # tokens of a row, beyond which `blockwise` takes keys by chunks and keeps no probabilities
PRODUCTS = "products"

# What was computed → (how → seconds); a name of `attention_work`, or PRODUCTS. How: a dtype, for attention a dtype and
# a kernel, "bf16 sdpa". What was so slow that it was not timed to the end is missing.
Seconds = Mapping[str, Mapping[str, float]]


def attention_work(length: int, gradients: bool) -> str:
    return f"attention {length} {'forward and backward' if gradients else 'forward'}"


def choices(seconds: Seconds, default: str) -> dict[str, Any]:
    """`precision` (a dtype) and `kernels`: dtype → work → kernel.

    Args:
        default: the dtype that stands unless the other is MARGIN times as fast on matrix products and attention,
            forward and backward over the longest rows, each with its kernel.
    """
    works = [attention_work(length, gradients) for length in LENGTHS for gradients in (False, True)]

    def kernel(dtype: str, work: str) -> str:
        timed = {name: seconds[work].get(f"{dtype} {name}", math.inf) for name in KERNELS}
        return faster(timed, DEFAULTS[dtype])

    kernels = {dtype: {work: kernel(dtype, work) for work in works} for dtype in DTYPES}

    def step(dtype: str) -> float:
        work = attention_work(LENGTHS[-1], True)
        return seconds[PRODUCTS].get(dtype, math.inf) + seconds[work].get(f"{dtype} {kernels[dtype][work]}", math.inf)

    return {"precision": faster({dtype: step(dtype) for dtype in DTYPES}, default), "kernels": kernels}


def faster(seconds: Mapping[str, float], default: str) -> str:
    """The default, or the fastest candidate if that is at least MARGIN times as fast."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[default] >= MARGIN * seconds[best] else default


def kernel_for(kernels: Mapping[str, str], length: int, gradients: bool) -> str:
    """The kernel for rows of `length` tokens, of one dtype's `kernels`; blockwise where nothing was measured."""
    if not kernels:
        return "blockwise"
    nearest = min(LENGTHS, key=lambda measured: abs(math.log(measured / length)))
    return kernels[attention_work(nearest, gradients)]
