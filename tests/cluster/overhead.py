"""What a job costs more on SLURM than beside it: the smoke study's evaluations, made again three times.

    envs/run --cluster python tests/cluster/overhead.py FOLDER [STUDY]     # as root

FOLDER keeps the results for the next time; STUDY is a name or a file (default: smoke).

Prints seconds for all jobs at once on two processors: forked by the fork server, each with its own imports, and
submitted to the SLURM of `lab.py`; and before each how busy the processors are, since on a busy machine the four have
nothing to do with each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from lab import ACCOUNT, Lab, environment, obstacle

from yarnlab.study.evaluations import KINDS

ROOT = Path(__file__).resolve().parents[2]
STUDY = sys.argv[2] if len(sys.argv) > 2 else "smoke"


def seconds(folder: Path, *arguments: str, site: dict[str, str] | None = None) -> float:
    """Wall time of one call of Snakemake on the study in `folder`."""
    print(f"processors busy: {psutil.cpu_percent(5):.0f} %", flush=True)
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--config", f"study={STUDY}", *arguments],
        cwd=ROOT,
        env=site or dict(os.environ),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return time.monotonic() - began


def main(folder: Path) -> None:
    if reason := obstacle():
        sys.exit(reason)
    folder.mkdir(exist_ok=True)
    seconds(folder, "--cores", "2", "--", "evaluations")
    again = ["--until", *KINDS, "--forcerun", *KINDS, "--rerun-triggers", "mtime", "--"]
    targets = [str(file.relative_to(folder)) for file in sorted(folder.glob("results/*/evaluations/*/*.manifest.json"))]
    count = len(targets)
    print(f"{count} evaluations")
    forked = seconds(folder, "--cores", "2", *again, *targets)
    print(f"local, forked by the fork server: {forked:.1f} s")
    alone = seconds(folder, "--cores", "2", "--no-hooks", *again, *targets)
    print(f"local, each with its own imports: {alone:.1f} s")
    site = {"YARNLAB_ACCOUNT": ACCOUNT, "YARNLAB_CPU_PARTITION": "cpu", "YARNLAB_GPU_PARTITION": "gpu"}
    quick = ["--slurm-init-seconds-before-status-checks", "1", "--slurm-logdir", str(folder / "logs")]
    with tempfile.TemporaryDirectory(prefix="yarnlab-slurm-") as place:
        lab = Lab(Path(place) / "lab")
        try:
            lab.start()
            profile = ["--profile", "cluster", *quick, *again]
            queued = seconds(folder, *profile, *targets, site={**environment(), **site})
            plain = seconds(folder, "--no-hooks", *profile, *targets, site={**environment(), **site})
        finally:
            lab.stop()
    print(f"SLURM: {queued:.1f} s; without hooks {plain:.1f} s")
    print(f"{(plain - alone) / count:.1f} s a job over local execution with imports, both without hooks,")
    print(f"{(queued - forked) / count:.1f} s over the fork server")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
