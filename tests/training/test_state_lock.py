"""The lock of a training state: never two writers, no waiting for the dead, and nobody locked out for ever."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

from yarnlab.training import lock
from yarnlab.training.lock import StateBusy, exclusive


@pytest.fixture
def hold(tmp_path):
    """Holds the state's lock in another process until it is told to let go; returns (pid, let go)."""
    children = []

    def start():
        ready, told = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            with exclusive(tmp_path):
                os.write(ready[1], b"x")
                os.read(told[0], 1)
            os._exit(0)
        children.append(child)
        os.read(ready[0], 1)
        return child, lambda: os.write(told[1], b"x")

    yield start
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def test_a_held_lock_is_waited_for(tmp_path, hold, capsys):
    """The second job goes on when the first has ended, knows that it waited, and said for whom."""
    pid, let_go = hold()
    looks = 0

    def sleep(_: float, real=time.sleep) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            let_go()
            os.waitpid(pid, 0)
        real(0.01)

    lock.time.sleep, original = sleep, lock.time.sleep
    try:
        with exclusive(tmp_path) as waited:
            assert waited and looks == 3
    finally:
        lock.time.sleep = original
    said = capsys.readouterr().err
    assert said.count("waiting for") == 1 and f"process {pid} on {os.uname().nodename}" in said


def test_a_killed_holder_is_not_waited_for(tmp_path, hold):
    pid, _ = hold()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == pid
    with exclusive(tmp_path) as waited:
        assert not waited
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert (tmp_path / "lock").read_text() == ""


def test_a_job_that_removes_its_state_lets_the_next_one_in(tmp_path):
    """The lock file may be another one than at the last look."""
    state = tmp_path / "state"
    with exclusive(state):
        lock.shutil.rmtree(state)
        with exclusive(state) as waited:  # of a folder made anew: another lock
            assert not waited


@pytest.mark.parametrize("mounted", ["ext4", "overlay"])
def test_a_container_that_was_killed_hard_is_not_waited_for(tmp_path, hold, monkeypatch, mounted):
    """The same disk, another host name (a new container or a spot machine): the kernel's lock is free, so the holder
    is dead. As long as it lives it is waited for."""
    monkeypatch.setattr(lock, "_file_system", lambda folder: mounted)
    pid, _ = hold()
    (tmp_path / "lock").write_text(json.dumps({"host": "spot-a", "pid": pid, "slurm_job": None}))

    def end(_: float) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    monkeypatch.setattr(lock.time, "sleep", end)
    with exclusive(tmp_path) as waited:
        assert waited and json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_the_file_system_is_that_of_the_nearest_mount(monkeypatch, tmp_path):
    """A folder below a network mount is on the network, whatever lies above."""
    mounts = [("/", "ext4"), (str(tmp_path / "home"), "nfs4"), (str(tmp_path / "homes"), "xfs")]
    found = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    monkeypatch.setattr(lock.psutil, "disk_partitions", lambda all: found)
    assert lock._file_system(tmp_path / "home" / "state") == "nfs4" not in lock.LOCAL
    assert lock._file_system(tmp_path) == "ext4"


@pytest.fixture
def shared(monkeypatch):
    """The state lies on a file system that several machines share."""
    monkeypatch.setattr(lock, "_file_system", lambda folder: "nfs4")


def elsewhere(state, job: str | None) -> None:
    (state / "lock").write_text(json.dumps({"host": "node-7", "pid": 1, "slurm_job": job}))


def test_a_holder_elsewhere_without_slurm_is_not_judged(tmp_path, shared):
    """The message says which file to remove, and the lock is as it was."""
    elsewhere(tmp_path, None)
    with pytest.raises(StateBusy, match=r"process 1 on node-7.*remove .*/lock"), exclusive(tmp_path):
        pass
    (tmp_path / "lock").unlink()
    with exclusive(tmp_path) as waited:
        assert not waited


@pytest.mark.parametrize(
    ("answers", "waits"),
    [
        (["RUNNING\n", "COMPLETING\n", "COMPLETED\n"], True),
        ([""], False),
        (["PENDING\n"], False),
        (["slurm_load_jobs error: Invalid job id specified"], False),
        (["slurm_load_jobs error: Unable to contact slurm controller", "RUNNING\n", "CANCELLED\n"], True),
    ],
)
def test_a_slurm_job_is_waited_for_until_slurm_says_that_it_ended(tmp_path, shared, monkeypatch, answers, waits):
    """A job that is requeued, forgotten or over is not waited for; an answer that says nothing is asked again."""
    elsewhere(tmp_path, "4711")
    asked = []

    def squeue(command, **_):
        asked.append(command)
        answer = answers[len(asked) - 1]
        failed = "error" in answer
        return subprocess.CompletedProcess(command, int(failed), "" if failed else answer, answer if failed else "")

    monkeypatch.setattr(lock.shutil, "which", lambda _: "/usr/bin/squeue")
    monkeypatch.setattr(lock.subprocess, "run", squeue)
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    with exclusive(tmp_path, step_s=0.0) as waited:
        assert waited is waits
    assert len(asked) == len(answers) and all("4711" in command for command in asked)


def test_a_requeued_job_takes_its_own_lock_over(tmp_path, shared, monkeypatch):
    """SLURM starts it on another node under the same number: its former process is dead."""
    elsewhere(tmp_path, "4711")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    with exclusive(tmp_path) as waited:
        assert not waited
        assert json.loads((tmp_path / "lock").read_text())["slurm_job"] == "4711"


class WouldWait(Exception):
    """The lock is held."""


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_falls_back_on_the_process(tmp_path, monkeypatch, error):
    """A live process of this machine is waited for, a dead one is not."""

    def unsupported(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    def wait(_: float) -> None:
        raise WouldWait

    monkeypatch.setattr("fcntl.flock", unsupported)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    me = {"host": os.uname().nodename, "pid": child, "slurm_job": None}
    (tmp_path / "lock").write_text(json.dumps(me))
    monkeypatch.setattr(lock.time, "sleep", wait)
    with pytest.raises(WouldWait), exclusive(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with exclusive(tmp_path) as waited:
        assert not waited
