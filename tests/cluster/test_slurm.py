"""The study on a real SLURM, with what befalls jobs there; its results are those of a run without one.

A run on two cores takes about five minutes. `lab.py` says what has to be installed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from lab import NODES, run

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.cluster

# The smoke study with one arm and its child, every kind of evaluation once, and time to be interrupted in.
STUDY = """
extends: smoke.yaml
study: queued
models:
  yarn-s16: {train: {steps: 16}}
  pi-s16: null
  ramp-only-s16: null
evaluations:
  perplexity: {models: [base, yarn-s16, yarn-s32]}
  passkey: {models: [yarn-s16]}
  sliding_window: {models: [yarn-s16]}
  benchmarks: {models: [yarn-s16]}
"""
EVALUATION = "results/queued/evaluations/perplexity/base.manifest.json"
# Columns about a run, not about a model.
OF_A_RUN = ["seconds", "tokens_per_second", "mfu_causal", "mfu_palm", "peak_memory_gib", "run"]
QUICK = ["--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "10"]


# The plugin waits 10 s longer after each look at the queue that found no job finished, up to three minutes: right for
# jobs of hours, and minutes of this test. Nothing else is changed.
SNAKEMAKE = """
import sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
waits = RemoteExecutor.next_seconds_between_status_checks
def wait(self, seconds): self._next_seconds_between_status_checks = min(seconds, 2)
RemoteExecutor.next_seconds_between_status_checks = waits.setter(wait)
sys.argv[0] = "snakemake"
main()
"""


class Coordinator:
    """A running Snakemake; its output goes to a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str, project: Path = ROOT) -> None:
        self.log = folder / f"coordinator-{len(list(folder.glob('coordinator-*')))}.log"
        snakemake = [sys.executable, "-c", SNAKEMAKE, "--snakefile", str(project / "Snakefile")]
        study = ["--config", f"study={folder / 'studies' / 'queued.yaml'}"]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*snakemake, "--directory", str(folder), *arguments, *study],
                cwd=project,
                env=environment,
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.text[-4000:]}"
            assert time.monotonic() < until, f"no {what} in {seconds} s:\n{self.text[-4000:]}"
            time.sleep(0.02)

    def finish(self, seconds: float = 600) -> str:
        code = self.process.wait(seconds)
        assert code == 0, self.text[-6000:]
        return self.text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two working folders with the same study."""
    made = {}
    for name in ("local", "slurm"):
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "studies").mkdir()
        for file in (ROOT / "config" / "studies").glob("*.yaml"):
            (made[name] / "studies" / file.name).write_text(file.read_text())
        (made[name] / "studies" / "queued.yaml").write_text(STUDY)
    return made


@pytest.fixture(scope="module")
def local(folders: dict[str, Path]) -> Path:
    """Results of the study without SLURM."""
    done = Coordinator(folders["local"], dict(os.environ), "--cores", "2", "evaluations", "tables")
    try:
        done.finish()
    finally:
        done.process.kill()
    return folders["local"] / "results" / "queued"


def processes(*words: str) -> list[int]:
    """Processes whose command line has all these words one after another."""
    wanted, found = b"\0".join(word.encode() for word in words), []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and wanted in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


def variables(process: int) -> dict[str, str]:
    """The environment that a process was started with."""
    lines = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def node_of(job: str) -> str:
    return run("squeue", "-h", "-j", job, "-o", "%N").strip()


def start_at_once(job: str) -> None:
    """SLURM lets a requeued job wait for some seconds, until credentials of its first start have expired."""
    run("scontrol", "update", f"jobid={job}", "StartTime=now", check=False)


def job_of(rule: str, state: str = "RUNNING") -> str:
    """The number of the SLURM job of a rule that is in this state, or "" if there is none."""
    for line in run("squeue", "-h", "-t", state, "-o", "%i %k").splitlines():
        number, _, comment = line.partition(" ")
        if comment.startswith(rule):
            return number
    return ""


def stop_in_the_middle(coordinator: Coordinator, results: Path, model: str, steps: int) -> list[int]:
    """Wait until a model's training has made some steps, then halt its processes; what comes finds them there."""
    log = results / "training" / f"{model}.jsonl"
    coordinator.wait_for(
        lambda: log.exists() and len(log.read_bytes().splitlines()) >= steps, f"{steps} steps of {model}"
    )
    found = processes("yarnlab", "train", model)
    for process in found:
        os.kill(process, signal.SIGSTOP)
    assert found
    return found


