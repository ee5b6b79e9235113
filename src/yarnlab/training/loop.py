"""The training loop: AdamW, accumulation weighted by tokens, exact resume, one log line per step."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from yarnlab.cost import training_flops
from yarnlab.cost.devices import peak_flops
from yarnlab.errors import Interruption, UserError
from yarnlab.modeling import check_active_rope
from yarnlab.progress import Progress
from yarnlab.provenance import peak_memory_bytes
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Train
from yarnlab.training import checkpoint
from yarnlab.training.checkpoint import TrainState
from yarnlab.training.journal import Journal
from yarnlab.training.loss import choose
from yarnlab.training.objective import Objective, facts
from yarnlab.training.objective import check as check_objective
from yarnlab.training.parallel import Group
from yarnlab.training.rows import RowSource
from yarnlab.training.schedule import learning_rate
from yarnlab.training.sequence import local_positions
from yarnlab.training.shards import part, whole

if TYPE_CHECKING:
    from yarnlab.rope import Rope


class TrainingError(UserError):
    """Training can't go on; the message says at which step and why."""


class Interrupted(Interruption):
    """SIGTERM or Ctrl-C arrived and the state is saved."""


@dataclass(frozen=True)
class Run:
    """What a training run needs besides the model."""

    label: str
    architecture: Architecture
    vocab_size: int
    rope: Rope
    phases: tuple[Train, ...]
    rows: tuple[RowSource, ...]
    state: Path
    metrics: Path
    log: Path | None
    group: Group = field(default_factory=Group)


def train(objective: Objective, run: Run) -> tuple[dict[str, float], dict[str, Any]]:
    """Train through all phases, from the newest checkpoint if there is one; returns summary metrics, and what computed.

    Every process of `run.group` calls this with the same model; the leading one writes the log. Nobody else may use
    `run.state`: see lock.exclusive. Raises TrainingError on a loss that is not finite, Interrupted after SIGTERM or
    Ctrl-C.
    """
    with _termination(run.group.is_leader) as terminated:
        checkpoint.remove_unfinished(run.state, run.group)
        say = Progress(run.label, 0, log=run.log).say
        found = checkpoint.newest(run.state, objective.model, run.group, say)
        train_state = found.train_state if found is not None else TrainState()
        steps = sum(phase.steps for phase in run.phases)
        notes = found.notes if found is not None else {}
        with Journal(run.label, run.metrics, run.log, steps, train_state, notes, run.group) as journal:
            for index in range(train_state.phase, len(run.phases)):
                if index != train_state.phase:
                    train_state = replace(train_state, phase=index, step=0)
                for after, line in _phase(objective, run, index, train_state, found, journal, terminated):
                    train_state = after
                    journal.step(line)
                found = None
    check_active_rope(objective.model, run.rope, run.phases[-1].seq_len, where=f"{run.label}, after training")
    final = {"final_loss": journal.last["loss"]} if journal.last else {}
    return {**final, "tokens": train_state.tokens, "train_seconds": train_state.seconds}, journal.facts()


