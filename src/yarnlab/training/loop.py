"""The training loop: bf16 autocast, AdamW, accumulation weighted by tokens, exact resume, one log line per step."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from yarnlab import cost
from yarnlab.modeling import autocast
from yarnlab.provenance import peak_memory_bytes
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Train
from yarnlab.training import checkpoint
from yarnlab.training.checkpoint import Place
from yarnlab.training.journal import Journal
from yarnlab.training.loss import linear_cross_entropy
from yarnlab.training.parallel import Group
from yarnlab.training.rows import RowSource
from yarnlab.training.schedule import learning_rate

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TrainingError(RuntimeError):
    """Training can't go on; the message says at which step and why."""


class Interrupted(Exception):
    """SIGTERM arrived and the state is saved."""


@dataclass(frozen=True)
class Run:
    """What a training run needs besides the model."""

    label: str
    architecture: Architecture
    vocab_size: int
    phases: tuple[Train, ...]
    rows: tuple[RowSource, ...]
    state: Path
    metrics: Path
    log: Path | None
    group: Group = field(default_factory=Group)


def train(model: PreTrainedModel, run: Run) -> dict[str, float]:
    """Train through all phases, from the newest checkpoint if there is one; returns summary metrics.

    Every process of `run.group` calls this with the same model; the leading one writes log and checkpoints.
    Raises TrainingError on a loss that is not finite, Interrupted after SIGTERM, StateBusy if another run trains
    from the same state.
    """
    with checkpoint.exclusive(run.state, run.group.leads), _termination() as terminated:
        found = checkpoint.newest(run.state)
        place, tensors = found if found is not None else (Place(), None)
        last: dict[str, Any] = {}
        with Journal(run.label, run.metrics, run.log, sum(p.steps for p in run.phases), place, run.group) as journal:
            for index in range(place.phase, len(run.phases)):
                if index != place.phase:
                    place = replace(place, phase=index, step=0)
                for after, line in _phase(model, run, index, place, tensors, terminated):
                    place, last = after, line
                    journal.step(line)
                tensors = None
    return {"final_loss": last.get("loss", math.nan), "tokens": place.tokens, "train_seconds": place.seconds}


def _phase(
    model: PreTrainedModel,
    run: Run,
    index: int,
    place: Place,
    tensors: dict[str, torch.Tensor] | None,
    terminated: list[bool],
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield (place, log line) after each optimizer step of one phase, from `place` on."""
    phase = run.phases[index]
    torch.set_num_threads(phase.parallel.threads)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay, fused=True
    )
    if tensors is not None:
        checkpoint.restore(tensors, model, optimizer if place.step else None)
    utilisation = _Utilisation(run, phase)
    saved = time.monotonic()
    while place.step < phase.steps:
        start = time.monotonic()
        lr = learning_rate(
            place.step,
            lr=phase.lr,
            steps=phase.steps,
            warmup_steps=phase.warmup_steps,
            schedule=phase.schedule,
            final_lr_share=phase.final_lr_share,
        )
        for group in optimizer.param_groups:
            group["lr"] = lr
        losses, stop = accumulate(model, run.rows[index], place.step, phase, run.group, terminated)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), phase.max_grad_norm))
        if not math.isfinite(losses["loss"]) or not math.isfinite(norm):
            raise TrainingError(
                f"{run.label}, phase {phase.name}, step {place.step + 1}: loss {losses['loss']}, gradient norm {norm}; "
                f"the last good state is kept in {run.state}. Lower lr or max_grad_norm, or use precision fp32."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - start
        place = place.after_step(phase.global_batch * phase.seq_len, seconds)
        line = {"step": place.total_steps, "phase": phase.name, "tokens": place.tokens, **losses}
        line |= {"lr": lr, "grad_norm": norm, **utilisation.of(seconds), "seconds": place.seconds}
        yield place, line
        due = time.monotonic() - saved > 60 * phase.checkpoint_minutes
        if run.group.leads and (stop or due):
            checkpoint.save(run.state, model, optimizer, place)
            saved = time.monotonic()
        if stop:
            raise Interrupted(f"{run.label}: stopped after step {place.total_steps}; run the same command to continue")


def accumulate(
    model: PreTrainedModel, rows: RowSource, step: int, phase: Train, group: Group, terminated: list[bool]
) -> tuple[dict[str, Any], bool]:
    """Leave in `.grad` the gradient of Σ w·NLL / Σ w over one global batch, however it is split.

    Returns the plain mean losses in nats (over all tokens, text tokens, answer tokens; None where there are none),
    and whether any process of the group was told to stop.
    """
    share = group.share(phase.global_batch)
    batch = rows.batch(step, share)
    # Σ w, then (Σ NLL, count) over tokens that count, text and answers, then whether to stop; fp64.
    sums = torch.zeros(8, dtype=torch.float64)
    for first in range(0, len(batch.ids), phase.micro_batch):
        part = slice(first, first + phase.micro_batch)
        ids, weights = torch.from_numpy(batch.ids[part]), torch.from_numpy(batch.weights[part])
        with autocast(phase.precision):
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False)[0]
        weighted_sum, nll = linear_cross_entropy(
            hidden.flatten(0, 1),
            model.lm_head.weight,
            ids[:, 1:].reshape(-1),
            weights.flatten(),
            dtype=torch.bfloat16 if phase.precision == "bf16" else torch.float32,
        )
        weighted_sum.backward()
        counted, answers = weights.flatten() > 0, torch.from_numpy(batch.answers[part]).flatten()
        sums[0] += weights.sum(dtype=torch.float64)
        for i, mask in enumerate((counted, counted & ~answers, answers)):
            sums[1 + 2 * i] += nll[mask].sum(dtype=torch.float64)
            sums[2 + 2 * i] += mask.sum()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    sums[7] = bool(terminated)
    group.add_up([sums])
    group.add_up(gradients)
    torch._foreach_div_(gradients, float(sums[0]))
    means = [float(sums[i] / sums[i + 1]) if sums[i + 1] else None for i in (1, 3, 5)]
    return dict(zip(("loss", "text_loss", "answer_loss"), means, strict=True)), bool(sums[7])


class _Utilisation:
    """Throughput of one phase, and its share of the machine's peak by both conventions of counting."""

    def __init__(self, run: Run, phase: Train) -> None:
        self._tokens = phase.global_batch * phase.seq_len
        self._flops = {
            name: phase.global_batch
            * cost.training_flops(run.architecture, run.vocab_size, phase.seq_len, causal=name == "causal")
            for name in ("causal", "palm")
        }
        self._peak = cost.peak_flops()[0] * run.group.size

    def of(self, seconds: float) -> dict[str, float]:
        return {
            "tokens_per_second": self._tokens / seconds,
            "mfu_causal": self._flops["causal"] / seconds / self._peak,
            "mfu_palm": self._flops["palm"] / seconds / self._peak,
            "peak_memory_gib": peak_memory_bytes() / 2**30,
        }


@contextmanager
def _termination() -> Iterator[list[bool]]:
    """A list that is non-empty once SIGTERM has arrived (preemption, a time limit); the loop looks at step borders."""
    seen: list[bool] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, previous)
