"""What every job inherits from the Snakemake that starts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yarnlab.workflow import Workflow

STUDIES = Path(__file__).resolve().parents[2] / "config" / "studies"
SOURCE = Path("/project/src")


@pytest.fixture
def inherited(monkeypatch):
    """Makes the variables of jobs out of the caller's; None, as for a job's own Snakemake, takes the last ones."""
    flow, variables = Workflow.load("smoke", STUDIES), dict[str, str]()

    def make(given: dict[str, str] | None = None) -> dict[str, str]:
        nonlocal variables
        variables = dict(variables if given is None else given)
        monkeypatch.setattr(os, "environ", variables)
        flow.export_environment(SOURCE)
        return variables

    return make


def test_jobs_do_not_find_the_plugin_that_submits_them(inherited):
    """Its folder leaves the path, all others stay in their order, and each start of Snakemake adds nothing."""
    slurm = "/project/.venv-cluster/packages/snakemake-executor-plugin-slurm"
    made = inherited({"PYTHONPATH": f"{slurm}-jobstep:{slurm}::/mine"})
    assert made["PYTHONPATH"] == f"/project/src:{slurm}-jobstep:/mine"
    assert inherited() == made
    assert inherited({})["PYTHONPATH"] == "/project/src"


def test_jobs_read_no_profile(inherited):
    """Snakemake reads that of SNAKEMAKE_PROFILE at every start, and the cluster's names options of the missing plugin."""
    assert "SNAKEMAKE_PROFILE" not in inherited({"SNAKEMAKE_PROFILE": "cluster"})


@pytest.mark.parametrize("given", [{}, {"HF_HUB_OFFLINE": "0"}])
def test_no_job_uses_the_hub(inherited, given):
    """Whatever the caller has set; rule `asset`, which downloads, sets it for its own command."""
    assert inherited(given)["HF_HUB_OFFLINE"] == "1"
