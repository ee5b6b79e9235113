"""Data parallelism on one machine's CPUs: processes that each compute a part of every global batch.

Gradients are sums over the batch, already divided by its total weight, so adding them up over the processes gives the
gradient of the whole batch, however it is split. Every process then makes the same optimizer step.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed

from yarnlab.mistakes import is_interruption, is_mistake
from yarnlab.study.training import Parallel


class WorkerFailed(RuntimeError):
    """A training process ended early; its own message is in the log above."""


@dataclass(frozen=True)
class Group:
    """This process's place among those that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the log, the checkpoints and the model."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """The rows of a global batch that are this process's."""
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor (all of one dtype) by its sum over the processes, in one message."""
        if self.size == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        try:
            distributed.all_reduce(flat)
        except RuntimeError as error:
            raise WorkerFailed(f"process {self.rank} of {self.size} lost the others: {error}") from None
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def processes(parallel: Parallel) -> AbstractContextManager[Group]:
    """The processes that a phase asks for, forked from this one."""
    return forked(parallel.processes)


@contextmanager
def forked(processes: int) -> Iterator[Group]:
    """Run the block in `processes` copies of this process, forked so that none imports torch again.

    Only the first copy leaves the block; the others end with it. Must be entered before torch has computed anything:
    its threads do not survive a fork. Raises WorkerFailed if another copy ended with an error.
    """
    if processes == 1:
        yield Group()
        return
    # The processes meet through a file and talk on the loopback interface alone.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    with tempfile.TemporaryDirectory(prefix="yarnlab-") as folder:
        children: list[int] = []
        for rank in range(1, processes):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    with _joined(rank, processes, Path(folder)):
                        yield Group(rank, processes)
                    status = 0
                except BaseException as error:
                    if not (is_mistake(error) or is_interruption(error)):  # the leading process reports those
                        traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(status)
            children.append(child)
        try:
            with _joined(0, processes, Path(folder)):
                yield Group(0, processes)
        finally:
            statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        if any(statuses):
            raise WorkerFailed(f"{sum(map(bool, statuses))} of {processes} training processes ended with an error")


@contextmanager
def _joined(rank: int, size: int, folder: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()
