"""One training step of a Llama-2-7B-shaped model at 65,536 tokens: time, utilisation and memory by component.

The whole model with its optimizer does not fit on one GPU, so a few layers are trained with the study's own code
(FSDP2 on one device, recomputed layers, chunked loss): the cost of a layer and of the rest follow from the two smaller
depths, and are checked by predicting the third. Prints a table, writes it as JSON beside this file, and ends with
status 1 if the prediction is off by more than 5 % or the utilisation extrapolated to the full depth misses the target.
What several GPUs add, gathering weights and adding up gradients, is not measured here.

    envs/run --gpu python benchmarks/train_step.py
    envs/run python benchmarks/train_step.py --tiny
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yarnlab.study.schema import Architecture
    from yarnlab.study.training import Train
    from yarnlab.training.parallel import Group

TARGET_UTILISATION = 0.38  # causal, bf16 dense peak of an H100 or H200
TARGET_ERROR = 0.05  # of the predicted time and memory
GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """One depth. Seconds of one micro-batch, forward and backward, and of one optimizer step; memory in bytes.

    `kept` is what the forward pass leaves for the backward pass, `activations` the peak beside weights, gradients and
    moments: layers leave `kept` behind as fast as whole gradients fill its place, so the peak hardly grows with depth.
    """

    layers: int
    batch_s: float
    step_s: float
    weights: float
    gradients: float
    moments: float
    kept: float
    activations: float

    @property
    def peak(self) -> float:
        return self.weights + self.gradients + self.moments + self.activations


def main() -> None:
    arguments = parse()
    from yarnlab.cost import memory
    from yarnlab.cost.devices import peak_flops
    from yarnlab.training.parallel import processes

    shape, vocab_size = full_shape(arguments)
    phase = phase_of(arguments)
    with processes(phase.parallel) as group:
        found = [measure(arguments, shape, vocab_size, phase, group, depth) for depth in arguments.layers]
        peak, peak_source = peak_flops()
    for one in found:
        print(row(one), flush=True)
    first, second, third = found
    predicted = extrapolated(first, second, third.layers)
    errors = {
        "time": predicted.batch_s / third.batch_s - 1,
        "memory": predicted.peak / third.peak - 1 if third.peak else 0.0,
    }
    print(row(predicted) + f"   predicted; off by {errors['time']:+.1%} in time, {errors['memory']:+.1%} in memory")
    full = extrapolated(first, third, shape.num_hidden_layers)
    utilisation = utilisations(shape, vocab_size, arguments, full.batch_s, peak)
    print(row(full) + "   extrapolated to the full depth")
    rate = arguments.tokens * arguments.micro_batch / full.batch_s
    print(
        f"{rate:,.0f} tokens/s on one device; utilisation {utilisation['causal']:.1%} (causal), "
        f"{utilisation['palm']:.1%} (PaLM) of {peak / 1e12:.1f} TFLOP/s, {peak_source}"
    )
    eighth = (full.weights + full.gradients + full.moments) / 8
    predicted_peak = sum(memory.training(shape, vocab_size, eight_of(phase), gpu=True)[0].values())
    print(
        f"as one of eight shards: at most {(eighth + full.kept + first.activations) / 1e9:.1f} GB from these figures, "
        f"{predicted_peak / 1e9:.1f} GB by `yarnlab plan`"
    )
    good = all(abs(error) <= TARGET_ERROR for error in errors.values())
    met = good and (arguments.tiny or utilisation["causal"] >= TARGET_UTILISATION)
    print(
        f"target: {TARGET_UTILISATION:.0%} causal, prediction within {TARGET_ERROR:.0%}; {'met' if met else 'missed'}"
    )
    write(arguments, found, predicted, full, utilisation, errors)
    sys.exit(not met and not arguments.tiny)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs=3, default=[2, 4, 6], help="three depths, the last to be predicted")
    parser.add_argument("--tokens", type=int, default=65536, help="of a sequence (default: %(default)s)")
    parser.add_argument("--micro-batch", type=int, default=1, help="sequences at once (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed micro-batches, the median counts")
    parser.add_argument("--precision", choices=("bf16", "pure-bf16", "fp32"), default="bf16")
    parser.add_argument("--checkpointing", choices=("none", "selective", "full", "offload"), default="full")
    parser.add_argument(
        "--loss", choices=("auto", "torch", "liger"), default="auto", help="kernel of the cross-entropy"
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny shape and 512 tokens, to try the script on a CPU")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"), help="the JSON file")
    arguments = parser.parse_args()
    if sorted(set(arguments.layers)) != arguments.layers or arguments.layers[0] < 1:
        parser.error("--layers takes three rising numbers from 1 on")
    if arguments.tiny:
        arguments.tokens, arguments.precision = min(arguments.tokens, 512), "fp32"
    return arguments


def full_shape(arguments: argparse.Namespace) -> tuple[Architecture, int]:
    """Llama 2 7B, or a thousandth of it."""
    from yarnlab.study.schema import Architecture

    tiny = arguments.tiny
    shape = Architecture(
        family="llama",
        hidden_size=128 if tiny else 4096,
        intermediate_size=256 if tiny else 11008,
        num_hidden_layers=32,
        num_attention_heads=4 if tiny else 32,
        num_key_value_heads=4 if tiny else 32,
        head_dim=32 if tiny else 128,
        original_context=64 if tiny else 4096,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    return shape, 1000 if tiny else 32000


def phase_of(arguments: argparse.Namespace) -> Train:
    """The paper's training phase, one micro-batch a step, in one process."""
    from yarnlab.study.training import Parallel, Rows, Train

    return Train(
        corpus="random",
        rows=Rows(),
        steps=1,
        seq_len=arguments.tokens,
        global_batch=arguments.micro_batch,
        micro_batch=arguments.micro_batch,
        lr=2e-5,
        schedule="constant",
        warmup_steps=0,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        max_grad_norm=1.0,
        precision=arguments.precision,
        loss=arguments.loss,
        parallel=Parallel(
            processes=1, threads=1, sharding="fsdp", activation_checkpointing=arguments.checkpointing, context=1
        ),
        checkpoint_minutes=60.0,
    )


