"""The training loop in one process: what it accumulates, logs and refuses."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import VOCABULARY, log_of, model_of, phase, yarn

from yarnlab import cost
from yarnlab.modeling import RopeMismatch, set_rope
from yarnlab.study.training import Rows
from yarnlab.training import loop
from yarnlab.training.objective import NotInForce, build_objective, check
from yarnlab.training.parallel import Group
from yarnlab.training.schedule import learning_rate


@pytest.fixture
def run_of(tmp_path, architecture, source):
    def make(phases) -> loop.Run:
        rows = tuple(source(chosen, (0, 0, i)) for i, chosen in enumerate(phases))
        rope = yarn(architecture)
        return loop.Run(
            "demo", architecture, VOCABULARY, rope, tuple(phases), rows, tmp_path / "state", tmp_path / "log", None
        )

    return make


def test_accumulation_equals_one_large_batch(architecture, source):
    """The gradient does not depend on how a global batch is split, though its parts hold different weights."""
    gradients = []
    for micro_batch in (1, 2, 4):
        model, chosen = model_of(architecture), phase(micro_batch=micro_batch)
        loop.accumulate(build_objective(model, chosen, Group()), source(chosen), 0, chosen, Group(), [])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_training(architecture, run_of):
    """The message names phase and step; nothing is saved over the last good state."""
    model = model_of(architecture)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(loop.TrainingError, match="phase demo, step 1: loss nan"):
        loop.train(build_objective(model, phase(), Group()), run_of([phase()]))


def test_training_learns_and_logs_what_it_did(architecture, run_of):
    """The loss falls; each line has its step, the lr of the closed form, and both utilisations, whose ratio is that of
    the operations counted."""
    chosen = phase(steps=30, lr=5e-3, rows=Rows(), seq_len=64)
    run = run_of([chosen])
    summary, _ = loop.train(build_objective(model_of(architecture), chosen, Group()), run)
    log = log_of(run.metrics.parent)
    assert [line["step"] for line in log] == list(range(1, 31))
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert summary["tokens"] == log[-1]["tokens"] == 30 * 4 * 64
    causal, palm = (cost.training_flops(architecture, VOCABULARY, 64, causal=c) for c in (True, False))
    for i, line in enumerate(log):
        assert line["lr"] == learning_rate(i, lr=5e-3, steps=30, warmup_steps=2, schedule="cosine", final_lr_share=0.1)
        assert 0 < line["mfu_causal"] == pytest.approx(line["mfu_palm"] * causal / palm)
        assert line["answer_loss"] is None


def test_another_rope_than_the_declared_one_stops_training(architecture, run_of):
    """Before the first step: the tables in force are compared, not the config alone."""
    model = model_of(architecture)
    objective = build_objective(model, phase(), Group())
    set_rope(model, yarn(architecture.model_copy(update={"original_context": 32})))
    with pytest.raises(RopeMismatch, match="phase demo"):
        loop.train(objective, run_of([phase()]))


def test_text_of_another_tokenizer_stops_training(architecture, run_of):
    model = model_of(architecture)
    model.config.vocab_size = 5  # the embedding has more rows: nothing but the check can tell
    with pytest.raises(
        loop.TrainingError, match=r"phase demo, step 1: there is a token id \d+, .* ends at 4: the text"
    ):
        loop.train(build_objective(model, phase(), Group()), run_of([phase()]))


def test_what_is_not_in_force_is_said(architecture):
    """A model that is whole, or in another dtype, where the phase asks for something else."""
    objective, chosen = build_objective(model_of(architecture), phase(), Group()), phase()
    with pytest.raises(NotInForce, match="asks for fsdp"):
        sharded = chosen.parallel.model_copy(update={"sharding": "fsdp"})
        check(objective, chosen.model_copy(update={"parallel": sharded}), Group())
    objective.model.to(torch.bfloat16)
    with pytest.raises(NotInForce, match=r"kept in torch.bfloat16, precision fp32"):
        check(objective, chosen, Group())
