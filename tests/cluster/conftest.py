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
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `envs/run --cluster` puts on PYTHONPATH, installed if it is not there."""
    folder = ROOT / ".venv-cluster" / "packages"
    if not folder.exists():
        folder = tmp_path_factory.mktemp("plugin")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        done = subprocess.run([*pip, "-r", str(ROOT / "envs" / "cluster.lock")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[dict[str, str]]:
    """A running SLURM; yields the environment of its users: the three values of the site and the plugin."""
    if reason := obstacle():
        assert os.environ.get(REQUIRED) != "1", reason
        pytest.skip(reason)
    lab = Lab(tmp_path_factory.mktemp("slurm"))
    try:
        lab.start()
        path = os.pathsep.join([str(ROOT / "src"), str(plugin)])
        site = {"YARNLAB_ACCOUNT": ACCOUNT, "YARNLAB_CPU_PARTITION": "cpu", "YARNLAB_GPU_PARTITION": "gpu"}
        yield {**environment(), **site, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    finally:
        lab.stop()