def eight_of(phase: Train) -> Train:
    """The phase as eight processes compute it, a micro-batch each."""
    parallel = phase.parallel.model_copy(update={"processes": 8})
    return phase.model_copy(update={"parallel": parallel, "global_batch": 8 * phase.micro_batch})


class RandomRows:
    """Rows of random ids in the place of a corpus: a step costs the same whatever the text."""

    def __init__(self, phase: Train, vocab_size: int) -> None:
        import numpy as np

        from yarnlab.training.rows import Batch

        shape = (phase.global_batch, phase.seq_len)
        ids = np.random.default_rng(0).integers(0, vocab_size, (shape[0], shape[1] + 1))
        self._batch = Batch(ids, np.ones(shape, np.float32), np.zeros(shape, bool))

    def batch(self, step: int, share: slice = slice(None)) -> Any:
        return self._batch


def measure(
    arguments: argparse.Namespace, shape: Architecture, vocab_size: int, phase: Train, group: Group, layers: int
) -> Measured:
    """Train a model of that many layers for a few steps."""
    import torch

    from yarnlab.modeling import set_rope, use_fast_attention
    from yarnlab.rope import make_rope
    from yarnlab.training.loop import accumulate
    from yarnlab.training.objective import build_objective, materialise
    from yarnlab.training.shards import part, whole

    torch.set_num_threads(phase.parallel.threads)
    model = random_model(shape.model_copy(update={"num_hidden_layers": layers}), vocab_size)
    set_rope(model, make_rope("yarn", scale=16, original_context=shape.original_context, head_dim=shape.head_dim))
    made = build_objective(model, phase, group)
    materialise(made, group)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                part(parameter).normal_(std=0.02)
            else:
                part(parameter).fill_(1)
    attention = use_fast_attention(model, length=phase.seq_len, precision=phase.precision)
    if layers == arguments.layers[0]:
        ways = f"attention {attention}, loss {made.loss}, {arguments.precision}"
        print(f"{ways}, layers {arguments.checkpointing} recomputed")
        print(
            f"{'layers':>6} {'micro-batch':>12} {'optimizer':>10} {'weights':>9} {'gradients':>9} {'moments':>9} "
            f"{'kept':>9} {'activations':>11}"
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.lr, betas=phase.betas, fused=True)
    rows: Any = RandomRows(phase, vocab_size)
    gpu = group.device.type == "cuda"
    batches, steps, kept, activations = [], [], 0.0, 0.0
    held = 0

    def after_forward(*_: Any) -> None:
        nonlocal kept
        kept = float(torch.cuda.memory_allocated() - held)

    if gpu:
        made.register_forward_hook(after_forward)
    for i in range(arguments.repeats + 1):  # the first one fetches memory and kernels, and makes the moments
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
        start = time.perf_counter()
        accumulate(made, rows, i, phase, group, [])
        wait(gpu)
        middle = time.perf_counter()
        gradients = float(sum(part(p.grad).nbytes for p in model.parameters() if p.grad is not None))
        if gpu:
            activations = torch.cuda.max_memory_allocated() - held - gradients
        float(whole(torch.nn.utils.clip_grad_norm_(model.parameters(), phase.max_grad_norm)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(gpu)
        if i:
            batches.append(middle - start)
            steps.append(time.perf_counter() - middle)
    weights = float(sum(part(p).nbytes for p in model.parameters()))
    moments = 2.0 * sum(part(optimizer.state[p]["exp_avg"]).nbytes for p in model.parameters())
    del made, model, optimizer
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
    return Measured(layers, median(batches), median(steps), weights, gradients, moments, kept, activations)


def random_model(shape: Architecture, vocab_size: int) -> Any:
    """The model's shapes and names on the meta device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocab_size,
        use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        **shape.model_dump(exclude={"family", "original_context", "rope_theta"}),
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).float()


def wait(gpu: bool) -> None:
    if gpu:
        import torch

        torch.cuda.synchronize()


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def extrapolated(low: Measured, high: Measured, layers: int) -> Measured:
    """A straight line through two depths."""
    values: dict[str, float] = {}
    for name, a in asdict(low).items():
        if name != "layers":
            b = getattr(high, name)
            values[name] = a + (b - a) * (layers - low.layers) / (high.layers - low.layers)
    return Measured(layers, **values)


def utilisations(
    shape: Architecture, vocab_size: int, arguments: argparse.Namespace, seconds: float, peak: float
) -> dict[str, float]:
    """Share of the device's peak by both conventions of counting; recomputation is not counted."""
    from yarnlab import cost

    return {
        name: arguments.micro_batch
        * cost.training_flops(shape, vocab_size, arguments.tokens, causal=name == "causal")
        / seconds
        / peak
        for name in ("causal", "palm")
    }


def row(one: Measured) -> str:
    sizes = ((one.weights, 9), (one.gradients, 9), (one.moments, 9), (one.kept, 9), (one.activations, 11))
    memory = " ".join(f"{size / GIB:>{width}.2f}" for size, width in sizes)
    return f"{one.layers:>6} {one.batch_s:>10.3f} s {one.step_s:>8.3f} s {memory} GiB"


def write(
    arguments: argparse.Namespace,
    found: list[Measured],
    predicted: Measured,
    full: Measured,
    utilisation: dict[str, float],
    errors: dict[str, float],
) -> None:
    from yarnlab.provenance import git_state, hardware, now, package_versions, write_json

    options = {key: value for key, value in vars(arguments).items() if key != "output"}
    content = {
        "options": options,
        "measured": [asdict(one) for one in found],
        "predicted": asdict(predicted),
        "full_depth": asdict(full),
        "utilisation": utilisation,
        "errors": errors,
        "hardware": hardware(),
        "packages": package_versions(),
        "git": git_state(),
        "at": now(),
    }
    write_json(arguments.output, content)


if __name__ == "__main__":
    main()
