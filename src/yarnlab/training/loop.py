"""The training loop: bf16 autocast, AdamW, accumulation weighted by tokens, exact resume, one log line per step."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from yarnlab import cost
from yarnlab.modeling import autocast
from yarnlab.progress import Progress
from yarnlab.provenance import peak_memory_bytes
from yarnlab.study.schema import Architecture, Train
from yarnlab.training import checkpoint
from yarnlab.training.checkpoint import Place
from yarnlab.training.loss import linear_cross_entropy
from yarnlab.training.rows import Batch, RowSource
from yarnlab.training.schedule import learning_rate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INTERRUPTED = 75  # exit status EX_TEMPFAIL: saved, to be continued by the same command


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


def train(model: PreTrainedModel, run: Run) -> dict[str, float]:
    """Train through all phases, from the newest checkpoint if there is one; returns summary metrics.

    Raises TrainingError on a loss that is not finite, Interrupted after SIGTERM, StateBusy if another process
    trains from the same state.
    """
    with checkpoint.exclusive(run.state), _termination() as terminated:
        found = checkpoint.newest(run.state)
        place, tensors = found if found is not None else (Place(), None)
        _keep_lines(run.metrics, place.total_steps)
        progress = Progress(run.label, sum(phase.steps for phase in run.phases), log=run.log)
        progress.resume_at(place.total_steps)
        if tensors is not None:
            progress.say(f"continuing after step {place.total_steps}")
        last: dict[str, Any] = {}
        with run.metrics.open("a", encoding="utf-8") as metrics:
            for index in range(place.phase, len(run.phases)):
                if index != place.phase:
                    place = replace(place, phase=index, step=0)
                for after, line in _phase(model, run, index, place, tensors, terminated):
                    place, last = after, line
                    metrics.write(json.dumps(last) + "\n")
                    metrics.flush()
                    progress.advance(note=f"loss {last['loss']:.3f}, {last['tokens_per_second']:,.0f} tokens/s")
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
    phase, rows = run.phases[index], run.rows[index]
    torch.set_num_threads(phase.threads)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay, fused=True
    )
    if tensors is not None:
        checkpoint.restore(tensors, model, optimizer if place.step else None)
    per_row = {
        causal: cost.training_flops(run.architecture, run.vocab_size, phase.seq_len, causal=causal)
        for causal in (True, False)
    }
    peak, _ = cost.peak_flops()
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
        batch = rows.batch(place.step)
        losses = _accumulate(model, batch, phase)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), phase.max_grad_norm))
        if not math.isfinite(losses["loss"]) or not math.isfinite(norm):
            raise TrainingError(
                f"{run.label}, phase {phase.name}, step {place.step + 1}: loss {losses['loss']}, gradient norm {norm}; "
                f"the last good state is kept in {run.state}. Lower lr or max_grad_norm, or use precision fp32."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - start
        tokens = phase.global_batch * phase.seq_len
        place = replace(
            place,
            step=place.step + 1,
            total_steps=place.total_steps + 1,
            tokens=place.tokens + tokens,
            seconds=place.seconds + seconds,
        )
        yield (
            place,
            {
                "step": place.total_steps,
                "phase": phase.name,
                "tokens": place.tokens,
                **losses,
                "lr": lr,
                "grad_norm": norm,
                "tokens_per_second": tokens / seconds,
                "mfu_causal": phase.global_batch * per_row[True] / seconds / peak,
                "mfu_palm": phase.global_batch * per_row[False] / seconds / peak,
                "peak_memory_gib": peak_memory_bytes() / 2**30,
                "seconds": place.seconds,
            },
        )
        if terminated or time.monotonic() - saved > 60 * phase.checkpoint_minutes:
            checkpoint.save(run.state, model, optimizer, place)
            saved = time.monotonic()
        if terminated:
            raise Interrupted(f"{run.label}: stopped after step {place.total_steps}; run the same command to continue")


def _accumulate(model: PreTrainedModel, batch: Batch, phase: Train) -> dict[str, Any]:
    """Forward and backward over the micro-batches of one global batch.

    The gradient is that of Σ w·NLL / Σ w over the whole batch, however it is split. Reported losses are plain means
    in nats: over all tokens, over text tokens and over answer tokens.
    """
    total_weight = float(batch.weights.sum())
    nll = np.zeros_like(batch.weights)
    for first in range(0, phase.global_batch, phase.micro_batch):
        part = slice(first, first + phase.micro_batch)
        ids = torch.from_numpy(batch.ids[part])
        weights = torch.from_numpy(batch.weights[part])
        with autocast(phase.precision):
            hidden = model.model(input_ids=ids[:, :-1], use_cache=False)[0]
        weighted_sum, each = linear_cross_entropy(
            hidden.flatten(0, 1),
            model.lm_head.weight,
            ids[:, 1:].reshape(-1),
            weights.flatten(),
            dtype=torch.bfloat16 if phase.precision == "bf16" else torch.float32,
        )
        (weighted_sum / total_weight).backward()
        nll[part] = each.view_as(weights).numpy()

    def mean(mask: np.ndarray) -> float | None:
        return float(nll[mask].mean(dtype=np.float64)) if mask.any() else None

    counted = batch.weights > 0
    loss = mean(counted)
    assert loss is not None
    return {"loss": loss, "text_loss": mean(counted & ~batch.answers), "answer_loss": mean(batch.answers)}


def _keep_lines(metrics: Path, count: int) -> None:
    """Cut the log to the steps of the checkpoint: those after it will be made, and written, again."""
    metrics.parent.mkdir(parents=True, exist_ok=True)
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    metrics.write_text("".join(lines[:count]), encoding="utf-8")


@contextmanager
def _termination() -> Iterator[list[bool]]:
    """A list that is non-empty once SIGTERM has arrived (preemption, a time limit); the loop looks at step borders."""
    seen: list[bool] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, previous)
