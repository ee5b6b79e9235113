"""A job of two processes on each of two nodes, as the rules and the profile start it. A training: test_slurm.py."""

from __future__ import annotations

import pytest
from coordinator import QUICK, ROOT, Coordinator

pytestmark = pytest.mark.cluster

RULE = """
from yarnlab.training.launch import allocation, launch_prefix
prefix = launch_prefix(2, 2).removesuffix("--") + "--module sums --"
rule all_nodes:
    output: "done.txt"
    threads: 2
    resources: **allocation(2, 2)
    params: prefix=prefix
    shell: "{params.prefix} {output}"
"""
# Adds up powers of two over all processes.
PROGRAM = """
import os, sys
import torch
from torch import distributed
distributed.init_process_group("gloo")
rank = distributed.get_rank()
total = torch.tensor([2.0**rank])
distributed.all_reduce(total)
with open(sys.argv[1], "a") as file:
    file.write(f"{rank} {os.environ['WORLD_SIZE']} {os.environ['SLURMD_NODENAME']} {total.item()}\\n")
distributed.barrier()
distributed.destroy_process_group()
"""


def test_one_job_on_two_nodes(slurm, tmp_path):
    """Four processes on two nodes find each other and add up; ranks 0 and 1 are on the first node."""
    (tmp_path / "Snakefile").write_text(RULE)
    (tmp_path / "sums.py").write_text(PROGRAM)
    (tmp_path / "cluster").symlink_to(ROOT / "workflow" / "profiles" / "cluster")
    environment = {**slurm, "PYTHONPATH": f"{slurm['PYTHONPATH']}:{tmp_path}"}
    profile = ["--profile", "cluster", *QUICK, "--retries", "0"]
    Coordinator(tmp_path, environment, *profile, project=tmp_path).finish(300)
    lines = sorted((tmp_path / "done.txt").read_text().splitlines())
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3"]
    nodes = [line.split()[2] for line in lines]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert {(line.split()[1], line.split()[3]) for line in lines} == {("4", "15.0")}
