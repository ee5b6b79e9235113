"""Training: the loss, the schedule, the rows, resuming."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yarnlab import cost
from yarnlab.corpus.passkey import NAMES, PasskeyText
from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.modeling import create_model, use_fast_attention
from yarnlab.study.training import Repeats, Retrieval, Rows, Train
from yarnlab.training import checkpoint, loop
from yarnlab.training.loss import linear_cross_entropy
from yarnlab.training.parallel import Group
from yarnlab.training.rows import RowSource
from yarnlab.training.schedule import learning_rate

MIXTURE = Rows(
    retrieval=Retrieval(share=0.5, min_keys=1, max_keys=2, asked="together", answer_weight=5.0),
    repeats=Repeats(share=0.25, min_segment=4, max_segment=16, random=0.5),
)


def replicas(processes: int) -> dict:
    return {"processes": processes, "threads": 1, "sharding": "replicate", "activation_checkpointing": "none"}


def phase(**changes) -> Train:
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
        "parallel": replicas(1),
        "checkpoint_minutes": 60,
    }
    return Train(**{**settings, **changes})


@pytest.fixture(scope="module")
def text(tiny_data):
    return PasskeyText(load_tokenizer(tiny_data / "tokenizer"))


@pytest.fixture
def source(tiny_data, text):
    corpus = TokenisedCorpus.open(tiny_data / "train")
    return lambda chosen, order=(0, 0, 0): RowSource(corpus, text, chosen, order)


def run_of(tmp_path, architecture, phases, source) -> loop.Run:
    rows = tuple(source(chosen, (0, 0, i)) for i, chosen in enumerate(phases))
    return loop.Run(
        "demo",
        architecture,
        512,
        tuple(phases),
        rows,
        tmp_path / "state",
        tmp_path / "demo.jsonl",
        tmp_path / "log",
    )


def lines(run: loop.Run) -> list[dict]:
    return [json.loads(line) for line in run.metrics.read_text().splitlines()]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_chunked_cross_entropy_equals_the_plain_one():
    """Loss, per-token NLL and both gradients equal torch's cross-entropy, over several chunks and with weights."""
    torch.manual_seed(0)
    hidden, head = torch.randn(2500, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets, w = torch.randint(0, 50, (2500,)), torch.rand(2500)
    total, nll = linear_cross_entropy(hidden, head, targets, w, dtype=torch.float32)
    (total / 7).backward()
    ours = [hidden.grad.clone(), head.grad.clone()]
    hidden.grad = head.grad = None
    each = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    ((each * w).sum() / 7).backward()
    assert torch.allclose(nll, each, atol=1e-5)
    for a, b in zip(ours, [hidden.grad, head.grad], strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def test_accumulation_equals_one_large_batch(architecture, source):
    """The gradient does not depend on how a global batch is split, though its parts hold different weights."""
    gradients = []
    for micro_batch in (1, 2, 4):
        model = create_model(architecture, vocab_size=512, seed=0)
        chosen = phase(micro_batch=micro_batch)
        loop.accumulate(model, source(chosen), 0, chosen, Group(), [])
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-6)


PARALLEL = """
import json, sys; from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from yarnlab.training.parallel import forked
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Train
from yarnlab.corpus.passkey import NAMES, PasskeyText
from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.modeling import create_model
from yarnlab.training import loop
from yarnlab.training.rows import RowSource
data, out = Path(sys.argv[1]), Path(sys.argv[2])
shape, chosen = Architecture(**json.loads(sys.argv[4])), Train.model_validate_json(sys.argv[5])
with forked(chosen.parallel.processes) as group:
    model = create_model(shape, vocab_size=512, seed=0)
    text = PasskeyText(load_tokenizer(data / "tokenizer"))
    rows = RowSource(TokenisedCorpus.open(data / "train"), text, chosen, (0, 0, 0))
    run = loop.Run("demo", shape, 512, (chosen,), (rows,), out / "state", out / "demo.jsonl", None, group)
    loop.train(model, run)
torch.save(dict(model.named_parameters()), out / "weights.pt")
"""


def test_processes_do_not_change_what_is_learned(tiny_data, architecture, tmp_path):
    """One process and two, on the same global batches: losses to 1e-5, weights to 1e-4 of an update; one log."""
    made = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        out.mkdir()
        chosen = phase(parallel=replicas(processes), steps=4)
        arguments = [str(tiny_data), str(out), "", architecture.model_dump_json(), chosen.model_dump_json()]
        subprocess.run([sys.executable, "-c", PARALLEL, *arguments], check=True, timeout=120)
        log = [json.loads(line) for line in (out / "demo.jsonl").read_text().splitlines()]
        made[processes] = log, torch.load(out / "weights.pt", weights_only=True)
    (log, one), (other_log, two) = made[1], made[2]
    for a, b in zip(log, other_log, strict=True):
        for key in ("loss", "text_loss", "answer_loss", "grad_norm"):
            assert a[key] == pytest.approx(b[key], rel=1e-5), key
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() < 1e-4 * 1e-3 * 4, name


def test_a_worker_that_fails_ends_the_run():
    """The other processes do not wait for ever, and the run is not taken for finished."""
    code = (
        "import torch\nfrom yarnlab.training.parallel import forked\n"
        "with forked(2) as group:\n"
        "    if not group.leads: raise RuntimeError('worker broke')\n"
        "    group.add_up([torch.ones(3)])\n"
        "print('finished')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0 and "finished" not in done.stdout
    assert "worker broke" in done.stderr and "WorkerFailed" in done.stderr


@given(
    steps=st.integers(2, 500),
    share=st.floats(0, 1),
    schedule=st.sampled_from(["constant", "cosine"]),
    data=st.data(),
)
def test_schedule_rises_then_never_rises(steps, share, schedule, data):
    """Linear to the peak at the end of the warm-up, never above it, non-increasing after, ending where declared."""
    warmup = data.draw(st.integers(0, steps - 1))
    rates = [
        learning_rate(i, lr=1.0, steps=steps, warmup_steps=warmup, schedule=schedule, final_lr_share=share)
        for i in range(steps)
    ]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[:warmup]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[warmup:]))
    if warmup:
        assert rates[warmup - 1] == 1.0
    if schedule == "cosine" and steps - warmup > 1:
        assert rates[-1] == pytest.approx(share)