def _phase(
    objective: Objective,
    run: Run,
    index: int,
    train_state: TrainState,
    found: checkpoint.Found | None,
    journal: Journal,
    terminated: list[bool],
) -> Iterator[tuple[TrainState, dict[str, Any]]]:
    """Yield (state, log line) after each optimizer step of one phase, from `train_state` on."""
    phase, group = run.phases[index], run.group
    torch.set_num_threads(phase.parallel.threads)
    objective.train()
    objective.precision, objective.loss = phase.precision, choose(phase.loss, run.group.device)
    optimizer = torch.optim.AdamW(
        objective.model.parameters(), lr=phase.lr, betas=phase.betas, weight_decay=phase.weight_decay, fused=True
    )
    if found is not None:
        found.restore(optimizer if train_state.step else None)
    check_objective(objective, phase, group)
    check_active_rope(objective.model, run.rope, phase.seq_len, where=f"{run.label}, phase {phase.name}")
    journal.stretch(train_state.total_steps, facts(objective, phase, group))
    utilisation = _Utilisation(run, phase)
    saved = time.monotonic()
    while train_state.step < phase.steps:
        start = time.monotonic()
        lr = learning_rate(
            train_state.step,
            lr=phase.lr,
            steps=phase.steps,
            warmup_steps=phase.warmup_steps,
            schedule=phase.schedule,
            final_lr_share=phase.final_lr_share,
        )
        for settings in optimizer.param_groups:
            settings["lr"] = lr
        losses, stop = accumulate(objective, run.rows[index], train_state.step, phase, group, terminated)
        if losses is None:
            optimizer.zero_grad(set_to_none=True)
            if train_state.step:  # else that state is kept: it is the end of the phase before, or no step is made
                checkpoint.save(run.state, objective.model, optimizer, train_state, group, journal.notes())
            raise _interrupted(run, train_state)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(objective.model.parameters(), phase.max_grad_norm)))
        if not math.isfinite(losses["loss"]) or not math.isfinite(norm):
            raise TrainingError(
                f"{run.label}, phase {phase.name}, step {train_state.step + 1}: "
                f"loss {losses['loss']}, gradient norm {norm}; the last good state is kept in {run.state}. "
                "Lower lr or max_grad_norm, or use precision fp32."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds = time.monotonic() - start
        train_state = train_state.after_step(phase.global_batch * phase.seq_len, seconds)
        line = {"step": train_state.total_steps, "phase": phase.name, "tokens": train_state.tokens, **losses}
        line |= {"lr": lr, "grad_norm": norm, **utilisation.of(seconds), "seconds": train_state.seconds}
        yield train_state, line
        # The clocks of two processes differ, so the leader's decides when a checkpoint is due.
        due = group.is_leader and time.monotonic() - saved > 60 * phase.checkpoint_minutes
        # The end of a phase is kept too, or many short ones would add up to more than checkpoint_minutes.
        due |= group.is_leader and train_state.step == phase.steps and index + 1 < len(run.phases)
        if stop or not group.all_true(not due):
            checkpoint.save(run.state, objective.model, optimizer, train_state, group, journal.notes())
            saved = time.monotonic()
        if stop:
            raise _interrupted(run, train_state)


def _interrupted(run: Run, saved: TrainState) -> Interrupted:
    return Interrupted(f"{run.label}: stopped after step {saved.total_steps}; run the same command to continue")


def accumulate(
    objective: Objective, rows: RowSource, step: int, phase: Train, group: Group, terminated: list[bool]
) -> tuple[dict[str, Any] | None, bool]:
    """Leave in `.grad` the gradient of Σ w·NLL / Σ w over one global batch, however it is split.

    Returns the plain mean losses in nats (over all tokens, text tokens, answer tokens; None where there are none),
    and whether any process of the group was told to stop. At full scale a step takes longer than SLURM waits after
    SIGTERM: told between two micro-batches, no process computes the next one, and there are no losses.
    """
    batch = rows.batch(step, group.share(phase.global_batch))
    known = objective.model.config.vocab_size
    if (largest := int(batch.ids.max())) >= known:  # on a GPU the embedding would end the process
        raise TrainingError(
            f"phase {phase.name}, step {step + 1}: there is a token id {largest}, the model's vocabulary ends at "
            f"{known - 1}: the text was tokenised for another model"
        )
    positions = local_positions(phase.seq_len, group)
    # Σ w, then (Σ NLL, count) over tokens that count, text and answers, then whether to stop; fp64.
    sums = torch.zeros(8, dtype=torch.float64)
    for first in range(0, len(batch.ids), phase.micro_batch):
        if first and not group.all_true(not terminated):
            return None, True
        rows_here = slice(first, first + phase.micro_batch)
        ids, targets = torch.from_numpy(batch.ids[rows_here, :-1]), torch.from_numpy(batch.ids[rows_here, 1:])
        weights, answers = torch.from_numpy(batch.weights[rows_here]), torch.from_numpy(batch.answers[rows_here])
        placed = None if batch.positions is None else torch.from_numpy(batch.positions[rows_here])
        if positions is not None:  # with a part of each sequence, no row has documents apart (study/check.py)
            ids, targets, weights, answers = (t[:, positions] for t in (ids, targets, weights, answers))
            placed = positions[None]
        weighted_sum, nll = objective(
            ids.to(group.device, non_blocking=True),
            targets.to(group.device, non_blocking=True),
            weights.to(group.device, non_blocking=True),
            None if placed is None else placed.to(group.device),
        )
        weighted_sum.backward()
        nll, weights, answers = nll.cpu(), weights.flatten(), answers.flatten()
        sums[0] += weights.sum(dtype=torch.float64)
        counted = weights > 0
        for i, mask in enumerate((counted, counted & ~answers, answers)):
            sums[1 + 2 * i] += nll[mask].sum(dtype=torch.float64)
            sums[2 + 2 * i] += mask.sum()
    gradients = [part(p.grad) for p in objective.model.parameters() if p.grad is not None]
    sums[7] = bool(terminated)
    group.all_reduce([sums])
    if not objective.sharded:  # shards are added up in the backward pass
        group.all_reduce(gradients)
    torch._foreach_div_(gradients, float(sums[0]))
    means = [float(sums[i] / sums[i + 1]) if sums[i + 1] else None for i in (1, 3, 5)]
    return dict(zip(("loss", "text_loss", "answer_loss"), means, strict=True)), bool(sums[7])


class _Utilisation:
    """Throughput of one phase, and its share of the machine's peak by both conventions of counting."""

    def __init__(self, run: Run, phase: Train) -> None:
        self._tokens = phase.global_batch * phase.seq_len
        self._flops = {
            name: phase.global_batch
            * training_flops(run.architecture, run.vocab_size, phase.seq_len, causal=name == "causal")
            for name in ("causal", "palm")
        }
        self._peak = peak_flops()[0] * run.group.size
        self._gpu = run.group.device.type == "cuda"

    def of(self, seconds: float) -> dict[str, float]:
        return {
            "tokens_per_second": self._tokens / seconds,
            "mfu_causal": self._flops["causal"] / seconds / self._peak,
            "mfu_palm": self._flops["palm"] / seconds / self._peak,
            "peak_memory_gib": peak_memory_bytes() / 2**30,
            **({"peak_gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30} if self._gpu else {}),
        }


@contextmanager
def _termination(speaks: bool) -> Iterator[list[bool]]:
    """A list that is non-empty once SIGTERM (preemption, a time limit) or Ctrl-C has arrived.

    The loop looks at it between micro-batches. A Ctrl-C after that raises KeyboardInterrupt at once.
    """
    seen: list[bool] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(True)
        if speaks:
            with suppress(OSError):  # os.write, since a signal may arrive while something is being printed
                os.write(2, b"stopping: the state is saved first; Ctrl-C (again) stops at once\n")

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
