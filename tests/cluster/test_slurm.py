"""The study on a real SLURM, with what befalls jobs there; its results are those of a run without one.

A run on two cores takes about five minutes. `lab.py` says what has to be installed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from coordinator import (
    QUICK,
    ROOT,
    Coordinator,
    end_by_limit,
    job_of,
    node_of,
    processes,
    start_at_once,
    states,
    variables,
)
from lab import NODES, run

from yarnlab.cluster.slurm import SUBMITS

pytestmark = pytest.mark.cluster

# The smoke study with one arm and its child, every kind of evaluation once, and time to be interrupted in; another arm
# has two processes, here on one node, there on two.
STUDY = """
extends: smoke.yaml
study: queued
models:
  yarn-s16: {train: {steps: 16}}
  pi-s16: {train: {steps: 16, micro_batch: 1, parallel: PARALLEL}}
  ramp-only-s16: null
evaluations:
  perplexity: {models: [base, yarn-s16, yarn-s32]}
  context: {models: [base, yarn-s32], contexts_of: {pi-s16: null}}
  passkey: {models: [yarn-s16]}
  sliding_window: {models: [pi-s16]}
  short_texts: {models: [yarn-s16]}
  benchmarks: {models: [yarn-s16]}
"""
PARALLEL = {"local": "{nodes: 1, processes: 2}", "slurm": "{nodes: 2, processes: 1}"}
FIRST = [f"results/queued/models/{model}/manifest.json" for model in ("base", "yarn-s16", "yarn-s32")]
FIRST += ["results/queued/evaluations/perplexity/base.manifest.json"]
# Columns about a run, not about a model.
OF_A_RUN = ["seconds", "tokens_per_second", "mfu_causal", "mfu_palm", "peak_memory_gib", "run"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two working folders with the same study, but for the nodes of one training."""
    made = {}
    for name in PARALLEL:
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "studies").mkdir()
        for file in (ROOT / "config" / "studies").glob("*.yaml"):
            (made[name] / "studies" / file.name).write_text(file.read_text())
        (made[name] / "studies" / "queued.yaml").write_text(STUDY.replace("PARALLEL", PARALLEL[name]))
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


def stop_in_the_middle(coordinator: Coordinator, results: Path, model: str, steps: int) -> list[int]:
    """Wait until a model's training has made some steps, then halt its processes; what comes finds them there."""
    log = results / "training" / f"{model}.jsonl"
    coordinator.wait_for(
        lambda: log.exists() and len(log.read_bytes().splitlines()) >= steps, f"{steps} steps of {model}"
    )
    found = processes(job_of(f"rule_train_wildcards_{model}"), "yarnlab", "train", model)
    for process in found:
        os.kill(process, signal.SIGSTOP)
    assert found
    return found


@pytest.fixture(scope="module")
def queued(slurm: dict[str, str], folders: dict[str, Path], local: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    """Results of the study on SLURM, where a job was preempted, two met their time limits and a node failed; and notes."""
    folder, notes = folders["slurm"], dict[str, object]()
    results, logs = folder / "results" / "queued", ["--slurm-logdir", str(folder / "results" / "slurm")]
    profile = ["--profile", "cluster", *QUICK, *logs]
    absent = {**slurm, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    coordinators = [first := Coordinator(folder, absent, *profile, *FIRST)]
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
        evaluation = (failed, "yarnlab", "evaluate")
        first.wait_for(lambda: processes(*evaluation), "the process of this evaluation")
        notes["environments"] += [variables(process) for process in processes(*evaluation)]
        node = node_of(failed)
        run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        first.wait_for(lambda: job_of("rule_perplexity", "PENDING") == failed, "requeue of the evaluation")
        start_at_once(failed)
        first.wait_for(lambda: job_of("rule_perplexity") == failed, "evaluation of base on the other node")
        run("scontrol", "update", f"nodename={node}", "state=resume")
        stop_in_the_middle(first, results, "yarn-s16", 3)
        limited = end_by_limit("rule_train_wildcards_yarn-s16")
        notes |= {"preempted": preempted, "failed": failed, "limited": limited, "first": first.finish()}
        coordinators.append(second := Coordinator(folder, slurm, *profile))
        trainers = stop_in_the_middle(second, results, "pi-s16", 3)
        notes["nodes"] = sorted(variables(process)["SLURMD_NODENAME"] for process in trainers)
        notes["limited on two nodes"] = end_by_limit("rule_train_wildcards_pi-s16")
        second.finish()
        yield results, notes
    finally:
        for coordinator in coordinators:
            coordinator.process.kill()
            coordinator.process.wait()


def test_weights_and_tables_are_those_of_a_local_run(queued, local):
    """Bit for bit: the same weights in every model folder, the same rows in every table."""
    results, _ = queued
    manifests = sorted(path.relative_to(local) for path in (local / "models").glob("*/manifest.json"))
    assert len(manifests) == 4
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


def test_a_training_over_two_nodes_saves_at_its_time_limit_and_goes_on(queued):
    """A process on each of two nodes; its weights are among those compared above, with two processes' on one node."""
    results, notes = queued
    assert len(notes["nodes"]) == len(set(notes["nodes"])) == 2
    assert states(notes["limited on two nodes"]) == ["TIMEOUT"]
    assert "continuing after step" in (results / "logs" / "train" / "pi-s16.log").read_text()


def test_an_evaluation_whose_node_fails_is_made_elsewhere(queued):
    _, notes = queued
    assert states(notes["failed"]) == ["NODE_FAIL", "COMPLETED"]


def test_jobs_need_no_network_and_no_process_of_the_login_node(queued):
    """The hub is switched off in training and evaluation, though the caller had switched it on; none looks for the
    coordinator's fork server, or for the plugin that submits."""
    environments = queued[1]["environments"]
    assert len(environments) == 3  # two processes of the training, one of the evaluation
    for environment in environments:
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert "YARNLAB_FORK_SERVER" not in environment
        folders = environment["PYTHONPATH"].split(":")
        assert any(folder.endswith(f"/{SUBMITS}-jobstep") for folder in folders)
        assert not any(folder.endswith(f"/{SUBMITS}") for folder in folders)


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
    """What its second attempt asks for is more than any node has: a warning before the first one, no more."""
    logs = ["--slurm-logdir", str(folders["slurm"] / "results" / "slurm")]
    memory = ["--set-resources", "tokenizer:mem_mb=40 if attempt == 1 else 2000000", "--retries", "1"]
    only = ["--forcerun", "tokenizer", "--until", "tokenizer"]
    done = Coordinator(folders["slurm"], slurm, "--profile", "cluster", *QUICK, *logs, *memory, *only)
    assert done.process.wait(240) == 1
    warning, _, rest = done.text.partition("rule tokenizer: it asks for 2000000 MB of memory on one node")
    assert "after failures" in warning and "SLURM jobid" not in warning and rest, done.text[-3000:]
    assert "rule tokenizer, SLURM job" in rest and "raise its mem_mb" in rest, done.text[-3000:]
