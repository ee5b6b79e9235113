"""What jobs ask for against what a cluster offers: every unmet request is one message with the rules and the fix."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yarnlab.cluster import slurm
from yarnlab.cluster.failures import explain
from yarnlab.cluster.slurm import Nodes, Request, compare, site

CPU = Nodes("cpu", 10, 64, 256_000, {}, 2880)
SMALL_CPU = Nodes("cpu", 2, 16, 64_000, {}, 2880)
GPU = Nodes("gpu", 4, 96, 1_000_000, {"a100": 8}, 1440)
OFFER = [CPU, SMALL_CPU, GPU]
TRAIN = Request("train", "gpu", "ours", 2, 64, 240_000, 8, "", 1440, 8)
EVALUATE = Request("passkey", "cpu", "ours", 1, 4, 64_000, 0, "", 480, 0)


def complaints(*requests: Request, accounts: set[str] | None = None) -> list[str]:
    return list(compare(requests, OFFER, accounts if accounts is not None else {"ours"}))


def test_what_fits_is_not_complained_about():
    assert complaints(TRAIN, EVALUATE, replace(EVALUATE, memory=256_000, cpus=64)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"partition": "gpus"}, ["no partition gpus", "there are: cpu, gpu", "YARNLAB_GPU_PARTITION"]),
        ({"partition": "cpu"}, ["gpu:8 a node", "partition cpu have none", "Use partition gpu"]),
        ({"gpus": 9, "needed_gpus": 9}, ["gpu:9", "have 8", "Ask for fewer"]),
        ({"gpu_model": "h100"}, ["gpu:h100:8", "have none"]),
        ({"gpus": 0}, ["computes on 8 GPUs a node, and it asks for none", "Set gres: gpu:8"]),
        ({"memory": 1_000_001}, ["1000001 MB of memory", "largest of partition gpu has 1000000", "Lower mem_mb"]),
        ({"cpus": 97}, ["97 processors", "has 96", "Lower threads"]),
        ({"nodes": 5}, ["asks for 5 nodes, and partition gpu has 4"]),
        ({"minutes": 1441}, ["asks for 1441 minutes", "allows 1440", "Lower runtime"]),
        ({"account": "theirs"}, ["account theirs is not one of yours (ours)", "YARNLAB_ACCOUNT"]),
    ],
)
def test_each_unmet_request_is_one_line_with_rule_reason_and_fix(change, said):
    (line,) = complaints(replace(TRAIN, **change))
    assert "rule train: " in line and "\n" not in line
    assert all(part in line for part in said), line


def test_a_list_of_partitions_is_met_by_one_of_them():
    """As SLURM takes it; each of them must exist, and the line is about the first."""
    assert complaints(replace(TRAIN, partition="cpu,gpu")) == complaints(replace(EVALUATE, partition="gpu,cpu")) == []
    (line,) = complaints(replace(TRAIN, partition="cpu,gpu", memory=1_000_001))
    assert "partition cpu have none" in line
    (line,) = complaints(replace(TRAIN, partition="gpu,fast"))
    assert "no partition fast here" in line


def test_a_list_of_accounts_is_yours_if_each_is():
    assert complaints(replace(TRAIN, account="ours,Mine"), accounts={"ours", "mine"}) == []
    (line,) = complaints(replace(TRAIN, account="ours,theirs"), accounts={"ours", "mine"})
    assert "account theirs is not one of yours (mine, ours)" in line


def test_rules_with_the_same_problem_share_a_line():
    (line,) = complaints(replace(EVALUATE, partition="x"), replace(EVALUATE, partition="x", rule="entropy"), TRAIN)
    assert "rules entropy, passkey: there is no partition x" in line


def test_a_type_of_gpu_counts_where_none_is_asked_for():
    """gpu:8 is met by eight GPUs of any type; SLURM counts so too."""
    assert complaints(replace(TRAIN, gpu_model="a100")) == []
    mixed = [Nodes("gpu", 1, 96, 1_000_000, {"a100": 4, "l40s": 4}, None)]
    assert not list(compare([replace(TRAIN, nodes=1)], mixed, set()))


def test_without_a_list_of_accounts_none_is_refused():
    """Clusters without accounting, and users whom sacctmgr may not tell."""
    assert complaints(replace(TRAIN, account="x"), accounts=set()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cpu|2|64|256000|(null)|infinite", Nodes("cpu", 2, 64, 256_000, {}, None)),
        ("g|1|96+|1000000+|gpu:a100:4(S:0-1),gpu:l40s:2|2-12:30:00", Nodes("g", 1, 96, 10**6, {"a100": 4, "l40s": 2}, 3630)),
        ("g|4|8|9000|gpu:8,nvme:1|30:00", Nodes("g", 4, 8, 9000, {"": 8}, 30)),
    ],
)  # fmt: skip
def test_sinfo_is_read(line, expected):
    assert slurm._nodes(line) == expected


class Job:
    """What a Snakemake job shows of itself; resources that are functions are functions of its attempt."""

    attempt, restart_times, is_local = 1, 2, False

    def __init__(self, **resources: Any) -> None:
        self.rule = type("Rule", (), {"name": "train"})
        self._resources = resources

    @property
    def resources(self) -> dict[str, Any]:
        return {k: v(self.attempt) if callable(v) else v for k, v in self._resources.items()}


@pytest.mark.parametrize(
    ("gres", "expected"),
    [("gpu:4", ("", 4)), ("gpu:a100:4", ("a100", 4)), ("gpu", ("", 1)), ("nvme:1", ("", 0)), ("", ("", 0))],
)
def test_gpus_of_a_job_are_those_of_its_gres(gres, expected):
    request = slurm.request_of(Job(gres=gres, _cores=3, mem_mb=5))
    assert (request.gpu_model, request.gpus) == expected
    assert (request.cpus, request.memory, request.nodes) == (3, 5, 1)


def start(monkeypatch: pytest.MonkeyPatch, *jobs: Job, executor: str = "slurm") -> None:
    """What happens before the first of these jobs is submitted, to a cluster that offers OFFER."""
    monkeypatch.setattr(slurm, "offer", lambda: OFFER)
    monkeypatch.setattr(slurm, "accounts", lambda: {"ours"})
    plugin, dag = SimpleNamespace(name=executor), SimpleNamespace(needrun_jobs=lambda: jobs)
    slurm.check(SimpleNamespace(local_exec=executor == "local", executor_plugin=plugin, dag=dag))


def test_memory_that_only_a_later_attempt_lacks_is_a_warning(monkeypatch, capsys):
    """Two attempts are enough for most jobs, so the study starts; what has no second attempt is not spoken of."""
    growing = Job(slurm_partition="cpu", mem_mb=lambda attempt: 100_000 * attempt)
    start(monkeypatch, growing)
    said = capsys.readouterr().err
    assert "after failures" in said and "rule train: it asks for 300000 MB of memory" in said
    assert growing.attempt == 1
    growing.restart_times = 1
    start(monkeypatch, growing)
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit, match="it asks for 300000 MB of memory on one node"):
        start(monkeypatch, Job(slurm_partition="cpu", mem_mb=300_000))


@pytest.fixture
def torch_built_for(tmp_path, monkeypatch):
    """Makes the environment's torch one of this build: the lines of its version.py."""

    def make(lines: str) -> None:
        (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{lines}\n")
        found = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(slurm, "find_spec", lambda name: found if name == "torch" else None)

    return make


CPU_BUILD = "cuda: Optional[str] = None\nhip: Optional[str] = None"
GPU_JOB = {"slurm_partition": "gpu", "gres": "gpu:8", "needed_gpus": 8}


@pytest.mark.parametrize("executor", ["slurm", "lsf"])
def test_gpus_need_a_torch_that_can_use_them(executor, torch_built_for, monkeypatch):
    """Under any scheduler one message ends the command, instead of every job after it has waited for its GPUs."""
    torch_built_for(CPU_BUILD)
    with pytest.raises(SystemExit, match=r"rule train: its stage computes on GPUs, .*envs/run --gpu --cluster") as end:
        start(monkeypatch, Job(**GPU_JOB), Job(**GPU_JOB), executor=executor)
    assert str(end.value).count("\n") == 1
    start(monkeypatch, Job(slurm_partition="cpu"), executor=executor)
    torch_built_for(CPU_BUILD.replace("None", "'13.0'", 1))
    start(monkeypatch, Job(**GPU_JOB), executor=executor)


def test_the_build_of_the_real_torch_is_found():
    import torch

    problems = list(slurm.without_cuda([TRAIN]))
    assert bool(problems) == (torch.version.cuda is None and torch.version.hip is None)


@pytest.fixture
def submit_host(tmp_path, monkeypatch) -> Path:
    """A machine with an sbatch and an environment with the plugin; returns the folder of programs."""
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm, "find_spec", lambda name: object())
    for name in (slurm.ACCOUNT, slurm.CPU_PARTITION, slurm.GPU_PARTITION):
        monkeypatch.setenv(name, "before")  # so that monkeypatch restores what `site` sets
        monkeypatch.delenv(name)
    return tmp_path


