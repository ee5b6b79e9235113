"""What each job of a study asks of the machine, and how its command starts; rules take both from here.

Imported at every start of Snakemake, so it must stay light.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from yarnlab.cluster.slurm import CPU_PARTITION, GPU_PARTITION
from yarnlab.cost import parameters
from yarnlab.cost.devices import DEVICES, Device
from yarnlab.plan import Plan, plan_study
from yarnlab.study.schema import Study
from yarnlab.study.training import Parallel
from yarnlab.training.launch import allocation, launch_prefix

GPU_PARAMETERS = 300_000_000  # from this size on, models compute on GPUs; smaller ones are quick enough without
# What jobs are planned on, whatever the nodes have.
GPU, CORE = DEVICES["h100"], Device("cpu", 2e10, 2e10, math.inf, "assumed: a core of an old CPU")
# A job asks for more than the plan says: that counts no fragments, no text that is read and no start, and utilisation
# is an assumption.
MEMORY, TIME = 1.1, 2.0
MORE_MB, MORE_MINUTES = 8000, 60
LONGEST = 1440  # minutes, which most clusters allow: what needs longer continues in the next attempt

Resource = Callable[[Any, int], int | str | None]


class JobResources:
    """Nodes, GPUs, partition, memory and time of each training and evaluation; Snakemake leaves out what is None."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._arms = {name: arm for name, (arm, _) in study.instances().items()}
        self._plans: dict[bool, Plan] = {}  # by whether jobs compute on GPUs, made when the first one asks

    def uses_gpus(self, model: str) -> bool:
        """Whether the jobs of a model need GPUs: by its size, so that it is known before a machine is."""
        arm = self._arms[model]
        return parameters(self.study.architecture(arm), self.study.vocab_size(arm)) >= GPU_PARAMETERS

    def of_training(self) -> dict[str, Resource]:
        """For `resources:` of the rule that trains: nodes, GPUs and memory of each, the partition that has them, time.

        The same in every attempt: a training that continues is not a larger one.
        """

        def asked(model: str, attempt: int) -> dict[str, int | str]:
            gpus = self.trains_on_gpus(model)
            return _asked(self._parallel(model), gpus) | self._planned("train", model, gpus)

        return _each(asked)

    def of_evaluation(self, kind: str) -> dict[str, Resource]:
        """For `resources:` of the rule of a kind: one GPU, or none; more memory and time after each failure."""

        def asked(model: str, attempt: int) -> dict[str, int | str]:
            gpus = self.uses_gpus(model)
            return _asked(None, gpus) | self._planned(kind, model, gpus, attempt)

        return _each(asked)

    def _planned(self, stage: str, model: str, gpus: bool, times: int = 1) -> dict[str, int]:
        """Memory of a node in MB and minutes, `times` what the plan of the study leads to."""
        if gpus not in self._plans:
            self._plans[gpus] = plan_study(self.study, GPU if gpus else CORE)
        plan = self._plans[gpus]
        made = next(one for one in plan.stages if (one.stage, one.name) == (stage, model))
        held = made.processes * (made.host + (0.0 if gpus else made.peak))
        return {
            "mem_mb": times * math.ceil(MORE_MB + MEMORY * held / 1e6),
            "runtime": min(LONGEST, times * math.ceil(MORE_MINUTES + TIME * 60 * plan.wall_hours(made))),
        }

    def launch_training(self, wildcards: Any, input: Any) -> str:
        """What comes before `train …` in the command.

        It takes `input` since Snakemake leaves such parameters out when it compares a job with what was made before:
        how processes are started does not change what they compute.
        """
        parallel, gpus = self._parallel(wildcards.model), self.trains_on_gpus(wildcards.model)
        if parallel is None or (parallel.nodes == 1 and not gpus):
            return launch_prefix(1, 1)  # processes on one machine's CPUs are forked by the stage itself
        return launch_prefix(parallel.nodes, parallel.processes, threads=parallel.threads, gpus=gpus)

    def launch_evaluation(self, wildcards: Any, input: Any) -> str:
        """What comes before `evaluate …` in the command; takes `input` as `launch_training` does."""
        return launch_prefix(1, 1, gpus=self.uses_gpus(wildcards.model))

    def trains_on_gpus(self, model: str) -> bool:
        """A model that only gets another rope is not computed with, whatever its size."""
        return self._parallel(model) is not None and self.uses_gpus(model)

    def _parallel(self, model: str) -> Parallel | None:
        """The processes of a model's training; all its phases have the same."""
        phases = self.study.models[self._arms[model]].phases
        return phases[0].parallel if phases else None


NAMES = ("nodes", "tasks", "tasks_per_gpu", "mpi", "gres", "needed_gpus", "slurm_partition", "mem_mb", "runtime")


def _each(asked: Callable[[str, int], dict[str, int | str]]) -> dict[str, Resource]:
    """One function of wildcards and attempt (1, 2, …) for each resource, None where a job does not ask for it."""

    def one(name: str) -> Resource:
        return lambda wildcards, attempt: asked(wildcards.model, attempt).get(name)

    return {name: one(name) for name in NAMES}


def _asked(parallel: Parallel | None, gpus: bool) -> dict[str, int | str]:
    nodes, processes = (parallel.nodes, parallel.processes) if parallel is not None else (1, 1)
    resources = allocation(nodes, processes, gpus=gpus)
    # Also where no GPU is asked for: a rule's own function hides the profile's default, even where it gives None.
    if partition := os.environ.get(GPU_PARTITION if gpus else CPU_PARTITION):
        resources["slurm_partition"] = partition
    return resources
