"""What was measured on this machine and what is chosen by it: kept beside the environment, read ever after.

A machine is measured once, so two runs on it compute in the same way, bit for bit. The file holds a record for each
kind of machine, since the nodes of a cluster may share an environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from yarnlab.machine.choice import choices
from yarnlab.machine.processor import processor_flags, processor_multiplies_bf16
from yarnlab.processes import ALLOCATOR
from yarnlab.provenance import cpu_name, now, read_json, write_json

VARIABLE = "YARNLAB_MACHINE"  # `default`: nothing is measured; the processor's flags and the blockwise kernel decide
VERSION = 1  # of what is timed and how choices follow: to be raised with a change of timing.py, choice.py or a kernel
LIMIT_S = 300.0  # imports and timing take ten seconds, on a machine with much else to do a minute
# Variables that make torch's and oneDNN's kernels leave out instructions: a machine without them is another one.
CAPABILITIES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@cache
def this_machine() -> dict[str, Any]:
    """This machine's record, measured now if nobody has: `precision`, `kernels`, and the `seconds` behind them.

    Empty, so that defaults stand, where YARNLAB_MACHINE says so, or where no measurement can be made or kept: processes
    that measured for themselves might not agree.
    """
    if os.environ.get(VARIABLE) == "default":
        return {}
    key = _key()
    for file in files():
        if found := read_json(file).get(key):
            return dict(found)
    return _kept(key, since="")  # of any time: another process may have measured since the file was read


def measure() -> dict[str, Any]:
    """Measure this machine, anew if it was before, and keep the record; empty where that is not possible."""
    return _kept(_key(), since=now())


def _kept(key: str, since: str) -> dict[str, Any]:
    """The record of this key measured since then, by another process or now by this one, and kept.

    Only one process of those that share a file measures at a time; the others wait, and take what it found.
    """
    for file in files():
        try:
            with _exclusive(file):
                found = read_json(file).get(key)
                if found and found["measured"] >= since:  # while this process waited
                    return dict(found)
                write_json(file, read_json(file))  # that it can be written is known before the time is spent
                measured = _measured()
                if measured:
                    write_json(file, {**read_json(file), key: measured})
                return measured
        except OSError:
            continue
    return {}


def facts(device: str) -> dict[str, Any]:
    """For the manifest of what was computed on a device of this type: the record, on a CPU."""
    return {"measured": this_machine()} if device == "cpu" else {}


def files() -> list[Path]:
    """Where records are kept: in the environment's folder, or in the user's cache where that is read-only."""
    cache_folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return [Path(sys.prefix) / "machine.json", Path(cache_folder) / "yarnlab" / "machine.json"]


def described(record: dict[str, Any]) -> str:
    """A record as text: what was chosen, and the milliseconds that decided."""
    if not record:
        return "nothing is measured: the processor's flags and the blockwise kernel decide"
    lines = [f"{record['processor']}, torch {record['torch']}, one thread, measured {record['measured']}"]
    lines += [f"precision auto: {record['precision']} (by the processor's flags {record['default_precision']})"]
    for work, seconds in record["seconds"].items():
        times = ", ".join(f"{how} {1e3 * s:.3g} ms" for how, s in seconds.items())
        chosen = ", ".join(
            f"{dtype} {kernels[work]}" for dtype, kernels in record["kernels"].items() if work in kernels
        )
        lines.append(f"{work}: {times}" + (f"; chosen: {chosen}" if chosen else ""))
    return "\n".join(lines)


def _key() -> str:
    """What a record is valid for; 16 hex digits of the processor, torch, what is left out, and VERSION."""
    left_out = [f"{name}={os.environ[name]}" for name in CAPABILITIES if name in os.environ]
    parts = [str(VERSION), cpu_name(), *sorted(processor_flags()), metadata.version("torch"), *left_out]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _measured() -> dict[str, Any]:
    print("measuring once which number format and attention are fastest here: about ten seconds", file=sys.stderr)
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "yarnlab.machine.timing"]
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True)
        seconds = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        print(f"warning: it can't be measured ({said}); the defaults stand", file=sys.stderr)
        return {}
    default = "bf16" if processor_multiplies_bf16() else "fp32"
    return {
        "processor": cpu_name(),
        "torch": metadata.version("torch"),
        "measured": now(),
        "took_s": round(time.monotonic() - start, 1),
        "default_precision": default,
        **choices(seconds, default),
        "seconds": seconds,
    }


@contextmanager
def _exclusive(file: Path) -> Iterator[None]:
    """Hold the file's lock. Raises OSError where it can't be had, among them filelock's Timeout."""
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file.with_suffix(".lock"), timeout=2 * LIMIT_S, fallback_to_soft=False):
            yield
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from error