def test_the_three_values_come_from_the_profile_or_the_environment(submit_host, monkeypatch):
    """Rules find them in the environment either way; an empty account is a value."""
    monkeypatch.setenv(slurm.CPU_PARTITION, "batch")
    assert site(account="", gpu_partition="a100") == slurm.Site("slurm", "", "batch", "a100")
    assert [os.environ[name] for name in (slurm.ACCOUNT, slurm.GPU_PARTITION)] == ["", "a100"]


def test_missing_values_are_named_with_where_to_put_them(submit_host):
    with pytest.raises(SystemExit, match=r"not set: YARNLAB_ACCOUNT, YARNLAB_GPU_PARTITION.*profile\.v9\+\.yaml"):
        site(cpu_partition="batch")


def test_a_machine_without_sbatch(submit_host):
    (submit_host / "sbatch").unlink()
    with pytest.raises(SystemExit, match=r"no sbatch on PATH, so no rule can be submitted.*login node.*--profile node"):
        site("a", "b", "c")


def test_an_environment_without_the_plugin(submit_host, monkeypatch):
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="envs/run --cluster snakemake"):
        site("a", "b", "c")


# As Snakemake 9.27.1 with executor-slurm 2.8.0 writes it; test_slurm.py looks at real ones.
LOG = """
Error in rule train:
    message: SLURM-job '17' failed, SLURM status is: 'OUT_OF_MEMORY'. Reason: Unknown. For further error details see ...
    jobid: 4
Error in rule passkey:
    message: SLURM-job '19' failed, SLURM status is: 'FAILED'. Reason: Unknown.
    log: results/logs/passkey/base.log, SLURM_LOGS/19.log (check log file(s) for error details)
Error in rule perplexity:
    message: SLURM-job '20' failed, SLURM status is: 'TIMEOUT'. Reason: Unknown.
"""


