"""The GPU benchmarks run on a CPU at tiny sizes, so that they are not tried for the first time on a rented machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(("script", "key"), [("train_step.py", "full_depth"), ("eval_131072.py", "measured")])
def test_the_benchmarks_run_on_a_cpu(tmp_path, script, key):
    command = [sys.executable, str(BENCHMARKS / script), "--tiny", "--output", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "target" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())[key]
