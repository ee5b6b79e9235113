"""The processes that compute one model: one job of the workflow, one allocation, one node or several.

`launch_prefix` is what a rule puts before the arguments of `yarnlab`. On every node an agent (`python -m
yarnlab.training.launch`) starts the node's processes and gives each the variables that torchrun would: RANK,
WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, MASTER_ADDR and MASTER_PORT.

torchrun of torch 2.13 (which is what `accelerate launch` starts) was tried in its place with --shutdown_timeout 3600,
which does leave time to save. A second Ctrl-C did not end its processes, kill -9 of it left them at work on their GPUs,
and an interruption ended in a traceback with code 1 instead of EXIT_INTERRUPTED.

One agent a node instead of one task a process: all GPUs of a node are visible to all its processes, as NCCL wants them.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from yarnlab.errors import EXIT_INTERRUPTED
from yarnlab.processes import ON_GPU

AGENT = "python -m yarnlab.training.launch"
GRACE_S = 10.0  # after a process failed, others get this long to notice by themselves
FIRST_PORT, PORTS = 15000, 15000  # below the ports that systems hand out by themselves


class LaunchError(RuntimeError):
    """The processes can't be started as asked; the message says why and what to change."""


@dataclass(frozen=True)
class NodeRank:
    """This node's number among `nodes`, and where the first process waits for the others."""

    node: int
    nodes: int
    address: str
    port: int

    def variables(self, local_rank: int, processes: int) -> dict[str, str]:
        """The environment of one of the node's `processes`, named as torchrun names it."""
        return {
            "RANK": str(self.node * processes + local_rank),
            "WORLD_SIZE": str(self.nodes * processes),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(processes),
            "GROUP_RANK": str(self.node),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def launch_prefix(nodes: int, processes: int, *, threads: int = 1, gpus: bool = False) -> str:
    """The start of a shell command that runs `yarnlab ARGUMENTS…` in `nodes` × `processes` processes.

    `threads` is the number of processors that each process computes with; with `gpus`, each has a GPU of its own.
    """
    if nodes == 1 and processes == 1 and not gpus:
        return "python -m yarnlab"
    agent = f"{AGENT} --nodes {nodes} --processes {processes}{' --gpus' if gpus else ''} --"
    if nodes == 1:
        return agent
    # Snakemake's job step leaves only the job's number of SLURM's variables, so srun is told everything again.
    gres = f" --gres=gpu:{processes}" if gpus else ""
    return (
        f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={processes * threads}{gres}"
        f" --kill-on-bad-exit=1 {agent}"
    )


def allocation(nodes: int, processes: int, *, gpus: bool = False) -> dict[str, int | str]:
    """The resources of a rule whose command starts with `launch_prefix`, by name; `threads` is the rule's own.

    `mpi` makes the plugin's job step run the command on the first node by itself, which then calls srun once for all.
    """
    resources: dict[str, int | str] = {}
    if nodes > 1:
        resources |= {"nodes": nodes, "tasks": nodes, "tasks_per_gpu": 0, "mpi": "srun"}
    if gpus:
        resources |= {"gres": f"gpu:{processes}", "needed_gpus": processes}
    return resources


def node_rank(nodes: int, environment: Mapping[str, str]) -> NodeRank:
    """Where this node stands: alone, or by the variables that srun gives its tasks. Raises LaunchError."""
    if nodes == 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return NodeRank(0, 1, "127.0.0.1", free.getsockname()[1])
    missing = [n for n in ("SLURM_NODEID", "SLURM_NNODES", "SLURM_LAUNCH_NODE_IPADDR") if n not in environment]
    if missing:
        raise LaunchError(
            f"{nodes} nodes are asked for, and this is no task of srun ({', '.join(missing)} not set). Run the study "
            "with --profile cluster, or set nodes: 1 in its parallel block."
        )
    if (given := int(environment["SLURM_NNODES"])) != nodes:
        raise LaunchError(f"{nodes} nodes are asked for, and srun started tasks on {given}.")
    port = FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % PORTS  # two jobs may share a node
    return NodeRank(int(environment["SLURM_NODEID"]), nodes, environment["SLURM_LAUNCH_NODE_IPADDR"], port)


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use: SLURM's or the caller's choice, else all of the machine."""
    if (chosen := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
        return [str(i) for i, line in enumerate(listed.splitlines()) if re.match(r"GPU \d+:", line)]
    return []


def claim(names: list[str], count: int, folder: Path) -> Iterator[str]:
    """Yield `count` of these GPUs once no other job of this machine uses them; the end of this process frees them.

    For a machine or an allocation where Snakemake's jobs know nothing of each other; a job of the scheduler's own finds
    all its GPUs free. Whoever is first in line takes all that become free, so that two that need several never wait for
    each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    line = os.open(folder / "line.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(line, fcntl.LOCK_EX)
    locks = {name: os.open(folder / f"{name.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT, 0o600) for name in names}
    while count:
        for name, lock in list(locks.items()):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.set_inheritable(lock, True)  # if the agent is killed, its processes hold the GPU until they end
                del locks[name]
                yield name
                count -= 1
            if not count:
                break
        else:
            time.sleep(0.5)
    os.close(line)


def _gpu_variables(processes: int) -> dict[str, str]:
    """CUDA_VISIBLE_DEVICES for one GPU a process, and that it must be used. Raises LaunchError if there are fewer."""
    names = visible_gpus(os.environ)
    if len(names) < processes:
        where = f"this job has {len(names)}" if "SLURM_JOB_ID" in os.environ else f"this machine has {len(names)}"
        raise LaunchError(
            f"{processes} processes need a GPU each, and {where}. On a cluster ask for them (gres: gpu:{processes} in "
            "workflow/profiles/cluster/profile.v9+.yaml); elsewhere lower processes in the study's parallel block."
        )
    # Jobs of one allocation share its GPUs too, as in salloc; those of another one may give other GPUs the same names.
    shared = f"yarnlab-gpus-{os.getuid()}-{os.uname().nodename}-{os.environ.get('SLURM_JOB_ID', 'local')}"
    folder = Path(tempfile.gettempdir()) / shared
    try:
        claimed = list(claim(names, processes, folder))
    except OSError as error:
        raise LaunchError(
            f"GPUs can't be shared out among jobs in {folder} ({error.strerror}): set TMPDIR to a folder of this "
            "machine's own disk, which has file locks."
        ) from None
    return {"CUDA_VISIBLE_DEVICES": ",".join(claimed), ON_GPU: "1"}


def run(command: list[str], here: NodeRank, processes: int, extra: Mapping[str, str]) -> int:
    """Run the command in `processes` copies; returns 0, EXIT_INTERRUPTED, or the code of the first that failed.

    A failed process ends the others, which would wait for it without end; an interrupted one does not, since others
    may still be writing their part of the checkpoint. Each has a process group of its own, so that a terminal's Ctrl-C
    reaches it once, from here.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_agent() -> None:
        if library is not None:
            library.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    kept = {name: value for name, value in os.environ.items() if name != "YARNLAB_FORK_SERVER"}
    children = [
        subprocess.Popen(command, env={**kept, **here.variables(rank, processes), **extra}, preexec_fn=end_with_agent,
                         close_fds=False, process_group=0)
        for rank in range(processes)
    ]  # fmt: skip

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        codes = _wait_for(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    failed = [code for code in codes if code not in (0, EXIT_INTERRUPTED)]
    return failed[0] if failed else max(codes)


def _wait_for(children: list[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes in the order in which the processes ended, 128 + n for signal n."""
    codes: list[int] = []
    running, deadline = list(children), float("inf")
    while running:
        for child in list(running):
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(0.05)
                running.remove(child)
                codes.append(code if code >= 0 else 128 - code)
                if codes[-1] not in (0, EXIT_INTERRUPTED):
                    deadline = min(deadline, time.monotonic() + GRACE_S)
        if running and time.monotonic() > deadline:
            for child in running:
                child.kill()
    return codes


def main(arguments: list[str]) -> int:
    """The agent of one node. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m yarnlab.training.launch", description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="processes on each node")
    parser.add_argument("--gpus", action="store_true", help="each process has a GPU of its own")
    parser.add_argument("--module", default="yarnlab", help="what to run with python -m")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="-- and the module's arguments")
    given = parser.parse_args(arguments)
    rest = given.arguments[1:] if given.arguments[:1] == ["--"] else given.arguments
    try:
        here = node_rank(given.nodes, os.environ)
        extra = _gpu_variables(given.processes) if given.gpus else {}
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    code = run([sys.executable, "-m", given.module, *rest], here, given.processes, extra)
    # srun ends all nodes when one reports a failure. Interrupted nodes are still writing, so only the first, whose
    # leading process writes last, reports the interruption.
    return 0 if code == EXIT_INTERRUPTED and here.node > 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
