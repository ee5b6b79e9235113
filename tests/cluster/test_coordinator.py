"""A Snakemake that was killed hard does not stop the next one, and one that lives does."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from yarnlab.cluster import coordinator

HOLD = """
import sys
from contextlib import nullcontext
from pathlib import Path
from yarnlab.cluster.coordinator import take_over
take_over("results/mine")
print("holds", flush=True)
sys.stdin.read()
"""
# A workflow of two jobs; the first waits until it is killed with its Snakemake. In a container each, as on a spot
# machine, host names differ.
SNAKEFILE = """
from yarnlab.cluster.coordinator import take_over
if workflow.is_main_process and not workflow.dryrun:
    take_over("results/mine")
rule all:
    input: "results/mine/made"
rule made:
    output: "results/mine/made"
    shell: "touch {output} started; test -e go || sleep 60"
"""


@pytest.fixture
def locks(tmp_path, monkeypatch) -> Path:
    """What a dead coordinator of `mine` and a living one of `other` have left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coordinator, "_held", [])
    folder = tmp_path / coordinator.LOCKS
    folder.mkdir(parents=True)
    (folder / "0.input.lock").write_text("config/claims.yaml\nresults/mine/study.json\n")
    (folder / "0.output.lock").write_text("results/mine/report.html\n")
    (folder / "1.output.lock").write_text("results/mine-2/report.html\n")
    return folder


def left(locks: Path) -> list[str]:
    return sorted(file.name for file in locks.glob("*.lock"))


def test_locks_of_a_dead_coordinator_go_and_those_of_another_study_stay(locks):
    coordinator.take_over("results/mine")
    assert left(locks) == ["1.output.lock"]


def test_locks_of_a_living_coordinator_stay(locks, tmp_path):
    """It is told by a lock of the kernel's: killed hard, it holds nothing any more."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "holds\n"
        (locks / "0.output.lock").write_text("results/mine/report.html\n")
        coordinator.take_over("results/mine")
        assert left(locks) == ["0.output.lock", "1.output.lock"]
        other.kill()
    coordinator.take_over("results/mine")
    assert left(locks) == ["1.output.lock"]


def test_where_others_may_hold_locks_that_this_kernel_does_not_know_they_stay(locks, monkeypatch):
    monkeypatch.setattr(coordinator, "is_local", lambda folder: False)
    coordinator.take_over("results/mine")
    assert len(left(locks)) == 3


@pytest.mark.parametrize(("made", "dry", "refused"), [(True, True, False), (True, False, True), (False, True, True)])
def test_a_folder_that_can_not_be_written_is_one_message(tmp_path, monkeypatch, made, dry, refused):
    monkeypatch.chdir(tmp_path)
    if made:
        coordinator.LOCKS.mkdir(parents=True)
    coordinator.check_writable(dry=dry)
    monkeypatch.setattr(coordinator.os, "access", lambda place, mode: False)
    with pytest.raises(coordinator.NotWritable, match=f"{tmp_path}.* can't be written") if refused else nullcontext():
        coordinator.check_writable(dry=dry)
    with pytest.raises(coordinator.NotWritable, match="the results go there"):
        coordinator.check_results(tmp_path / "results" / "smoke")


@pytest.mark.parametrize(("soft", "hard", "then"), [(18, 4096, 256), (18, 100, None), (1024, 4096, 1024)])
def test_a_low_limit_of_open_files_is_raised_or_named(soft, hard, then):
    """In a process of its own: nobody but root can raise the harder limit again."""
    code = f"""if True:
        import resource; from yarnlab.cluster import coordinator
        resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
        try: coordinator.raise_open_files()
        except coordinator.TooFewOpenFiles as error: print(error)
        else: print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == str(then) if then else said.startswith("a process may have 100 files open here"), said


def test_a_folder_without_locks_of_files_stops_nothing(locks, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(coordinator.FileLock, "acquire", refuse)
    coordinator.take_over("results/mine")
    assert len(left(locks)) == 3


def test_after_a_hard_kill_the_same_command_goes_on(tmp_path):
    """Neither --unlock nor --rerun-incomplete is asked for. The job that was killed with it had written its output."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    profile = Path(__file__).resolve().parents[2] / "workflow" / "profiles" / "default"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--workflow-profile", str(profile)]
    first = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert first.poll() is None
    os.killpg(first.pid, 9)
    first.wait()
    assert left(tmp_path / coordinator.LOCKS)
    (tmp_path / "go").touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
