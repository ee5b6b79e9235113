"""Parts of one evaluation computed side by side: by copies of the process on one machine's CPUs.

Two passes on one thread each take a tenth less of two cores than one pass on two threads, and the copies share the
model's weights. What a part gives does not depend on who computed it, or when.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

from yarnlab.errors import SHOWN, UserError
from yarnlab.lazy import torch
from yarnlab.processes import end_with
from yarnlab.progress import Progress

T = TypeVar("T")
Work = Callable[[int, Progress], T]  # the part's number, and what counts its steps


class ProcessLost(UserError):
    """A process that computed parts of an evaluation ended early; if by a bug, its traceback is in the log above."""


def side_by_side(work: Work[T], parts: int, progress: Progress, *, processes: int = 1, threads: int = 1) -> list[T]:
    """[work(0, progress), work(1, progress), …].

    With several processes, and not in one of them, each takes the next part that nobody has taken, and computes it on
    `threads` threads. Must be called before torch has computed anything on several, which do not survive a fork.

    Raises what a part raises, if its message alone says what is wrong; ProcessLost if a process ended early.
    """
    if min(parts, processes) <= 1 or parent_process():
        return [work(number, progress) for number in range(parts)]
    found = dict(_computed(work, parts, progress, min(parts, processes), threads))
    return [found[number] for number in range(parts)]


def _computed(work: Work[T], parts: int, progress: Progress, processes: int, threads: int) -> Iterator[tuple[int, T]]:
    """(number, what it gives) of each part, as they come."""
    context, parent = get_context("fork"), os.getpid()
    ends, copies, left = [], [], iter(range(parts))
    progress.side_by_side = processes
    for _ in range(processes):
        own, other = context.Pipe()
        copy = context.Process(target=_compute, args=(other, work, threads, parent), daemon=True)
        copy.start()
        other.close()
        own.send(next(left))
        ends.append(own)
        copies.append(copy)
    try:
        while ends:
            for end in cast("list[Connection]", wait(ends)):
                what, *values = _received(end, processes)
                if what == "done":
                    yield values[0], values[1]
                    end.send(number := next(left, None))
                    if number is None:
                        ends.remove(end)
                elif what == "failed":
                    raise values[0]
                else:
                    getattr(progress, what)(*values)
    finally:
        for copy in copies:
            if ends:  # something failed: what the others still compute is of no use
                copy.kill()
            copy.join()


def _received(end: Connection, processes: int) -> Any:
    try:
        return end.recv()
    except EOFError:
        raise ProcessLost(
            f"one of the {processes} processes of this evaluation ended early: its message is above, or it was killed "
            "since memory ran out; then set `processes: 1`"
        ) from None


def _compute(end: Connection, work: Work[T], threads: int, parent: int) -> None:
    """What a copy does: the parts that it is told, until there is none."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its copies
    torch.set_num_threads(threads)
    progress = _Relay(end)
    while (number := end.recv()) is not None:
        try:
            end.send(("done", number, work(number, progress)))
        except SHOWN as error:
            end.send(("failed", error))
            return
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)


class _Relay(Progress):
    """Has the process that was there first count and say things."""

    def __init__(self, end: Connection) -> None:
        self._end = end

    def advance(self, count: int = 1, note: str = "") -> None:
        self._end.send(("advance", count, note))

    def skip(self, count: int) -> None:
        self._end.send(("skip", count))

    def say(self, text: str) -> None:
        self._end.send(("say", text))
