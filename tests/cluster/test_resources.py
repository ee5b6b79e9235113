"""What jobs of a study ask for: GPUs by the size of a model, nodes and processes by its `parallel` block, memory and
time by the plan."""

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


def asked(resources: dict, model: str, attempt: int = 1) -> dict[str, int | str]:
    """What one job asks for, without what Snakemake leaves out."""
    values = {name: value(SimpleNamespace(model=model), attempt=attempt) for name, value in resources.items()}
    assert tuple(values) == NAMES
    return {name: value for name, value in values.items() if value is not None}


def placed(resources: dict, model: str) -> dict[str, int | str]:
    """The same without memory and time, which every job asks for."""
    found = asked(resources, model)
    assert found.pop("mem_mb") >= 8000 and found.pop("runtime") >= 60
    return found


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
        assert placed(smoke.of_training(), model) == {"slurm_partition": "batch"}
    assert placed(smoke.of_evaluation("perplexity"), "base") == {"slurm_partition": "batch"}
    models = ("llama-2-7b", "yarn-13b-s16")
    assert {asked(paper.of_evaluation("perplexity"), model)["slurm_partition"] for model in models} == {"a100"}


def test_a_small_study_asks_for_no_gpu_and_runs_the_plain_command():
    """So its jobs are handed to the fork server on a laptop."""
    smoke = JobResources(load_study(STUDIES / "smoke.yaml"))
    for model in smoke.study.instances():
        assert placed(smoke.of_training(), model) == {}
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
    assert placed(paper.of_evaluation("perplexity"), model) == {"gres": "gpu:1", "needed_gpus": 1}
    assert paper.launch_evaluation(SimpleNamespace(model=model), None).endswith("--processes 1 --gpus --")


def test_a_model_that_only_gets_another_rope_needs_no_gpu(paper):
    arms = {name: paper.study.models[arm] for name, (arm, _) in paper.study.instances().items()}
    untrained = [name for name, model in arms.items() if not model.phases]
    assert untrained
    assert all(placed(paper.of_training(), name) == {} for name in untrained)


@pytest.mark.parametrize(
    ("stage", "model", "parts"),
    [
        # GB a node: CUDA's and Python's own of 8 processes; 40 inputs of a layer of 65,536 x 5,120 bf16 numbers in blocks
        # of 2^30 bytes, in each; weights and two moments in fp32, copied before they are written.
        ("train", "yarn-13b-s16", (8 * 3.5, 8 * 40 * 2**30 / 1e9, 12 * 13.016)),
        ("train", "yarn-7b-s16", (8 * 3.5, 12 * 6.738)),
        # Python, the weights on their way to the GPU, and the keys and values of 131,072 tokens, which are kept here.
        ("passkey_official", "yarn-13b-s16", (3.5, 2 * 13.016, 107.4)),
        ("passkey_official", "yarn-7b-s16", (3.5, 2 * 6.738, 68.7)),
        ("perplexity", "yarn-7b-s16", (3.5, 2 * 6.738)),
    ],
)
def test_memory_is_what_the_plan_says_that_the_host_needs(paper, stage, model, parts):
    """Worked out by hand. A job that asks for less is killed in every attempt."""
    resources = paper.of_training() if stage == "train" else paper.of_evaluation(stage)
    found = asked(resources, model)["mem_mb"]
    assert found / 1000 == pytest.approx(8 + 1.1 * sum(parts), rel=0.01)
    assert asked(resources, model, attempt=2)["mem_mb"] == (found if stage == "train" else 2 * found)


def test_time_is_twice_what_the_plan_says(paper):
    """And an hour, up to a day: the sweep of the temperature takes 8.5 hours, the longest training 23.2."""
    assert asked(paper.of_evaluation("temperature"), "llama-7b")["runtime"] == pytest.approx(
        60 + 2 * 60 * 8.5, rel=0.02
    )
    assert asked(paper.of_training(), "yarn-7b-8k")["runtime"] == pytest.approx(60 + 2 * 60 * 0.85, rel=0.02)
    assert asked(paper.of_training(), "yarn-13b-s16")["runtime"] == 1440
