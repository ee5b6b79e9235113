"""How a model is computed does not change what it learns: processes, shards, shared sequences."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_runs import log_of, parallel, phase, train_tiny, weights_of

from yarnlab.errors import killed
from yarnlab.modeling import NoGPU, compute_device
from yarnlab.processes import ON_GPU
from yarnlab.study.training import Parallel
from yarnlab.training.parallel import GroupError, WorkerFailed, forked, processes
from yarnlab.training.schedule import learning_rate

WAYS = {
    "two replicas": parallel(2),
    "two shards": parallel(2, "fsdp"),
    "a sequence in two parts": parallel(2, context=2),
    "two shards of a sequence, recomputed": parallel(2, "fsdp", context=2, activation_checkpointing="full"),
    "four shards, two to a sequence, offloaded": parallel(4, "fsdp", context=2, activation_checkpointing="offload"),
}
SLOW = ("two shards of a sequence, recomputed", "four shards, two to a sequence, offloaded")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The reference, trained once: (folder, whether embeddings are tied) → the run in one process."""
    return tmp_path_factory.mktemp("alone")


@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.slow] if way in SLOW else []) for way in WAYS])
@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["tied", "untied"])
def test_processes_do_not_change_what_is_learned(tiny_data, architecture, tmp_path, alone, forked_job, way, tied):
    """Ten steps of two micro-batches in fp32: loss and gradient norm to 1e-6 of those of one process, weights to 1e-4
    of the updates, each with its own micro_batch; the rate of each step is the closed form's; one log."""
    shape = architecture.model_copy(update={"tie_word_embeddings": tied})
    chosen = phase(steps=10, micro_batch=1)
    reference = alone / str(tied)
    if not reference.exists():
        code, said = forked_job(train_tiny, tiny_data, reference, shape, (phase(steps=10),))
        assert code == 0, said
    chosen = chosen.model_copy(update={"parallel": Parallel.model_validate(WAYS[way])})
    code, said = forked_job(train_tiny, tiny_data, tmp_path, shape, (chosen,))
    assert code == 0, said
    one, other = log_of(reference), log_of(tmp_path)
    assert [line["step"] for line in other] == list(range(1, 11))
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        for key in ("loss", "text_loss", "answer_loss", "grad_norm"):
            assert a[key] == pytest.approx(b[key], rel=1e-6), (i, key)
        rate = learning_rate(i, lr=1e-3, steps=10, warmup_steps=2, schedule="cosine", final_lr_share=0.1)
        assert a["lr"] == b["lr"] == rate
    expected, found = weights_of(reference), weights_of(tmp_path)
    assert expected.keys() == found.keys() and len(found) == 20 + (not tied)
    for name, tensor in expected.items():
        assert (tensor - found[name]).abs().max() < 1e-4 * 1e-3 * 10, name


@pytest.mark.parametrize(("precision", "kept"), [("bf16", "float32"), ("pure-bf16", "bfloat16")])
def test_shards_compute_in_bf16_and_keep_what_is_asked_for(
    tiny_data, architecture, tmp_path, forked_job, precision, kept
):
    """Weights in fp32 or bf16; the first layer's own dtype is looked at in the run. The loss is not rounded to bf16,
    whose steps are 1/32 at 6 nats."""
    chosen = phase(steps=1, seq_len=64, rows={}, precision=precision, parallel=parallel(2, "fsdp"))
    code, said = forked_job(train_tiny, tiny_data, tmp_path, architecture, (chosen,))
    assert code == 0, said
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["weights_dtype"] == kept and facts["sharding"] == "fsdp" and facts["world"] == 2
    loss = log_of(tmp_path)[0]["loss"]
    assert torch.tensor(loss).bfloat16().item() != loss


def _one_fails() -> None:
    with forked(Parallel.model_validate(parallel(2))) as group:
        if not group.is_leader:
            raise RuntimeError("worker broke")
        group.all_reduce([torch.ones(3)])
    print("finished")


def test_a_worker_that_fails_ends_the_run(forked_job):
    """The other processes do not wait for ever, and the run is not taken for finished."""
    code, said = forked_job(_one_fails, timeout=30)
    assert code != 0 and "finished" not in said
    assert "worker broke" in said and "WorkerFailed" in said


