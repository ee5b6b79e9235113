"""Processes of one job: ranks and rendezvous as torchrun gives them, signals, failures, GPUs."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.processes import watch
from yarnlab.training import launch
from yarnlab.training.launch import LaunchError, NodeRank, allocation, claim, launch_prefix, node_rank, visible_gpus

ALONE = NodeRank(0, 1, "127.0.0.1", 15000)
SRUN = {"SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7", "SLURM_JOB_ID": "30003"}
AGENT = "import sys; from yarnlab.training.launch import run, NodeRank; "
AGENT += "sys.exit(run([sys.executable, '-c', sys.argv[1]], NodeRank(0, 1, '127.0.0.1', 15000), int(sys.argv[2]), {}))"


def agent(program: str, processes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", AGENT, program, str(processes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_process_is_the_plain_command():
    """So that a laptop's job is handed to the fork server, as every other one."""
    assert launch_prefix(1, 1) == "python -m yarnlab"
    assert allocation(1, 1) == {}


def test_several_nodes_are_one_srun_with_one_task_a_node():
    """Eight nodes of eight GPUs: SLURM is asked for 8 tasks, on every node for 8 GPUs and the threads of 8 processes."""
    prefix = launch_prefix(8, 8, threads=6, gpus=True)
    assert prefix.startswith("srun --nodes=8 --ntasks=8 --ntasks-per-node=1 --cpus-per-task=48 --gres=gpu:8 ")
    assert prefix.endswith(f"{launch.AGENT} --nodes 8 --processes 8 --gpus --")
    # tasks_per_gpu 0 keeps the plugin from starting one task a GPU; `gres` counts a node, `gpu` would count the job.
    assert allocation(8, 8, gpus=True) == {
        "nodes": 8,
        "tasks": 8,
        "tasks_per_gpu": 0,
        "mpi": "srun",
        "gres": "gpu:8",
        "needed_gpus": 8,
    }
    assert "nodes" not in allocation(1, 8, gpus=True)


def test_ranks_over_all_nodes_are_numbered_once():
    """Rank = node x processes + local rank, as torchrun numbers them; the same meeting place for all."""
    given = [NodeRank(node, 3, "a", 7).variables(rank, 4) for node in range(3) for rank in range(4)]
    assert [int(v["RANK"]) for v in given] == list(range(12))
    assert [(v["GROUP_RANK"], v["LOCAL_RANK"]) for v in given[4:6]] == [("1", "0"), ("1", "1")]
    assert {(v["WORLD_SIZE"], v["LOCAL_WORLD_SIZE"], v["MASTER_ADDR"], v["MASTER_PORT"]) for v in given} == {
        ("12", "4", "a", "7")
    }


def test_a_node_finds_its_place_by_the_variables_of_srun():
    assert node_rank(2, SRUN) == NodeRank(1, 2, "10.0.0.7", 15003)
    assert node_rank(1, {}).nodes == 1
    with pytest.raises(LaunchError, match="no task of srun"):
        node_rank(2, {})
    with pytest.raises(LaunchError, match="3 nodes are asked for, and srun started tasks on 2"):
        node_rank(3, SRUN)


def test_every_process_runs_with_its_rank_and_none_is_handed_to_the_warm_process(monkeypatch):
    monkeypatch.setenv("YARNLAB_FORK_SERVER", "/nowhere")
    program = "import json, os, sys; what = [os.environ['RANK'], os.environ.get('YARNLAB_FORK_SERVER')]; "
    program += "os.write(1, json.dumps(what).encode() + b'\\n')"
    out, _ = agent(program, 3).communicate(timeout=30)
    assert sorted(json.loads(line) for line in out.splitlines()) == [["0", None], ["1", None], ["2", None]]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([0, 0], 0), ([EXIT_INTERRUPTED, EXIT_INTERRUPTED], EXIT_INTERRUPTED), ([EXIT_INTERRUPTED, 3], 3)],
)
def test_the_code_is_that_of_the_process_that_failed(codes, expected):
    """An interruption stays one, and an error beside it is the error."""
    program = f"import os, sys; sys.exit({codes}[int(os.environ['RANK'])])"
    assert agent(program, 2).wait(30) == expected


def test_a_failed_process_ends_those_that_wait_for_it(monkeypatch):
    """They would wait in a collective until its time runs out, an allocation of many GPUs with them."""
    monkeypatch.setattr(launch, "GRACE_S", 0.1)
    program = "import os, sys, time; time.sleep(60) if os.environ['RANK'] == '0' else sys.exit(4)"
    began = time.monotonic()
    assert launch.run([sys.executable, "-c", program], ALONE, 2, {}) == 4
    assert time.monotonic() - began < 20