def test_rows_follow_from_order_and_number(source):
    """The same order gives the same rows, another order others; a resumed run needs no random state."""
    one, same, other = source(phase()), source(phase()), source(phase(), (0, 1, 0))
    for step in (3, 0):
        assert all(
            np.array_equal(a, b)
            for a, b in zip(vars(one.batch(step)).values(), vars(same.batch(step)).values(), strict=True)
        )
    assert not np.array_equal(one.batch(0).ids, one.batch(1).ids)
    assert not np.array_equal(one.batch(0).ids, other.batch(0).ids)


def retrieval_rows(asked: str, min_keys: int = 1, max_keys: int = 3) -> Train:
    retrieval = Retrieval(share=1.0, min_keys=min_keys, max_keys=max_keys, asked=asked, answer_weight=5.0)
    return phase(rows=Rows(retrieval=retrieval), seq_len=400)


@pytest.mark.parametrize("asked", ["together", "apart"])
def test_every_answer_can_be_found_before_it(source, text, asked):
    """In a retrieval row each marked answer stands earlier in the row too, weighs more, and ids fit the window."""
    rows = source(retrieval_rows(asked))
    seen = 0
    for step in range(5):
        batch = rows.batch(step)
        assert batch.ids.shape == (4, 401)
        for ids, answers, w in zip(batch.ids, batch.answers, batch.weights, strict=True):
            assert (w[answers] == 5).all() and (w[~answers] <= 1).all()
            ends = np.flatnonzero(answers & ~np.append(answers[1:], False)) + 2
            for end in ends:
                assert ids[end - 1] == text.end[0]
                key = ids[end - 6 : end - 1].tolist()
                earlier = ids[: end - 6].tolist()
                assert any(earlier[i : i + 5] == key for i in range(len(earlier) - 4))
                seen += 1
    assert seen >= 20


def answer_ends(answers: np.ndarray) -> list[int]:
    """Positions behind each answer, in the row's ids."""
    return (np.flatnonzero(answers & ~np.append(answers[1:], False)) + 2).tolist()


def test_questions_asked_together_follow_one_another(source, text):
    """Between two answers stands nothing but the next question; some rows go on with text, others end there."""
    rows, gaps, rests = source(retrieval_rows("together", 3, 3)), set(), []
    longest = max(len(text.question(name)) for name in NAMES)
    for step in range(10):
        batch = rows.batch(step)
        for answers in batch.answers:
            ends = answer_ends(answers)
            assert len(ends) == 3
            gaps |= {b - a - 6 for a, b in itertools.pairwise(ends)}
            rests.append(401 - ends[-1])
    assert gaps and max(gaps) <= longest
    assert 0.2 < np.mean([rest > 0 for rest in rests]) < 0.6


def test_a_single_key_has_no_name_and_is_asked_for_twice(source, text):
    """As in the evaluation, whose only key is nameless."""
    batch = source(retrieval_rows("together", 1, 1)).batch(0)
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        first, second = answer_ends(answers)
        question = text.question()
        assert ids[second - 6 - len(question) : second - 6].tolist() == question.tolist()
        assert ids[first - 6 : first].tolist() == ids[second - 6 : second].tolist()


