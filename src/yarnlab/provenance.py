"""Where a result came from: hashes, and what code, packages and hardware made it; files written whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "tokenizers",
    "safetensors",
    "gguf",
    "numpy",
    # Kernels that a GPU takes where they are installed.
    "flash-attn",
    "flash-attn-3",
    "liger-kernel",
    "triton",
    "nvidia-cudnn-cu13",
    "lm_eval",
    "mlflow",
    "snakemake",
)
SELF_SHA256 = "self_sha256"  # in a record: the sha256 of its own text without this key


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends well; a failure leaves `path` as it was.

    What processes that were killed had begun to write there is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path.with_name(glob.escape(path.name)))
    handle, temporary = _draft(path)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would hide results from colleagues
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def remove_drafts(path: Path) -> None:
    """Remove what no living process is writing any more of `path`, whose name may be a pattern: `*.json`.

    Whoever writes holds the kernel's lock on it. Where there are no locks everything stays.
    """
    for draft in path.parent.glob(f".{path.name}.{'[a-z0-9_]' * 8}{path.suffix}"):
        with suppress(OSError), draft.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


def _draft(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, open and locked; the lock goes with the process, however that ends."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # before the lock was there another process took it for a dead one's


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, atomically. Raises ValueError for NaN and infinities, which JSON has not."""
    with replacing(path) as temporary:
        temporary.write_text(_json(value), encoding="utf-8")


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """`value` as `write_json` writes it, with the sha256 of that text as its last key, `self_sha256`.

    For what says where other files come from: nothing else has to be there for a change of it to be seen.
    """
    content = {key: kept for key, kept in value.items() if key != SELF_SHA256}
    write_json(path, {**content, SELF_SHA256: hashlib.sha256(_json(content).encode()).hexdigest()})


def record_is_intact(path: Path) -> bool | None:
    """Whether a file holds, byte for byte, what `write_record` wrote; None for JSON without a hash of its own."""
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        content = {key: kept for key, kept in value.items() if key != SELF_SHA256}
        written = _json({**content, SELF_SHA256: hashlib.sha256(_json(content).encode()).hexdigest()})
    except (OSError, ValueError, AttributeError):
        return False
    return text == written if SELF_SHA256 in value else None


def _json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or nothing that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote, as `read_json` reads it; empty where it is not that any more."""
    return {} if record_is_intact(path) is False else read_json(path)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recorded(path: Path) -> dict[str, Any]:
    """What a record says of a file: sha256 and bytes."""
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


def now() -> str:
    """UTC in ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def project_root() -> Path:
    """The checkout that this code runs from."""
    return Path(__file__).resolve().parents[2]


def project_path(path: Path) -> str:
    """A path relative to the project where possible, so that records do not depend on the checkout's place."""
    try:
        return Path(os.path.abspath(path)).relative_to(project_root()).as_posix()
    except ValueError:
        return path.as_posix()


@cache
def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the project; nulls outside a git checkout."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=project_root(), capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


@cache
def lock_digest() -> str | None:
    """sha256 of the lock file whose packages are installed, each in its version; None in any other environment."""
    for name in ("cpu.lock", "gpu.lock"):
        lock = project_root() / "envs" / name
        if lock.exists() and all(map(_is_installed, lock.read_text(encoding="utf-8").splitlines())):
            return sha256_of(lock)
    return None


def _is_installed(pin: str) -> bool:
    """Whether a line of a lock file, NAME==VERSION or nothing, is met; a build for CPUs (2.13+cpu) is that version."""
    name, _, version = pin.partition("#")[0].strip().partition("==")
    try:
        return not name or metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware() -> dict[str, Any]:
    """CPU, memory and, where torch is already loaded, threads and GPU."""
    import psutil

    torch = sys.modules.get("torch")
    gpu = None
    if torch is not None and torch.cuda.is_available():
        gpu = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpu,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def peak_memory_bytes() -> int:
    """The largest resident size that this process has had, and that of the largest of its ended children."""
    import resource

    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_name() -> str:
    """The processor's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
