"""A long pass of SmolLM2-135M's shape on CPUs, as a share of the machine's own matrix rate, beside torch's attention.

In one run: the rate of plain matrix products in each number format, NLL of one document forward (as evaluations compute
it, with the attention that was measured to be fastest on this machine), forward and backward of a row (as trainings do,
layer by layer recomputed), and both once more with torch's own attention. Weights are random: time and memory do not
depend on them. Causal attention is counted as what it needs, half of a square.

    envs/run python benchmarks/long_forward.py --threads 2
    envs/run python benchmarks/long_forward.py --tokens 2048 --layers 2
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from eval_131072 import random_model

from yarnlab import attention, cost
from yarnlab.evaluation.nll import token_nll
from yarnlab.families.parts import decoder
from yarnlab.modeling import autocast, set_rope
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture
from yarnlab.training.loss import choose
from yarnlab.training.objective import Objective
from yarnlab.training.recompute import recompute_layers

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TARGETS = {"forward": 0.75, "training": 0.55}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384, help="of the document and the row (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=30, help="of the model (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--works", nargs="+", choices=TARGETS, default=["forward"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rates = {name: matrix_rate(FORMATS[name]) for name in arguments.formats}
    for name, rate in rates.items():
        print(f"{name} matrix products: {rate / 1e9:.0f} GFLOP/s", flush=True)
    shape = Architecture(
        family="llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=arguments.layers,
        num_attention_heads=9, num_key_value_heads=3, head_dim=64, original_context=8192, rope_theta=1e5,
        tie_word_embeddings=True,
    )  # fmt: skip
    vocab_size = 49152
    model = random_model(shape, vocab_size, torch.float32, torch.device("cpu"))
    set_rope(model, make_rope("yarn", scale=2, original_context=8192, head_dim=64, base=1e5))
    recompute_layers(decoder(model).layers, "full")
    ids = np.random.default_rng(0).integers(0, vocab_size, (1, arguments.tokens + 1))
    flops = cost.forward_flops(shape, vocab_size, arguments.tokens, causal=True)
    for work in arguments.works:
        for name in arguments.formats:
            for kernel in (attention.MEASURED, "sdpa"):
                model.set_attn_implementation(attention.register(kernel) if kernel != "sdpa" else kernel)
                seconds = timed(WORKS[work], model, ids, name)
                rate = flops * (3 if work == "training" else 1) / seconds
                share = rate / max(rates.values())
                print(
                    f"{work}, {arguments.tokens:,} tokens, {name}, {kernel}: {seconds:.1f} s, "
                    f"{rate / 1e9:.0f} GFLOP/s, {rate / rates[name]:.0%} of {name} products, {share:.0%} of the "
                    f"fastest (target {TARGETS[work]:.0%}); peak {peak():.2f} GiB so far",
                    flush=True,
                )


def matrix_rate(dtype: torch.dtype, size: int = 2048, seconds: float = 2.0) -> float:
    """FLOP/s of square products, the best of several."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def timed(work: Callable[..., None], model: torch.nn.Module, ids: np.ndarray, name: str) -> float:
    work(model, ids[:, :257], name)  # memory, tables, the machine's measured kernels
    start = time.perf_counter()
    work(model, ids, name)
    return time.perf_counter() - start


def forward(model: torch.nn.Module, ids: np.ndarray, name: str) -> None:
    with autocast(name):
        token_nll(model, ids)


def training(model: torch.nn.Module, ids: np.ndarray, name: str) -> None:
    objective = Objective(model, name, choose("auto", torch.device("cpu")))
    inputs = torch.from_numpy(ids)
    loss, _ = objective(inputs[:, :-1], inputs[:, 1:], torch.ones(1, ids.shape[1] - 1))
    loss.backward()
    model.zero_grad()


WORKS: dict[str, Callable[..., None]] = {"forward": forward, "training": training}


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