@pytest.fixture(scope="module")
def queued(slurm: dict[str, str], folders: dict[str, Path], local: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Results of the study on SLURM, where a job was preempted, one met its time limit and a node failed; and notes."""
    folder, notes = folders["slurm"], dict[str, object]()
    results, logs = folder / "results" / "queued", ["--slurm-logdir", str(folder / "results" / "slurm")]
    profile = ["--profile", "cluster", *QUICK, *logs]
    absent = {**slurm, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    first = Coordinator(folder, absent, *profile, "models", EVALUATION)
    try:
        trainers = stop_in_the_middle(first, results, "base", 10)
        notes["environments"] = [variables(process) for process in trainers]
        preempted = job_of("rule_train_wildcards_base")
        urgent = ["-p", "urgent", "-A", "lab", "-N", str(NODES), "--exclusive", "-D", str(folder), "-o", os.devnull]
        run("sbatch", *urgent, "--wrap", "sleep 1")
        first.wait_for(lambda: job_of("rule_train_wildcards_base", "PENDING") == preempted, "requeue of base")
        start_at_once(preempted)
        first.wait_for(lambda: job_of("rule_perplexity"), "evaluation of base")
        failed = job_of("rule_perplexity")
        node = node_of(failed)
        run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        first.wait_for(lambda: job_of("rule_perplexity", "PENDING") == failed, "requeue of the evaluation")
        start_at_once(failed)
        first.wait_for(lambda: job_of("rule_perplexity") == failed, "evaluation of base on the other node")
        run("scontrol", "update", f"nodename={node}", "state=resume")
        stop_in_the_middle(first, results, "yarn-s16", 3)
        limited = job_of("rule_train_wildcards_yarn-s16")
        run("scontrol", "update", f"jobid={limited}", "EndTime=now+1")
        notes |= {"preempted": preempted, "failed": failed, "limited": limited, "first": first.finish()}
        Coordinator(folder, slurm, *profile).finish()
        yield results, notes
    finally:
        first.process.kill()
        first.process.wait()


def states(job: str) -> list[str]:
    """All states that accounting has for a job, one for each time that it was started."""
    return run("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", "state").split()


def test_weights_and_tables_are_those_of_a_local_run(queued, local):
    """Bit for bit: the same weights in every model folder, the same rows in every table."""
    results, _ = queued
    manifests = sorted(path.relative_to(local) for path in (local / "models").glob("*/manifest.json"))
    assert len(manifests) == 3
    for manifest in manifests:
        made, expected = (json.loads((root / manifest).read_text()) for root in (results, local))
        assert made["outputs"] == expected["outputs"], manifest
    tables = sorted(path.relative_to(local) for path in (local / "evaluations").rglob("*.parquet"))
    assert len(tables) >= 13
    for table in tables:
        pd.testing.assert_frame_equal(
            pd.read_parquet(results / table), pd.read_parquet(local / table), check_exact=True
        )
    for table in sorted((local / "tables").glob("*.csv")):
        if table.name != "cost.csv":  # it holds nothing but what was measured of the machine
            one, two = (pd.read_csv(root / "tables" / table.name, dtype=str) for root in (results, local))
            pd.testing.assert_frame_equal(*(each.drop(columns=OF_A_RUN, errors="ignore") for each in (one, two)))
    assert (results / "report.html").exists()


def test_a_preempted_training_is_requeued_and_goes_on(queued):
    """The same SLURM job, started twice; the second continues after the step that the first was stopped at."""
    results, notes = queued
    assert states(notes["preempted"]) == ["PREEMPTED", "COMPLETED"]
    assert "continuing after step" in (results / "logs" / "train" / "base.log").read_text()


def test_a_training_that_meets_its_time_limit_goes_on_in_the_next_attempt(queued):
    """A new SLURM job by the profile's retries, which continues after the step that the first was stopped at."""
    results, notes = queued
    assert "TIMEOUT" in states(notes["limited"])
    assert "continuing after step" in (results / "logs" / "train" / "yarn-s16.log").read_text()
    assert f"SLURM-job '{notes['limited']}' failed, SLURM status is: 'TIMEOUT'" in notes["first"]


def test_an_evaluation_whose_node_fails_is_made_elsewhere(queued):
    _, notes = queued
    assert states(notes["failed"]) == ["NODE_FAIL", "COMPLETED"]


def test_jobs_need_no_network_and_no_process_of_the_login_node(queued):
    """The hub is switched off in every job, and none looks for the coordinator's warm process."""
    environments = queued[1]["environments"]
    assert environments
    for environment in environments:
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert "YARNLAB_WARM" not in environment


def test_what_was_missed_while_the_tracking_server_was_away_is_published(queued):
    """Models were made without one, and no job failed for it; the next call, with one, publishes them from disk."""
    runs = json.loads((queued[0] / "tracking" / "runs.json").read_text())
    assert {"train.base", "train.yarn-s16", "train.yarn-s32", "perplexity.base"} <= set(runs)


def test_a_second_call_has_nothing_to_do(queued, slurm, folders):
    done = Coordinator(folders["slurm"], slurm, "--profile", "cluster")
    assert "Nothing to be done" in done.finish(180)


def test_requests_that_cannot_be_met_end_before_the_first_job(slurm, folders):
    """A partition that does not exist, more memory and more GPUs than a node has: a line each, with rule and fix."""
    wrong = ["--set-resources", "train:mem_mb=9999999", "tokenizer:gres=gpu:9", "corpus:slurm_partition=nowhere"]
    done = Coordinator(folders["slurm"], slurm, "--profile", "cluster", "--forceall", *wrong)
    assert done.process.wait(180) == 1
    assert "rule corpus: there is no partition nowhere here (there are: cpu, gpu, urgent)" in done.text
    assert "rule tokenizer: it asks for gpu:9 a node" in done.text
    assert "rule train: it asks for 9999999 MB of memory on one node" in done.text
    assert "Traceback" not in done.text
    assert not job_of("rule_", "RUNNING,PENDING")


def test_a_job_that_outgrows_its_memory_is_explained(slurm, folders):
    logs = ["--slurm-logdir", str(folders["slurm"] / "results" / "slurm")]
    little = [
        "--set-resources",
        "tokenizer:mem_mb=40",
        "--retries",
        "0",
        "--forcerun",
        "tokenizer",
        "--until",
        "tokenizer",
    ]
    done = Coordinator(folders["slurm"], slurm, "--profile", "cluster", *QUICK, *logs, *little)
    assert done.process.wait(240) == 1
    assert "rule tokenizer, SLURM job" in done.text and "raise its mem_mb" in done.text, done.text[-3000:]


RULE = """
from yarnlab.training.launch import allocation, launch_prefix
prefix = launch_prefix(2, 2).removesuffix("--") + "--module {module} --"
rule all_nodes:
    output: "done.txt"
    threads: 2
    resources: **allocation(2, 2)
    params: prefix=prefix
    shell: "{{params.prefix}} {{output}}"
"""
# Adds up powers of two over all processes until one of them was told to stop, as the training loop does.
PROGRAM = """
import os, signal, sys, time
import torch
from torch import distributed
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
distributed.init_process_group("gloo")
rank = distributed.get_rank()
while True:
    sums = torch.tensor([2.0**rank, float(bool(stop))])
    distributed.all_reduce(sums)
    if rank == 0:
        open("started.txt", "w").close()
    if sums[1] or not {endless}:
        break
    time.sleep(0.1)
name = "saved.txt" if sums[1] else sys.argv[1]
with open(name, "a") as file:
    file.write(f"{{rank}} {{os.environ['WORLD_SIZE']}} {{os.environ['SLURMD_NODENAME']}} {{sums[0].item()}}\\n")
distributed.barrier()
sys.exit(75 if sums[1] else 0)
"""


def two_nodes(folder: Path, slurm: dict[str, str], *, endless: bool) -> Coordinator:
    """Snakemake running one job of 2 x 2 processes on the project's profile."""
    (folder / "Snakefile").write_text(RULE.format(module="sums"))
    (folder / "sums.py").write_text(PROGRAM.format(endless=endless))
    (folder / "cluster").symlink_to(ROOT / "workflow" / "profiles" / "cluster")
    environment = {**slurm, "PYTHONPATH": f"{slurm['PYTHONPATH']}:{folder}"}
    return Coordinator(folder, environment, "--profile", "cluster", *QUICK, "--retries", "0", project=folder)


def test_one_job_on_two_nodes(slurm, tmp_path):
    """Four processes on two nodes find each other and add up; ranks 0 and 1 are on the first node."""
    two_nodes(tmp_path, slurm, endless=False).finish(300)
    lines = sorted((tmp_path / "done.txt").read_text().splitlines())
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    nodes = [line.split()[2] for line in lines]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert {(line.split()[1], line.split()[3]) for line in lines} == {("4", "15.0")}


def test_a_time_limit_reaches_every_process_on_two_nodes(slurm, tmp_path):
    """SLURM's SIGTERM gets to all four, which all save; the job counts as ended by its limit."""
    coordinator = two_nodes(tmp_path, slurm, endless=True)
    try:
        coordinator.wait_for((tmp_path / "started.txt").exists, "a first sum")
        job = job_of("rule_all_nodes")
        run("scontrol", "update", f"jobid={job}", "EndTime=now+1")
        assert coordinator.process.wait(300) == 1
    finally:
        coordinator.process.kill()
    assert len((tmp_path / "saved.txt").read_text().splitlines()) == 4
    assert states(job) == ["TIMEOUT"]