def _one_is_killed(late: bool) -> None:
    try:
        with forked(Parallel.model_validate(parallel(2))) as group:
            group.all_true(True)
            if not group.is_leader:
                os.kill(os.getpid(), signal.SIGKILL)
            if not late:  # the leader notices in a collective, which knows of a broken connection alone
                group.all_reduce([torch.ones(3)])
    except WorkerFailed as error:
        print("said:", error)


@pytest.mark.parametrize("late", [False, True])
def test_a_process_that_was_killed_is_named(forked_job, late):
    """As when memory runs out: whoever loses it says why, not what its connection looked like."""
    _, said = forked_job(_one_is_killed, late, timeout=30)
    assert said == f"said: {killed('one of 2 training processes')}\n"


def _leader_fails() -> None:
    with forked(Parallel.model_validate(parallel(2))) as group:
        if group.is_leader:
            group.announce(False)
            raise RuntimeError("leader broke")
        assert not group.await_leader()


def test_a_leader_that_fails_ends_the_others(forked_job):
    code, said = forked_job(_leader_fails, timeout=30)
    assert code != 0 and "leader broke" in said and "AssertionError" not in said


def _threads_compute_at_once() -> None:
    big = torch.ones(100_000)
    for _ in range(15):
        with forked(Parallel.model_validate(parallel(2))) as group:
            start = threading.Barrier(4)

            def work(_: int, start: threading.Barrier = start) -> None:
                start.wait()
                big.bfloat16()

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(work, range(4)))
            assert group.all_true(True)  # none leaves while another one still connects to it


def test_threads_of_a_forked_process_compute_at_once(forked_job):
    """As where transformers loads weights. Without a pool of its own, set up first, more than half of all forks failed."""
    code, said = forked_job(_threads_compute_at_once)
    assert code == 0, said


def _launched(data, out, shape, chosen, size: int) -> None:
    """What a launcher does: processes that know each other from the environment alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(size):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            train_tiny(data, out, shape, (chosen,))
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * size


def test_a_launchers_processes_find_each_other(tiny_data, architecture, tmp_path, forked_job):
    """Processes with RANK, WORLD_SIZE and LOCAL_RANK join one group, and make what forked ones make, bit for bit."""
    chosen = phase(steps=2, parallel=parallel(2, "fsdp"))
    for job, out, more in ((train_tiny, "forked", ()), (_launched, "launched", (2,))):
        phases = chosen if more else (chosen,)
        code, said = forked_job(job, tiny_data, tmp_path / out, architecture, phases, *more)
        assert code == 0, said
    one, other = weights_of(tmp_path / "forked"), weights_of(tmp_path / "launched")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_number_of_launched_processes_is_refused(monkeypatch):
    for name, value in {
        "RANK": 0,
        "WORLD_SIZE": 4,
        "LOCAL_RANK": 0,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    with (
        pytest.raises(GroupError, match=r"asks for 1 x 2 = 2 processes, the launcher started 4"),
        processes(Parallel.model_validate(parallel(2))),
    ):
        pass


def test_several_nodes_need_a_launcher():
    with pytest.raises(GroupError, match="--profile cluster"), processes(Parallel.model_validate(parallel(2, nodes=2))):
        pass


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    """Shards need a GPU each; small whole models are computed on the CPU instead, with the GPU out of the way."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with (
        pytest.raises(GroupError, match="2 processes need a GPU each, this node shows 1"),
        forked(Parallel.model_validate(parallel(2, "fsdp"))),
    ):
        pass


def test_a_job_that_was_given_gpus_never_computes_on_the_cpu(monkeypatch):
    """As with a CPU build of torch on a GPU node: training and evaluation say so, instead of taking weeks."""
    monkeypatch.setenv(ON_GPU, "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGPU, match="envs/run --gpu"), forked(Parallel.model_validate(parallel(2, "fsdp"))):
        pass
    with pytest.raises(NoGPU, match="envs/run --gpu"):
        compute_device()


def test_a_share_is_the_same_for_processes_that_share_a_sequence():
    from yarnlab.training.parallel import Group

    shares = [Group(rank, 4, context=2).share(8) for rank in range(4)]
    assert shares == [slice(0, 4), slice(0, 4), slice(4, 8), slice(4, 8)]