def test_sigterm_reaches_every_process_and_all_may_finish_their_checkpoint():
    program = (
        "import os, signal, sys, time; seen = []; signal.signal(15, lambda *_: seen.append(1)); os.write(1, b'up\\n')\n"
        "while not seen: time.sleep(0.01)\n"
        f"time.sleep(0.3); os.write(1, b'saved\\n'); sys.exit({EXIT_INTERRUPTED})"
    )
    process = agent(program, 2)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert out == "saved\n" * 2 and process.returncode == EXIT_INTERRUPTED


def test_a_terminals_ctrl_c_reaches_every_process_once():
    """The terminal sends it to its whole group; a second one would end a training before it has saved."""
    program = (
        "import os, signal, sys, time; seen = []; signal.signal(2, lambda *_: seen.append(1)); os.write(1, b'up\\n')\n"
        "while not seen: time.sleep(0.01)\n"
        f"time.sleep(0.5); os.write(1, b'%d\\n' % len(seen)); sys.exit({EXIT_INTERRUPTED})"
    )
    command = [sys.executable, "-c", AGENT, program, "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out == "1\n1\n" and process.returncode == EXIT_INTERRUPTED


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is signalled on Linux only")
def test_a_killed_agent_takes_its_processes_with_it():
    """Otherwise the next attempt would meet them at work."""
    process = agent("import os, time; print(os.getpid(), flush=True); time.sleep(60)", 1)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    lives = watch(child)
    assert lives()
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while lives() and time.monotonic() < until:
        time.sleep(0.02)
    assert not lives()


def test_gpus_are_those_that_were_given():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, 5"}) == ["3", "5"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_too_few_gpus_is_one_message_with_the_fix(monkeypatch, capsys):
    """What a job says whose gres was forgotten: SLURM gives it none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert launch.main(["--processes", "2", "--gpus", "--", "train", "base"]) == 1
    message = capsys.readouterr().err
    assert "2 processes need a GPU each, and this job has 0" in message and "gres: gpu:2" in message


def test_a_temporary_folder_without_file_locks_is_one_message_with_the_fix(monkeypatch, capsys, tmp_path):
    """As on Lustre without `-o flock`."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(launch.fcntl, "flock", refuse)
    monkeypatch.setattr(launch.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert launch.main(["--gpus", "--", "train", "base"]) == 1
    assert "(Function not implemented): set TMPDIR to a folder of this machine's own disk" in capsys.readouterr().err


def test_jobs_of_one_machine_share_its_gpus_without_overlap(tmp_path):
    """One of three GPUs is in use: two are given out at once, a third is waited for until its user has ended."""
    program = "import sys, time; from pathlib import Path; from yarnlab.training.launch import claim\n"
    program += "print(*claim(['0', '1', '2'], int(sys.argv[1]), Path(sys.argv[2])), flush=True); time.sleep(60)"
    given: list[list[str]] = []
    holders: list[subprocess.Popen[str]] = []

    def start(count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, str(count), str(tmp_path)]
        holders.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return holders[-1]

    def answer(holder: subprocess.Popen[str]) -> list[str]:
        assert holder.stdout is not None
        return holder.stdout.readline().split()

    try:
        given = [answer(start(1)), answer(start(2))]
        assert sorted(given[0] + given[1]) == ["0", "1", "2"]
        third = start(1)
        assert not select.select([third.stdout], [], [], 0.5)[0]
        holders[0].kill()
        holders[0].wait()
        assert answer(third) == given[0]
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def test_jobs_inside_one_allocation_share_its_gpus_and_those_of_another_do_not_wait(tmp_path):
    """`salloc --gres=gpu:2`, then two jobs at once: a GPU each. Another allocation's GPUs may have the same names."""
    program = "import time; from yarnlab.training.launch import _gpu_variables\n"
    program += "print(_gpu_variables(1)['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(60)"
    jobs = []
    for number in ("7", "7", "8"):
        given = {"SLURM_JOB_ID": number, "CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-c", program]
        jobs.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **given}))
    try:
        found = [job.stdout.readline().strip() for job in jobs if job.stdout is not None]
        assert sorted(found[:2]) == ["0", "1"] and found[2] == "0"
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_nothing_is_claimed_where_nothing_is_asked(tmp_path):
    assert list(claim(["0"], 0, tmp_path)) == []
