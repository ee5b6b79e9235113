"""What each job of a study asks of the machine, and how its command starts; rules take both from here.

Imported at every start of Snakemake, so it must stay light.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from yarnlab.cluster.slurm import CPU_PARTITION, GPU_PARTITION
from yarnlab.cost import parameters
from yarnlab.study.schema import Study
from yarnlab.study.training import Parallel
from yarnlab.training.launch import allocation, launch_prefix

GPU_PARAMETERS = 300_000_000  # from this size on, models compute on GPUs; smaller ones are quick enough without

Resource = Callable[[Any], int | str | None]


class JobResources:
    """The nodes, GPUs and partition of each training and evaluation; Snakemake leaves out what is None."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._arms = {name: arm for name, (arm, _) in study.instances().items()}

    def uses_gpus(self, model: str) -> bool:
        """Whether the jobs of a model need GPUs: by its size, so that it is known before a machine is."""
        arm = self._arms[model]
        return parameters(self.study.architecture(arm), self.study.vocab_size(arm)) >= GPU_PARAMETERS

    def of_training(self) -> dict[str, Resource]:
        """For `resources:` of the rule that trains: nodes, GPUs of each, and the partition that has them."""
        return _each(lambda model: _asked(self._parallel(model), self.trains_on_gpus(model)))

    def of_evaluation(self) -> dict[str, Resource]:
        """For `resources:` of rules that evaluate: one GPU, or none."""
        return _each(lambda model: _asked(None, self.uses_gpus(model)))

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


NAMES = ("nodes", "tasks", "tasks_per_gpu", "mpi", "gres", "needed_gpus", "slurm_partition")


def _each(asked: Callable[[str], dict[str, int | str]]) -> dict[str, Resource]:
    """One function of wildcards for each resource, None where a job does not ask for it."""

    def one(name: str) -> Resource:
        return lambda wildcards: asked(wildcards.model).get(name)

    return {name: one(name) for name in NAMES}


def _asked(parallel: Parallel | None, gpus: bool) -> dict[str, int | str]:
    nodes, processes = (parallel.nodes, parallel.processes) if parallel is not None else (1, 1)
    resources = allocation(nodes, processes, gpus=gpus)
    # Also where no GPU is asked for: a rule's own function hides the profile's default, even where it gives None.
    if partition := os.environ.get(GPU_PARTITION if gpus else CPU_PARTITION):
        resources["slurm_partition"] = partition
    return resources
