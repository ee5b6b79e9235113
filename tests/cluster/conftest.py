"""A SLURM for the tests, and what they need to run Snakemake on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import ACCOUNT, Lab, environment, obstacle

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = "YARNLAB_SLURM_TESTS"  # set to 1 where SLURM must start, as in continuous integration


@pytest.fixture(scope="session")
def plugins() -> list[str]:
    """The folders that `envs/run --cluster` puts on PYTHONPATH, made if they are not there."""
    setup = [sys.executable, "-I", str(ROOT / "envs" / "setup_environment.py"), "cluster"]
    done = subprocess.run(setup, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [str(folder) for folder in sorted((ROOT / ".venv-cluster" / "packages").iterdir())]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory, plugins: list[str]) -> Iterator[dict[str, str]]:
    """A running SLURM; yields the environment of its users: the three values of the site, the plugins, and a variable
    that would let jobs use the network."""
    if reason := obstacle():
        assert os.environ.get(REQUIRED) != "1", reason
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("slurm"))
    try:
        lab.start()
        path = os.pathsep.join([str(ROOT / "src"), *plugins])
        site = {"YARNLAB_ACCOUNT": ACCOUNT, "YARNLAB_CPU_PARTITION": "cpu", "YARNLAB_GPU_PARTITION": "gpu"}
        yield {**environment(), **site, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    finally:
        lab.stop()
