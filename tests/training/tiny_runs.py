"""Training runs of a tiny model: their phases, the job that trains it, and what it left behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yarnlab.modeling import create_model, set_rope, use_fast_attention
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Repeats, Retrieval, Rows, Train

VOCABULARY = 512
MIXTURE = Rows(
    retrieval=Retrieval(share=0.5, min_keys=1, max_keys=2, asked="together", answer_weight=5.0),
    repeats=Repeats(share=0.25, min_segment=4, max_segment=16, random=0.5),
)
STABLE = ("step", "phase", "tokens", "loss", "text_loss", "answer_loss", "lr", "grad_norm")  # all but times


def parallel(processes: int = 1, sharding: str = "replicate", **more: Any) -> dict[str, Any]:
    return {"processes": processes, "threads": 1, "sharding": sharding, "activation_checkpointing": "none", **more}


def phase(**changes: Any) -> Train:
    settings = {
        "name": "demo",
        "corpus": "train",
        "rows": MIXTURE,
        "steps": 6,
        "seq_len": 320,
        "global_batch": 4,
        "micro_batch": 2,
        "lr": 1e-3,
        "schedule": "cosine",
        "final_lr_share": 0.1,
        "warmup_steps": 2,
        "betas": (0.9, 0.95),
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "parallel": parallel(),
        "checkpoint_minutes": 60,
    }
    return Train(**{**settings, **changes})


def yarn(shape: Architecture):
    return make_rope("yarn", scale=5, original_context=shape.original_context, head_dim=shape.head_dim)


def model_of(shape: Architecture, seed: int = 0):
    """A fresh model with the rope of `yarn`; embeddings and head are tied or not, as the shape says."""
    model = create_model(shape, vocab_size=VOCABULARY, seed=seed)
    if not shape.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
        model.config.tie_word_embeddings = False
    set_rope(model, yarn(shape))
    return model


def train_tiny(data: Path, out: Path, shape: Architecture, phases: tuple[Train, ...], trouble: str = "") -> None:
    """Train in the processes of `phases`; writes weights.safetensors, facts.json and the log into `out`.

    `trouble`: "kill RANK STEP" ends a process with SIGKILL before that step; "term RANK STEP" sends it SIGTERM in the
    last micro-batch, "drop RANK STEP" before the first.
    """
    from safetensors.torch import save_file

    from yarnlab.corpus.passkey import PasskeyText
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.training import loop, sequence
    from yarnlab.training.objective import build_objective, facts
    from yarnlab.training.parallel import processes
    from yarnlab.training.rows import RowSource
    from yarnlab.training.shards import whole_weights

    out.mkdir(parents=True, exist_ok=True)
    with processes(phases[0].parallel) as group:
        model: Any = model_of(shape).to(group.device)
        objective = build_objective(model, phases[0], group)
        if group.context > 1:
            model.set_attn_implementation(sequence.register(group, yarn(shape)))
        else:
            use_fast_attention(model, precision=phases[0].precision)
        corpus, text = TokenisedCorpus.open(data / "train"), PasskeyText.load(data / "tokenizer")
        rows = tuple(RowSource(corpus, text, chosen, (0, 0, i)) for i, chosen in enumerate(phases))
        run = loop.Run("demo", shape, VOCABULARY, yarn(shape), phases, rows, out / "state", out / "log", None, group)
        if trouble:
            _make_trouble(*trouble.split(), rank=group.rank)
        loop.train(objective, run)
        weights = whole_weights(model, torch.float32, group.is_leader)
        if group.is_leader:
            save_file(weights, out / "weights.safetensors")
            (out / "facts.json").write_text(json.dumps(facts(objective, phases[-1], group)))


def _make_trouble(kind: str, who: str, when: str, *, rank: int) -> None:
    if rank == int(who):
        number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
        during(int(when), lambda: os.kill(os.getpid(), number), late=kind == "term")


def during(step: int, act: Callable[[], object], *, late: bool = True) -> None:
    """Have `act` called in a step, counted from this start: after its micro-batches, or (not `late`) before them."""
    from yarnlab.training import loop

    accumulate, part, steps = loop.accumulate, loop.part, itertools.count(1)

    def acting(tensor: torch.Tensor) -> torch.Tensor:
        loop.part = part
        act()
        return part(tensor)

    def accumulating(*arguments: Any) -> Any:
        if next(steps) == step:
            if late:
                loop.part = acting  # what takes the gradients
            else:
                act()
        return accumulate(*arguments)

    loop.accumulate = accumulating


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log").read_text().splitlines()]


def stable(out: Path) -> list[list[Any]]:
    """The log without times and throughput."""
    return [[line[key] for key in STABLE] for line in log_of(out)]


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "weights.safetensors")
