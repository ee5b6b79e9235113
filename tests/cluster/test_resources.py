"""What jobs of a study ask for: GPUs by the size of a model, nodes and processes by its `parallel` block."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from yarnlab.cluster.resources import NAMES, JobResources
from yarnlab.study.load import load_study

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"


@pytest.fixture(scope="module")
def paper() -> JobResources:
    return JobResources(load_study(STUDIES / "paper.yaml"))


def asked(resources: dict, model: str) -> dict[str, int | str]:
    """What one job asks for, without what Snakemake leaves out."""
    values = {name: value(SimpleNamespace(model=model)) for name, value in resources.items()}
    assert tuple(values) == NAMES
    return {name: value for name, value in values.items() if value is not None}


def trained(resources: JobResources) -> dict[str, object]:
    """Models that are trained, with the processes of their first phase."""
    arms = {name: resources.study.models[arm] for name, (arm, _) in resources.study.instances().items()}
    return {name: model.phases[0].parallel for name, model in arms.items() if model.phases}


@pytest.fixture(autouse=True)
def laptop(monkeypatch):
    """No site is set, as on a laptop."""
    for name in ("YARNLAB_CPU_PARTITION", "YARNLAB_GPU_PARTITION"):
        monkeypatch.delenv(name, raising=False)


def test_jobs_without_gpus_go_to_the_cpu_partition(paper, monkeypatch):
    """Named by the rule: a function of a rule hides the default of the profile, even where it gives None."""
    monkeypatch.setenv("YARNLAB_CPU_PARTITION", "batch")
    monkeypatch.setenv("YARNLAB_GPU_PARTITION", "a100")
    smoke = JobResources(load_study(STUDIES / "smoke.yaml"))
    for model in smoke.study.instances():
        assert asked(smoke.of_training(), model) == asked(smoke.of_evaluation(), model) == {"slurm_partition": "batch"}
    assert {asked(paper.of_evaluation(), model)["slurm_partition"] for model in paper.study.instances()} == {"a100"}


def test_a_small_study_asks_for_nothing_and_runs_the_plain_command():
    """So its jobs are handed to the fork server on a laptop."""
    smoke = JobResources(load_study(STUDIES / "smoke.yaml"))
    for model in smoke.study.instances():
        assert asked(smoke.of_training(), model) == asked(smoke.of_evaluation(), model) == {}
        wildcards = SimpleNamespace(model=model)
        assert smoke.launch_training(wildcards, None) == smoke.launch_evaluation(wildcards, None) == "python -m yarnlab"


def test_every_training_of_the_paper_gets_a_gpu_for_each_process(paper, monkeypatch):
    monkeypatch.setenv("YARNLAB_GPU_PARTITION", "a100")
    models = trained(paper)
    assert models
    for model, parallel in models.items():
        got = asked(paper.of_training(), model)
        assert (got["gres"], got["needed_gpus"]) == (f"gpu:{parallel.processes}", parallel.processes)
        assert got.get("nodes", 1) == got.get("tasks", 1) == parallel.nodes
        assert got["slurm_partition"] == "a100"
        command = paper.launch_training(SimpleNamespace(model=model), None)
        assert f"--nodes {parallel.nodes} --processes {parallel.processes} --gpus --" in command
        assert command.startswith("srun ") == (parallel.nodes > 1)


def test_an_evaluation_of_a_large_model_has_one_gpu(paper):
    model = next(iter(paper.study.instances()))
    assert asked(paper.of_evaluation(), model) == {"gres": "gpu:1", "needed_gpus": 1}
    assert paper.launch_evaluation(SimpleNamespace(model=model), None).endswith("--processes 1 --gpus --")


def test_a_model_that_only_gets_another_rope_needs_no_gpu(paper):
    arms = {name: paper.study.models[arm] for name, (arm, _) in paper.study.instances().items()}
    untrained = [name for name, model in arms.items() if not model.phases]
    assert untrained
    assert all(asked(paper.of_training(), name) == {} for name in untrained)
