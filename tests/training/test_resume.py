"""Checkpoints: a run that was killed or stopped continues bit for bit, whatever was left behind."""

from __future__ import annotations

import signal

import pytest
import torch
from tiny_runs import log_of, model_of, parallel, phase, stable, train_tiny, weights_of

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.training import checkpoint, checkpoint_files
from yarnlab.training.parallel import Group

EVERY_STEP = 1e-9  # minutes between checkpoints
PHASES = (
    phase(steps=2, seq_len=128, micro_batch=1, rows={}, checkpoint_minutes=EVERY_STEP),
    phase(
        name="second", steps=4, seq_len=160, micro_batch=1, schedule="linear", rows={}, checkpoint_minutes=EVERY_STEP
    ),
)


def phases_in(processes: int, sharding: str):
    from yarnlab.study.training import Parallel

    block = Parallel.model_validate(parallel(processes, sharding))
    return tuple(chosen.model_copy(update={"parallel": block}) for chosen in PHASES)


SETUPS = [
    pytest.param(1, "replicate"),
    pytest.param(2, "fsdp"),
    pytest.param(2, "replicate", marks=pytest.mark.slow),
    pytest.param(1, "fsdp", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("processes", "sharding"), SETUPS)
@pytest.mark.parametrize(
    "trouble",
    [
        "kill 0 5",
        pytest.param("kill 0 1", marks=pytest.mark.slow),
        pytest.param("kill 0 3", marks=pytest.mark.slow),
        pytest.param("kill last 6", marks=pytest.mark.slow),
        pytest.param("term last 4", marks=pytest.mark.slow),
        "drop last 4",
        pytest.param("drop last 1", marks=pytest.mark.slow),
        pytest.param("drop 0 3", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_continues_bit_for_bit(
    tiny_data, architecture, tmp_path, whole_run, forked_job, processes, sharding, trouble
):
    """kill -9 of a process at a step, or SIGTERM to one process only; the same command again gives the same weights
    and the same log, times aside, as a run that nothing happened to. Also over the border of two phases. A step is left
    between two micro-batches, in all processes: SLURM would kill one that outlasts its grace."""
    phases, whole = phases_in(processes, sharding), whole_run(processes, sharding)
    arguments = (tiny_data, tmp_path / "run", architecture, phases)
    code, said = forked_job(train_tiny, *arguments, trouble.replace("last", str(processes - 1)))
    kind, _, step = trouble.split()
    if kind != "kill":
        steps = int(step) - (kind == "drop")
        assert code == EXIT_INTERRUPTED and f"stopped after step {steps};" in said, said
        assert len(log_of(tmp_path / "run")) == steps
    else:
        assert code in (-signal.SIGKILL, 1), said
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    code, said = forked_job(train_tiny, *arguments)
    assert code == 0, said
    expected, found = weights_of(whole), weights_of(tmp_path / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert stable(tmp_path / "run") == stable(whole)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole_run(tiny_data, architecture, whole_runs, forked_job):
    """The folder of a run that nothing happened to, made once for each number of processes and sharding."""

    def make(processes: int, sharding: str):
        out = whole_runs / f"{processes}-{sharding}"
        if not out.exists():
            code, said = forked_job(train_tiny, tiny_data, out, architecture, phases_in(processes, sharding))
            assert code == 0, said
        return out

    return make


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((2, "fsdp"), (1, "replicate")),
        pytest.param((2, "fsdp"), (3, "fsdp"), marks=pytest.mark.slow),
        pytest.param((1, "replicate"), (2, "fsdp"), marks=pytest.mark.slow),
    ],
)
def test_another_number_of_processes_continues(tiny_data, architecture, tmp_path, whole_run, forked_job, before, after):
    """Rows of weights and moments are put together anew; the rest of the run differs in the order of additions only."""
    batch = 3 if 3 in (before[0], after[0]) else 4

    def phases(setup):
        return tuple(p.model_copy(update={"global_batch": batch}) for p in phases_in(*setup))

    code, said = forked_job(train_tiny, tiny_data, tmp_path, architecture, phases(before), "term 0 4")
    assert code == EXIT_INTERRUPTED, said
    code, said = forked_job(train_tiny, tiny_data, tmp_path, architecture, phases(after))
    assert code == 0, said
    assert "continuing after step 4" in said
    if batch == 4:
        for a, b in zip(log_of(whole_run(*before)), log_of(tmp_path), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    assert len(log_of(tmp_path)) == 6


def saved(state, model, *steps: int) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for step in steps:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float(step))
        optimizer.step()
        checkpoint.save(state, model, optimizer, checkpoint.TrainState(0, step, step), Group(), {"steps": [step]})
    return optimizer


def test_a_broken_checkpoint_is_passed_over(tmp_path, architecture, capsys):
    """Of three, two are kept. With one bit of the newest changed, cut short, or without one of its files, the one before
    it is used and it is named; with none readable, none. What a killed process left is removed."""
    model = model_of(architecture)
    saved(tmp_path, model, 1, 2, 3)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 3
    newest = tmp_path / "checkpoint-00000003" / "rows-00000-of-00001.safetensors"
    good = newest.read_bytes()
    newest.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert not capsys.readouterr().err
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 2
    assert "checkpoint-00000003 is not what was written, or can't be read: it is passed over" in capsys.readouterr().err
    newest.write_bytes(good)
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 3
    newest.write_bytes(good[:-1000])
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 2
    newest.unlink()
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 2
    assert checkpoint.newest(tmp_path, model, Group()).notes == {"steps": [2]}
    (tmp_path / "checkpoint-00000002" / "place.json").write_text("{")
    assert checkpoint.newest(tmp_path, model, Group()) is None
    (tmp_path / checkpoint.UNFINISHED).mkdir()
    checkpoint.remove_unfinished(tmp_path, Group())
    assert not (tmp_path / checkpoint.UNFINISHED).exists()


def test_any_flipped_bit_of_a_checkpoint_is_seen(tmp_path, architecture):
    """Also of the place in the run, the step log and the hashes themselves: a wrong step would train on, unnoticed."""
    model = model_of(architecture)
    saved(tmp_path, model, 1)
    for file in sorted((tmp_path / "checkpoint-00000001").iterdir()):
        good = file.read_bytes()
        for at in range(0, len(good), 1 if len(good) < 1000 else 1009):
            file.write_bytes(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
            assert not checkpoint_files.is_intact(file), (file, at)
            assert checkpoint.newest(tmp_path, model, Group(), lambda _: None) is None, (file, at)
        file.write_bytes(good)
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 1


def test_unreadable_checkpoints_of_later_steps_do_not_push_out_new_ones(tmp_path, architecture):
    """Both that were kept are damaged: the training begins anew, and what it keeps then is what it goes on from."""
    model = model_of(architecture)
    saved(tmp_path, model, 8, 9)
    for place in tmp_path.glob("checkpoint-*/place.json"):
        place.write_bytes(place.read_bytes()[:-1])
    saved(tmp_path, model, 1, 2, 3)
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 3
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2


def test_restoring_gives_back_every_bit(tmp_path, architecture):
    """Weights, both moments and AdamW's count."""
    model, other = model_of(architecture), model_of(architecture, seed=1)
    optimizer, fresh = saved(tmp_path, model, 1, 2), torch.optim.AdamW(other.parameters(), fused=True)
    checkpoint.newest(tmp_path, other, Group()).restore(fresh)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert optimizer.state[a].keys() == fresh.state[b].keys()
        assert all(torch.equal(optimizer.state[a][key], fresh.state[b][key]) for key in optimizer.state[a])


@pytest.mark.parametrize("file", ["rows-00000-of-00001.safetensors", "place.json"])
def test_a_checkpoint_that_can_not_be_written_leaves_those_before(tmp_path, architecture, monkeypatch, file):
    """A full disk, whichever file meets it: one message, and the state is as it was. safetensors has an error of its
    own for that."""
    from safetensors import SafetensorError

    model = model_of(architecture)
    optimizer = saved(tmp_path, model, 1)

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def full_for_text(path, value: dict) -> None:
        raise OSError(28, "No space left on device", str(path))

    if file == "place.json":
        monkeypatch.setattr(checkpoint, "write_record", full_for_text)
    else:
        monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(checkpoint.CheckpointFailed, match=rf"No space left on device: .*{file}.*before it are kept"):
        checkpoint.save(tmp_path, model, optimizer, checkpoint.TrainState(0, 2, 2), Group(), {})
    assert [folder.name for folder in sorted(tmp_path.iterdir())] == ["checkpoint-00000001"]
    assert checkpoint.newest(tmp_path, model, Group()).train_state.step == 1