def test_a_job_that_the_kernel_killed_is_explained(tmp_path):
    """Snakemake says it in the midst of a long command; a job that failed by itself has said so."""
    log = tmp_path / "log"
    failed = (
        "CalledProcessError in file data.smk, line 51:\nCommand 'python -m yarnlab corpus' {}.\nError in rule {}:\n"
    )
    ends = [("died with <Signals.SIGKILL: 9>", "corpus"), ("returned non-zero exit status 1", "train")]
    ends += [("returned non-zero exit status 137", "tokenizer")]
    log.write_text("".join(failed.format(*end) for end in ends))
    said = explain([log])
    assert [line.split(":")[0] for line in said] == ["rule corpus", "rule tokenizer"]
    assert all("was killed (SIGKILL), by hand or since memory ran out: run the same" in line for line in said)


def test_jobs_that_slurm_ended_are_explained(tmp_path):
    """Each with rule and fix; a job that failed by itself has said why in its own log."""
    (tmp_path / "log").write_text((LOG + LOG).replace("SLURM_LOGS", str(tmp_path)))
    (tmp_path / "19.log").write_text("Traceback: a mistake of the stage")
    memory, limit = explain([tmp_path / "log"])
    assert memory.startswith("rule train, SLURM job 17: it used more memory than it asked for: raise its mem_mb in ")
    assert limit.startswith("rule perplexity, SLURM job 20: its time limit ended before its work")


def test_a_job_that_slurm_itself_ended_for_its_memory_is_explained(tmp_path):
    """Where memory is watched without cgroups its state is FAILED, and only its log says why (SLURM 22.05)."""
    (tmp_path / "log").write_text(LOG.replace("SLURM_LOGS", str(tmp_path)))
    (tmp_path / "19.log").write_text(
        "slurmstepd-n1: error: StepId=19.batch exceeded memory limit (9 > 4), being killed"
    )
    assert any("rule passkey, SLURM job 19: it used more memory" in line for line in explain([tmp_path / "log"]))
