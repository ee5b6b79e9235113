"""The processes that train one model together: forked from this one, or started by a launcher on one node or several.

Gradients are sums over the batch, divided by its total weight in the end, so adding them up over the processes gives
the gradient of the whole batch, however it is split. Every process then makes the same optimizer step.

accelerate's PartialState takes a group as it finds it: forking, meeting and waiting for the leader would stay here.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed

from yarnlab.errors import SHOWN, Interruption, UserError, killed
from yarnlab.modeling import compute_device
from yarnlab.processes import end_with
from yarnlab.study.training import Parallel

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets for each process
COLLECTIVE = timedelta(hours=1)  # the slowest file system writes a checkpoint in less
WAIT = timedelta(days=30)  # for the leader, who may wait for another job's end
GRACE_S = 10.0  # after the leader failed, others get this long to end by themselves


class WorkerFailed(UserError):
    """A training process ended early; its own message is in the log above."""


class GroupError(WorkerFailed):
    """The processes or devices that a study asks for are not there; the message says what is, and what to change."""


@dataclass(frozen=True)
class Group:
    """This process's place among those that train one model. `context` processes in a row share each sequence."""

    rank: int = 0
    size: int = 1
    context: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    store: distributed.Store | None = None
    sequence_group: distributed.ProcessGroup | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process writes the log and the model."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """The rows of a global batch that are this process's; those that share a sequence have the same ones."""
        each = rows * self.context // self.size
        replica = self.rank // self.context
        return slice(replica * each, (replica + 1) * each)

    def all_reduce(self, tensors: list[Tensor]) -> None:
        """Replace each tensor (all of one dtype and device) by its sum over the processes, in one message.

        Sums are computed in fp32 at least.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        flat = flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat
        try:
            distributed.all_reduce(flat)
        except RuntimeError as error:
            raise WorkerFailed(f"process {self.rank} of {self.size} lost the others: {error}") from None
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def all_true(self, here: bool) -> bool:
        """Whether it is so in every process. Each waits for all, so it is a barrier too."""
        missing = torch.tensor([float(not here)])
        self.all_reduce([missing])
        return not missing.item()

    def broadcast(self, numbers: list[int]) -> list[int]:
        """The leader's list, in every process; the others' is not looked at."""
        if self.size == 1:
            return numbers
        count = torch.tensor([len(numbers) if self.is_leader else 0])
        self.all_reduce([count])
        sent = torch.tensor(numbers if self.is_leader else [0] * int(count), dtype=torch.int64)
        self.all_reduce([sent])
        return sent.tolist()

    def announce(self, go: bool) -> None:
        """Let the others go on from `await_leader`, or end there."""
        if self.store is not None and self.is_leader:
            self.store.set("go", "yes" if go else "no")

    def await_leader(self) -> bool:
        """Wait, for days if need be, until the leader has announced whether there is something to do."""
        if self.store is None or self.is_leader:
            return True
        self.store.wait(["go"], WAIT)
        return self.store.get("go") == b"yes"


@contextmanager
def processes(parallel: Parallel) -> Iterator[Group]:
    """The processes that a phase asks for: the launcher's if there is one, else forked from this one.

    Each has a device of its own: a GPU where there are enough, else it computes on CPUs. Raises GroupError if the
    launcher started another number of processes, or if there are too few GPUs, NoGPU if those given can't be used.
    """
    if all(name in os.environ for name in LAUNCHED):
        with _launched(parallel) as group:
            yield group
    elif parallel.nodes > 1:
        raise GroupError(
            f"{parallel.nodes} nodes are asked for, and no launcher started this process (RANK is not set): run the "
            "study with --profile cluster, or set nodes: 1 in its parallel block"
        )
    else:
        with forked(parallel) as group:
            yield group


@contextmanager
def forked(parallel: Parallel) -> Iterator[Group]:
    """Run the block in copies of this process, forked so that none imports torch again.

    Only the first copy leaves the block; the others end with it. Must be entered before torch has computed anything:
    its threads, and CUDA, do not survive a fork. Raises WorkerFailed if another copy ended with an error or was killed.
    """
    count, gpus = parallel.processes, _use_gpus(parallel)
    with tempfile.TemporaryDirectory(prefix="yarnlab-") as folder:
        children: list[int] = []
        for rank in range(1, count):
            leader, child = os.getpid(), os.fork()
            if child == 0:
                status = 1
                try:
                    end_with(leader)
                    _renew_threads()
                    with _joined(parallel, rank, rank, gpus, distributed.FileStore(f"{folder}/meeting", count)) as own:
                        yield own
                    status = 0
                except BaseException as error:
                    # The leading process reports those.
                    if not isinstance(error, (*SHOWN, Interruption, KeyboardInterrupt)):
                        traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        try:
            with _joined(parallel, 0, 0, gpus, distributed.FileStore(f"{folder}/meeting", count)) as group:
                yield group
        except BaseException as error:
            statuses = _reap(children, time.monotonic() + GRACE_S)
            # Whatever collective it was waiting in says no more than that a connection broke.
            if isinstance(error, (RuntimeError, WorkerFailed)):
                _check_killed(statuses)
            raise
        statuses = _reap(children, float("inf"))
    _check_killed(statuses)
    if any(statuses):
        raise WorkerFailed(f"{sum(map(bool, statuses))} of {count} training processes ended with an error")


@contextmanager
def _launched(parallel: Parallel) -> Iterator[Group]:
    """The group that torchrun, or our own agent, started this process for."""
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if size != parallel.world:
        raise GroupError(
            f"the study asks for {parallel.nodes} x {parallel.processes} = {parallel.world} processes, the launcher "
            f"started {size}: correct the study's parallel block or the launcher's arguments"
        )
    gpus = _use_gpus(parallel)
    store, rank, size = next(distributed.rendezvous("env://", timeout=COLLECTIVE))
    store.set_timeout(COLLECTIVE)
    with _joined(parallel, rank, local, gpus, distributed.PrefixStore("yarnlab", store)) as group:
        yield group
        if size > 1:
            distributed.barrier()  # rank 0 may hold the store: it ends last


@contextmanager
def _joined(parallel: Parallel, rank: int, local: int, gpus: bool, store: distributed.Store) -> Iterator[Group]:
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        # Long rows leave gaps in memory that later ones do not fit into; segments that can grow have none.
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
        torch.cuda.set_device(device)
    if parallel.world == 1 and parallel.sharding == "replicate":
        yield Group(device=device)
        return
    if os.environ.get("MASTER_ADDR", "127.0.0.1") in ("127.0.0.1", "localhost"):
        # All processes are here: they need no other interface, and a host name may resolve to one that is down.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=distributed.PrefixStore("group", store),
            rank=rank,
            world_size=parallel.world,
            timeout=COLLECTIVE,
            device_id=device if gpus else None,
        )
    except RuntimeError as error:  # another process may fail while they still connect
        raise WorkerFailed(f"process {rank} of {parallel.world} did not meet the others: {error}") from None
    try:
        yield Group(rank, parallel.world, parallel.context, device, store, _sequence_group(parallel, rank))
    finally:
        distributed.destroy_process_group()


def _sequence_group(parallel: Parallel, rank: int) -> distributed.ProcessGroup | None:
    """The processes that share this one's sequences. All processes make all groups, in the same order."""
    if parallel.context == 1:
        return None
    starts = range(0, parallel.world, parallel.context)
    groups = [distributed.new_group(list(range(s, s + parallel.context)), timeout=COLLECTIVE) for s in starts]
    found = groups[rank // parallel.context]
    assert isinstance(found, distributed.ProcessGroup)
    return found


def _use_gpus(parallel: Parallel) -> bool:
    """Whether each process computes on a GPU. Counted through NVML: CUDA must not be initialised before a fork.

    Whole models on fewer GPUs than processes are small ones, made for CPUs: then GPUs are hidden from this process.
    """
    count = torch.cuda.device_count()
    if count >= parallel.processes:
        return True
    if parallel.sharding == "replicate" and not all(name in os.environ for name in LAUNCHED):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return False
    if count:
        raise GroupError(
            f"{parallel.processes} processes need a GPU each, this node shows {count}: ask for more GPUs, set "
            f"processes: {count} in the study's parallel block, or hide them (CUDA_VISIBLE_DEVICES=) to use CPUs"
        )
    compute_device()  # raises NoGPU in a job that was given GPUs which torch can't see
    return False


def _renew_threads() -> None:
    """Have torch replace the thread pool that it had before the fork, whose threads are not in this process.

    It does so at the first need, and not safely: of two threads that need it at once, as where transformers loads
    weights, one may find none and fail (ATen/ParallelOpenMP.cpp, "Invalid thread pool").
    """
    torch.set_num_threads(torch.get_num_threads())


def _reap(children: list[int], deadline: float) -> list[int]:
    """Exit codes of the children, -n for signal n; those that live after the deadline are ended here, with code 1."""
    codes = []
    for child in children:
        late = False
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                late = True
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        codes.append(1 if late else os.waitstatus_to_exitcode(ended[1]))
    return codes


def _check_killed(statuses: list[int]) -> None:
    """Raise WorkerFailed if one of these exit codes is that of a process that the kernel, or somebody, killed."""
    if -signal.SIGKILL in statuses:
        raise WorkerFailed(killed(f"one of {len(statuses) + 1} training processes")) from None
