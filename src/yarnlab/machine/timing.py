"""Times what a study's stages do most, in both number formats and with both attention kernels, on one thread of a CPU.

    python -m yarnlab.machine.timing

prints seconds as JSON (`choice.Seconds`). A process of its own: one thread from the start, nothing else in it. The work
is half a layer of the micro study: one of two heads over rows of 256 and 4,096 tokens, matrix products of 4,096 tokens.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from yarnlab.attention import KERNELS
from yarnlab.machine.choice import DTYPES, LENGTHS, PRODUCTS, Seconds, attention_work

ROUNDS = 5  # at least; the first round of all, which fetches memory and kernels, is not counted
MOST = 15
ROUNDS_S = 0.3  # of short work there are more, until they have taken this long
EMULATED = 10.0  # how many times fp32's time bf16 takes at least where it is emulated, fifty times by experience
HEAD_DIM = 64
TORCH = {"bf16": torch.bfloat16, "fp32": torch.float32}


def measure() -> Seconds:
    """Median seconds of each work by each candidate; bf16 is left out where it is emulated."""
    small = {dtype: min(seconds) for dtype, seconds in interleaved(_products(128, 128, 128, DTYPES)).items()}
    dtypes = [dtype for dtype in DTYPES if small[dtype] < EMULATED * small["fp32"]]
    works = {PRODUCTS: _products(LENGTHS[-1], 160, 864, dtypes)}
    for length in LENGTHS:
        for gradients in (False, True):
            works[attention_work(length, gradients)] = _attention(LENGTHS[-1] // length, length, gradients, dtypes)
    return {
        name: {how: statistics.median(seconds) for how, seconds in interleaved(work).items()}
        for name, work in works.items()
    }


def interleaved(candidates: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each candidate, round by round: of this thread's CPU time, which waiting for a core is no part of.

    They take turns, so that all share what else other processes do to caches and clocks.
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for work in candidates.values():
        work()
    start = time.perf_counter()
    for done in range(MOST):
        if done >= ROUNDS and time.perf_counter() - start > ROUNDS_S:
            break
        for name, work in candidates.items():
            begin = time.thread_time()
            work()
            found[name].append(time.thread_time() - begin)
    return found


def _products(tokens: int, inner: int, outer: int, dtypes: Sequence[str]) -> dict[str, Callable[[], object]]:
    """The three products of a linear layer's step: (tokens, inner) · (inner, outer), and its two gradients."""

    def candidate(dtype: torch.dtype) -> Callable[[], object]:
        x, w = torch.randn(tokens, inner).to(dtype), torch.randn(inner, outer).to(dtype)
        grad = torch.randn(tokens, outer).to(dtype)
        return lambda: (x @ w, grad @ w.T, x.T @ grad)

    return {dtype: candidate(TORCH[dtype]) for dtype in dtypes}


def _attention(rows: int, length: int, gradients: bool, dtypes: Sequence[str]) -> dict[str, Callable[[], object]]:
    def candidate(dtype: torch.dtype, kernel: Callable[..., Tensor]) -> Callable[[], object]:
        # As a layer hands them over: (rows, length, heads, head_dim) in memory, heads before positions in shape.
        q, k, v = (torch.randn(rows, length, 1, HEAD_DIM).to(dtype).transpose(1, 2) for _ in range(3))
        grad = torch.ones_like(q)
        for tensor in (q, k, v):
            tensor.requires_grad_(gradients)

        def work() -> object:
            out = kernel(q, k, v, None)
            return torch.autograd.grad(out, (q, k, v), grad) if gradients else out

        return work

    return {f"{dtype} {kernel}": candidate(TORCH[dtype], KERNELS[kernel]) for dtype in dtypes for kernel in KERNELS}


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(json.dumps(measure()))
