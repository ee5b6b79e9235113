"""The conda environment must not drift from the lock."""

from pathlib import Path

import yaml

ENVS = Path(__file__).resolve().parents[2] / "envs"


def test_conda_environment_has_the_pins_of_the_lock():
    lock = [line.strip() for line in (ENVS / "cpu.lock").read_text().splitlines() if line.strip()[:1] not in ("", "#")]
    environment = yaml.safe_load((ENVS / "conda.yaml").read_text())
    assert environment["dependencies"][-1]["pip"] == lock
