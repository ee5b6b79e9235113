"""On an NVIDIA GPU: the training loop in one process of its own, on the GPU, whole and sharded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is to be seen (pytest -m gpu shows it)"),
]
RUNS = Path(__file__).resolve().parents[1] / "training"
# In a process of its own: a fork of this one could not use CUDA.
JOB = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from tiny_runs import train_tiny
from yarnlab.study.schema import Architecture
from yarnlab.study.training import Train
shape, phase = Architecture.model_validate_json(sys.argv[4]), Train.model_validate_json(sys.argv[5])
train_tiny(Path(sys.argv[2]), Path(sys.argv[3]), shape, (phase,), *sys.argv[6:])
"""


@pytest.fixture
def trained(tiny_data, architecture, tmp_path, monkeypatch):
    """Trains a tiny model in another process: (name, parallel, changes) → (log, weights, facts)."""
    monkeypatch.syspath_prepend(str(RUNS))
    from tiny_runs import log_of, parallel, phase, weights_of

    # Kernels of GPUs want heads of at least 16 numbers and a length that is a multiple of 8.
    def run(name: str, processes: int = 1, sharding: str = "fsdp", mode: str = "none", **changes):
        block = parallel(processes, sharding) | {"activation_checkpointing": mode}
        chosen = phase(**{"steps": 5, "parallel": block, **changes})
        out = tmp_path / name
        command = [sys.executable, "-c", JOB, str(RUNS), str(tiny_data), str(out)]
        done = subprocess.run(
            [*command, architecture.model_dump_json(), chosen.model_dump_json()], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return log_of(out), weights_of(out), json.loads((out / "facts.json").read_text())

    return run


def test_shards_on_a_gpu_learn_what_whole_models_on_it_do(trained):
    """fp32, one process: the same losses to 1e-4. The facts say where and how it ran."""
    whole, _, facts = trained("whole", sharding="replicate", precision="fp32")
    sharded, _, more = trained("sharded", precision="fp32")
    assert facts["device"] == more["device"] == "cuda" and more["sharding"] == "fsdp"
    for a, b in zip(whole, sharded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert b["peak_gpu_memory_gib"] > 0


@pytest.mark.parametrize("precision", ["bf16", "pure-bf16"])
def test_bf16_is_near_fp32(trained, precision):
    exact, _, _ = trained("exact", precision="fp32")
    rounded, _, facts = trained("rounded", precision=precision)
    assert facts["precision"] == precision
    for a, b in zip(exact, rounded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=5e-3)


def test_either_loss_learns_the_same(trained):
    """Liger's kernel, which is the default here, and torch's: the same losses to 1e-5 in fp32."""
    pytest.importorskip("liger_kernel")
    usual, _, facts = trained("usual", precision="fp32")
    plain, _, more = trained("plain", precision="fp32", loss="torch")
    assert (facts["loss"], more["loss"]) == ("liger", "torch")
    for a, b in zip(usual, plain, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


@pytest.mark.parametrize("mode", ["full", "selective", "offload"])
def test_recomputed_layers_learn_the_same(trained, mode):
    """From host memory and with attention's kept output too."""
    plain, _, _ = trained("plain", precision="bf16")
    recomputed, _, facts = trained(mode, precision="bf16", mode=mode)
    assert facts["activation_checkpointing"] == mode
    for a, b in zip(plain, recomputed, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are fewer than two NVIDIA GPUs")
@pytest.mark.parametrize(
    ("context", "sharding", "precision"), [(1, "fsdp", "fp32"), (2, "fsdp", "fp32"), (2, "replicate", "bf16")]
)
def test_two_gpus_learn_what_one_does(trained, context, sharding, precision):
    """Whole models that share a sequence too, where autocast gives attention queries and values of two dtypes."""
    one, _, _ = trained("one", precision=precision)
    block = {"processes": 2, "threads": 1, "sharding": sharding, "activation_checkpointing": "none", "context": context}
    two, _, facts = trained("two", precision=precision, parallel=block)
    assert facts["world"] == 2
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4 if precision == "fp32" else 5e-3)


@pytest.mark.parametrize("script", ["train_step.py", "eval_131072.py"])
def test_the_benchmarks_run(tmp_path, script):
    """At tiny sizes; the figures themselves are in benchmarks/RESULTS.md."""
    benchmark = Path(__file__).resolve().parents[2] / "benchmarks" / script
    command = [sys.executable, str(benchmark), "--tiny", "--output", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["hardware"]["gpu"]
