"""What a SLURM cluster offers and what the workflow asks of it, compared before the first job is submitted.

The profile calls `site` while Snakemake reads it, the Snakefile `check` when the first job is about to start. A request
that cannot be met is otherwise refused by sbatch, rule by rule and in its own words, or waits in the queue for ever.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROFILE = "workflow/profiles/cluster/profile.v9+.yaml"
SUBMITS = "snakemake-executor-plugin-slurm"  # and the folder under .venv-cluster/packages that holds it
CHANGE = f"{PROFILE} (set-resources)"
ACCOUNT, CPU_PARTITION, GPU_PARTITION = "YARNLAB_ACCOUNT", "YARNLAB_CPU_PARTITION", "YARNLAB_GPU_PARTITION"


@dataclass(frozen=True)
class Site:
    """Who takes the jobs, and the three values of a SLURM cluster; an account of "" means that it has none."""

    executor: str
    account: str
    cpu_partition: str
    gpu_partition: str


@dataclass(frozen=True)
class Nodes:
    """Equal nodes of one partition. `memory` in MB, `gpus` by model ("" for any), `minutes` None without a limit."""

    partition: str
    count: int
    cpus: int
    memory: int
    gpus: dict[str, int]
    minutes: int | None


@dataclass(frozen=True)
class Request:
    """What one job asks for, on each of `nodes` nodes. `needed_gpus` is what its stage will use of them."""

    rule: str
    partition: str
    account: str
    nodes: int
    cpus: int
    memory: int
    gpus: int
    gpu_model: str
    minutes: int
    needed_gpus: int


def site(
    account: str | None = None,
    cpu_partition: str | None = None,
    gpu_partition: str | None = None,
    executor: str = "slurm",
) -> Site:
    """The three values, each from here or from the environment, where rules and jobs find them afterwards.

    Ends the program with one message if a value, the SLURM plugin or SLURM itself is missing. Another executor has no
    use for any of these.
    """
    if executor != "slurm":
        return Site(executor, "", "", "")
    given = {ACCOUNT: account, CPU_PARTITION: cpu_partition, GPU_PARTITION: gpu_partition}
    values = {name: os.environ.get(name) if value is None else value for name, value in given.items()}
    missing = [name for name, value in values.items() if value is None or (not value and name != ACCOUNT)]
    problems = []
    if find_spec("snakemake_executor_plugin_slurm") is None:
        problems.append("this environment lacks Snakemake's SLURM plugin; call `envs/run --cluster snakemake …`.")
    if shutil.which("sbatch") is None:
        problems.append(
            "no sbatch on PATH, so no rule can be submitted. Call this on a login node of the cluster (perhaps after "
            "`module load slurm`); on a machine without SLURM use `--profile node` or `--cores all`."
        )
    if missing:
        problems.append(
            f"not set: {', '.join(missing)}. Export the account and the partitions of your cluster (`sinfo -s` lists "
            f'partitions; {ACCOUNT}="" if jobs need no account), or write them into {PROFILE}.'
        )
    if problems:
        sys.exit("\n".join(f"profile cluster: {problem}" for problem in problems))
    found = {name: value or "" for name, value in values.items()}
    os.environ.update(found)
    return Site(executor, found[ACCOUNT], found[CPU_PARTITION], found[GPU_PARTITION])


def path_of_jobs(source: Path, path: str) -> str:
    """PYTHONPATH for jobs: the package's place before the caller's, once, and without the plugin that submits them.

    Snakemake imports every plugin on its path, and a SLURM job starts Snakemake twice. A quarter of such a start would
    go to the plugin that submits: it imports pandas and calls scontrol.
    """
    folders = [str(source), *filter(None, path.split(os.pathsep))]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if Path(folder).name != SUBMITS))


def check(workflow: Any) -> None:
    """Compare all jobs that will be submitted with the environment and with what SLURM offers.

    Ends the program with one line for each thing that cannot be met, naming rules and fix. What only a later attempt
    would ask too much of is a warning: most jobs never come to it.
    """
    if workflow.local_exec:
        return
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    requests = {request_of(job) for job in jobs}
    problems = [*without_cuda(requests)]
    offered, known = (offer(), accounts()) if workflow.executor_plugin.name == "slurm" else ([], set())
    if offered:
        problems += compare(requests, offered, known)
    if problems:
        sys.exit("This cluster cannot run the study as asked:\n" + "\n".join(problems))
    if offered and (later := [*compare(map(of_last_attempt, jobs), offered, known)]):
        print("What jobs ask for after failures is more than there is:", *later, sep="\n", file=sys.stderr)


def without_cuda(requests: Iterable[Request]) -> Iterator[str]:
    """One line if a stage will compute on GPUs, and the torch of this environment, which jobs share, is a CPU build."""
    rules = sorted({request.rule for request in requests if request.needed_gpus})
    found = find_spec("torch")  # finds it and does not import it, which takes seconds
    if not rules or found is None or found.origin is None:
        return
    build = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    if not re.search(r"^(?:cuda|hip)\b[^=\n]*= '", build, re.MULTILINE):
        yield (
            f"  {_named(rules)}: its stage computes on GPUs, and this environment's torch is a build for CPUs. Call "
            "`envs/run --gpu --cluster snakemake …`."
        )


def of_last_attempt(job: Any) -> Request:
    """What a Snakemake job would ask of SLURM after as many failures as the profile allows."""
    first, job.attempt = job.attempt, job.restart_times + 1  # resources are functions of it
    try:
        return request_of(job)
    finally:
        job.attempt = first


def request_of(job: Any) -> Request:
    """What a Snakemake job asks of SLURM (the resources that the executor plugin turns into options of sbatch)."""
    asked = job.resources

    def number(name: str, default: int = 0) -> int:
        value = asked.get(name)
        return value if isinstance(value, int) else default  # a value that is known only later is not compared

    model, gpus = _gpus_asked(str(asked.get("gres") or ""))
    return Request(
        rule=job.rule.name,
        partition=str(asked.get("slurm_partition") or ""),
        account=str(asked.get("slurm_account") or ""),
        nodes=number("nodes", 1),
        cpus=number("_cores", 1),
        memory=number("mem_mb"),
        gpus=gpus or number("gpu") or number("gpus"),
        gpu_model=model,
        minutes=number("runtime"),
        needed_gpus=number("needed_gpus"),
    )


def compare(requests: Iterable[Request], offered: list[Nodes], known_accounts: set[str]) -> Iterator[str]:
    """One line for each kind of unmet request, naming its rules; `known_accounts` empty means not known."""
    unmet: dict[str, set[str]] = {}
    for request in requests:
        if problem := _problem(request, offered, known_accounts):
            unmet.setdefault(problem, set()).add(request.rule)
    for problem, rules in sorted(unmet.items(), key=lambda item: sorted(item[1])):
        yield f"  {_named(sorted(rules))}: {problem}"


def _named(rules: list[str]) -> str:
    return f"{'rule' if len(rules) == 1 else 'rules'} {', '.join(rules)}"


def _problem(request: Request, offered: list[Nodes], known_accounts: set[str]) -> str | None:
    """The first thing that stands in the way of a request, and what to do about it."""
    for account in filter(None, re.split(r"[,\s]+", request.account)):
        if known_accounts and account.lower() not in known_accounts:
            names = ", ".join(sorted(known_accounts))
            return f"account {account} is not one of yours ({names}). Correct {ACCOUNT}."
    if not request.partition:
        return _unmet(request, offered, offered)
    unmet = []
    for partition in request.partition.split(","):  # SLURM takes the first that can start the job
        here = [nodes for nodes in offered if nodes.partition == partition]
        if not here:
            names = ", ".join(sorted({nodes.partition for nodes in offered}))
            return (
                f"there is no partition {partition} here (there are: {names}). Correct {CPU_PARTITION} or "
                f"{GPU_PARTITION}, or slurm_partition in {CHANGE}."
            )
        unmet.append(_unmet(replace(request, partition=partition), here, offered))
    return None if None in unmet else unmet[0]


def _unmet(request: Request, here: list[Nodes], offered: list[Nodes]) -> str | None:
    """What these nodes of one partition lack for a request."""
    if request.needed_gpus > request.gpus:
        asked = f"gpu:{request.gpus}" if request.gpus else "none"
        return (
            f"its stage computes on {request.needed_gpus} GPUs a node, and it asks for {asked}. Set gres: "
            f"gpu:{request.needed_gpus} in {CHANGE}, or remove the gres that is there."
        )
    if not any(_gpus(nodes, request.gpu_model) >= request.gpus for nodes in here):
        kind = f"gpu:{request.gpu_model}:{request.gpus}" if request.gpu_model else f"gpu:{request.gpus}"
        most = max(_gpus(nodes, request.gpu_model) for nodes in here)
        where = sorted({n.partition for n in offered if _gpus(n, request.gpu_model) >= request.gpus})
        hint = f"Use partition {' or '.join(where)} ({GPU_PARTITION})" if where else "Ask for fewer, or other, GPUs"
        return (
            f"it asks for {kind} a node, and nodes of partition {request.partition} have {most or 'none'} of these. "
            f"{hint}, or change gres in {CHANGE}."
        )
    for field, name, unit, where_set in (
        ("memory", "mem_mb", "MB of memory", CHANGE),
        ("cpus", "threads", "processors", "the study"),
    ):
        asked, most = getattr(request, field), max(getattr(nodes, field) for nodes in here)
        if asked > most:
            enough = sorted({nodes.partition for nodes in offered if getattr(nodes, field) >= asked})
            other = f", or use partition {' or '.join(enough)}" if enough else ""
            return (
                f"it asks for {asked} {unit} on one node, and the largest of partition {request.partition} has {most}. "
                f"Lower {name} in {where_set}{other}."
            )
    if (most_nodes := sum(nodes.count for nodes in here)) < request.nodes:
        return f"it asks for {request.nodes} nodes, and partition {request.partition} has {most_nodes}."
    limits = [nodes.minutes for nodes in here]
    if all(limit is not None and limit < request.minutes for limit in limits):
        longest = max(limit for limit in limits if limit is not None)
        return (
            f"it asks for {request.minutes} minutes, and partition {request.partition} allows {longest}. Lower runtime "
            f"in {CHANGE}; an interrupted training continues at the next attempt."
        )
    return None


def offer() -> list[Nodes]:
    """The nodes of all partitions by `sinfo`; empty if it can't be asked."""
    lines = _ask("sinfo", "-h", "-e", "-o", "%R|%D|%c|%m|%G|%l")
    return [_nodes(line) for line in lines if line.count("|") == 5]


