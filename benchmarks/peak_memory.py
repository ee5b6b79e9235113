"""The most memory that a command and all processes under it hold together.

    envs/run python benchmarks/peak_memory.py envs/run snakemake --cores all

Adds up the proportional set sizes (a page shared by n processes counts 1/n in each) every few seconds, so a shorter
peak can be missed. Linux only. The command's output stays as it is; the peak comes last, on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time

import psutil


def main() -> None:
    arguments = read_arguments()
    began, peak = time.monotonic(), 0
    with subprocess.Popen(arguments.command) as command:
        while True:
            peak = max(peak, held(psutil.Process(command.pid)))
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = command.wait(arguments.interval)
                break
    print(f"peak {peak / 2**30:.2f} GiB in {time.monotonic() - began:.0f} s", file=sys.stderr)
    raise SystemExit(status)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command and its arguments")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no command given")
    return arguments


def held(process: psutil.Process) -> int:
    """Bytes held by `process` and its descendants; those that end meanwhile count as nothing."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += one.memory_full_info().pss
    return total


if __name__ == "__main__":
    main()