def test_questions_asked_apart_end_with_the_nameless_one(source, text):
    batch = source(retrieval_rows("apart", 2, 3)).batch(0)
    for ids, answers in zip(batch.ids, batch.answers, strict=True):
        assert answer_ends(answers)[-1] == 401
        question = text.question()
        assert ids[401 - 6 - len(question) : 401 - 6].tolist() == question.tolist()


def test_resume_is_bitwise(tmp_path, architecture, source):
    """Stopped in the middle of the second phase and continued: same weights, same log but for the times."""
    phases = [phase(steps=3), phase(name="second", steps=4, schedule="constant", final_lr_share=0.0)]
    whole = create_model(architecture, vocab_size=512, seed=0)
    loop.train(whole, run_of(tmp_path / "a", architecture, phases, source))

    broken, run = (
        create_model(architecture, vocab_size=512, seed=0),
        run_of(tmp_path / "b", architecture, phases, source),
    )
    original = loop.accumulate

    def stop_at_fifth(*arguments, count=[0]):  # noqa: B006 (a counter)
        count[0] += 1
        if count[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    loop.accumulate = stop_at_fifth
    try:
        with pytest.raises(loop.Interrupted, match="after step 5"):
            loop.train(broken, run)
    finally:
        loop.accumulate = original
    fresh = create_model(architecture, vocab_size=512, seed=1)  # other weights: all must come from the checkpoint
    loop.train(fresh, run)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(fresh)[name]), name
    stable = ("step", "phase", "tokens", "loss", "text_loss", "answer_loss", "lr", "grad_norm")
    expected = lines(run_of(tmp_path / "a", architecture, phases, source))
    assert [[line[key] for key in stable] for line in lines(run)] == [
        [line[key] for key in stable] for line in expected
    ]


def test_a_broken_checkpoint_is_passed_over(tmp_path, architecture):
    """With the newest checkpoint truncated, the one before it is used; with none readable, none."""
    model = create_model(architecture, vocab_size=512, seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, model, optimizer, checkpoint.Place(0, step, step))
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    newest = tmp_path / "checkpoint-00000003" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert checkpoint.newest(tmp_path)[0].step == 2
    (tmp_path / "checkpoint-00000002" / "place.json").write_text("{")
    assert checkpoint.newest(tmp_path) is None


def test_two_writers_of_one_state_are_refused(tmp_path):
    with (
        checkpoint.exclusive(tmp_path),
        pytest.raises(checkpoint.StateBusy, match="in use by another"),
        checkpoint.exclusive(tmp_path),
    ):
        pass


def test_a_loss_that_is_not_finite_stops_training(tmp_path, architecture, source):
    """The message names phase and step; nothing is saved over the last good state."""
    model = create_model(architecture, vocab_size=512, seed=0)
    with torch.no_grad():
        model.lm_head.weight[3] = float("nan")
    with pytest.raises(loop.TrainingError, match="phase demo, step 1: loss nan"):
        loop.train(model, run_of(tmp_path, architecture, [phase()], source))


def test_training_learns_and_logs_what_it_did(tmp_path, architecture, source):
    """The loss falls; each line has its step, the lr of the closed form, and both utilisations (palm above causal)."""
    chosen = phase(steps=30, lr=5e-3, rows=Rows(), precision="bf16")
    model = create_model(architecture, vocab_size=512, seed=0)
    use_fast_attention(model)
    run = run_of(tmp_path, architecture, [chosen], source)
    summary = loop.train(model, run)
    log = lines(run)
    assert [line["step"] for line in log] == list(range(1, 31))
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert summary["tokens"] == log[-1]["tokens"] == 30 * 4 * 320
    for i, line in enumerate(log):
        assert line["lr"] == learning_rate(i, lr=5e-3, steps=30, warmup_steps=2, schedule="cosine", final_lr_share=0.1)
        assert 0 < line["mfu_causal"] < line["mfu_palm"] < 1
        assert line["answer_loss"] is None


def test_flops_agree_with_counted_ones(architecture):
    """The closed form equals torch's count of the real forward pass (full-square attention) to 1 %."""
    from torch.utils.flop_counter import FlopCounterMode

    model = create_model(architecture, vocab_size=512, seed=0)
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 256, dtype=torch.int64))
    assert counter.get_total_flops() == pytest.approx(
        cost.forward_flops(architecture, 512, 256, causal=False), rel=0.01
    )
    assert cost.parameters(architecture, 512) == sum(p.numel() for p in model.parameters())