def accounts() -> set[str]:
    """The user's accounts in lower case, as SLURM compares them; empty if the cluster keeps none."""
    return {line.lower() for line in _ask("sacctmgr", "-nP", "-s", "list", "user", getpass.getuser(), "format=account")}


def _ask(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _nodes(line: str) -> Nodes:
    partition, count, cpus, memory, gres, limit = line.split("|")
    gpus: dict[str, int] = {}
    for model, number in re.findall(r"\bgpu:(?:([A-Za-z][\w.-]*):)?(\d+)", gres):
        gpus[model] = gpus.get(model, 0) + int(number)
    return Nodes(partition, int(count), int(cpus.rstrip("+")), int(memory.rstrip("+")), gpus, _minutes(limit))


def _minutes(limit: str) -> int | None:
    """SLURM's time limit, [days-][[hours:]minutes:]seconds; None for an infinite one."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return None
    days, _, rest = limit.rpartition("-")
    parts = [0, 0, *map(int, rest.split(":"))][-3:]
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1] + (parts[2] > 0)


def _gpus_asked(gres: str) -> tuple[str, int]:
    """(model or "", number) of GPUs in a gres string such as gpu:4, gpu:a100:4 or gpu."""
    if found := re.search(r"\bgpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?\b", gres):
        return found[1] or "", int(found[2] or 1)
    return "", 0


def _gpus(nodes: Nodes, model: str) -> int:
    return nodes.gpus.get(model, 0) if model else sum(nodes.gpus.values())


def gpus_of_this_machine() -> int:
    """How many GPUs the calling process may use."""
    from yarnlab.training.launch import visible_gpus

    return len(visible_gpus(os.environ))
