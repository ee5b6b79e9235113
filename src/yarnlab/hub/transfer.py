"""One file onto the disk: hashed as it arrives, taken up where it broke off, in this call or in a later one."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx2

from yarnlab.hub.api import Hub, Repository, passes
from yarnlab.hub.faults import Corrupt, DiskFull, HubError, HubFailure, Interrupted
from yarnlab.hub.lock import LockedFile

CHUNK = 1 << 20
PROGRESS = 1 << 20  # bytes after which a broken connection is no failure in a row: large files outlast many


class Stopped(HubError):
    """Another file met a fault that concerns all, or the user interrupted; what this one has is kept."""


def partial(target: Path) -> Path:
    """Where a file grows until its hash is right."""
    return target.with_name(f"{target.name}.partial")


def is_right(path: Path, wanted: LockedFile) -> bool:
    """Whether the file on disk is the one wanted, to the last byte."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    digest = wanted.hasher()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == wanted.digest


class Transfer:
    """Brings one file to `partial(target)`, whole and right.

    count: called with the number of bytes that were gained, negative where some had to be given up.
    """

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        commit: str,
        wanted: LockedFile,
        target: Path,
        count: Callable[[int], None],
        stop: threading.Event,
    ) -> None:
        self._hub, self._repository, self._commit, self._wanted = hub, repository, commit, wanted
        self._partial, self._count, self._stop = partial(target), count, stop
        self._size = 0
        self._digest: Any = wanted.hasher()

    def run(self) -> None:
        """Raises HubError. Bytes that were hashed into a wrong whole are removed, all others kept."""
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):  # corruption on the way is worth one more try
            with self._disk(), self._partial.open("ab", buffering=0) as file:
                self._take_up(file)
                self._extend(file)
                os.fsync(file.fileno())
            if self._digest.hexdigest() == self._wanted.digest:
                return
            self._partial.unlink()
            self._count(-self._size)
        raise Corrupt(
            f"{self._repository.name}: {self._wanted.path} arrived twice with another content than the lock pins "
            "(of the same size), and nothing of it was kept. A mirror or proxy alters it: use another HF_ENDPOINT"
        )

    def _take_up(self, file: BinaryIO) -> None:
        """Hash what an earlier attempt left; more than the whole file is nothing to build on."""
        self._size, self._digest = 0, self._wanted.hasher()
        if self._partial.stat().st_size > self._wanted.size:
            file.truncate(0)
        with self._partial.open("rb") as there:
            while chunk := there.read(CHUNK):
                self._digest.update(chunk)
                self._size += len(chunk)
        self._count(self._size)

    def _extend(self, file: BinaryIO) -> None:
        """Request what is missing until nothing is; after `tries` requests in a row that bring little, give up."""
        failures = 0
        while self._size < self._wanted.size:
            before = self._size
            try:
                self._request(file)
                problem: HubError = self._broken("the body is too short")
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol) as error:
                problem = self._hub.unreachable(self._repository, error)
            except httpx2.HTTPError as error:
                problem = self._broken(type(error).__name__)
            except HubFailure as error:
                problem = error
            failures = 1 if self._size - before >= PROGRESS else failures + 1
            if self._size < self._wanted.size:
                if failures >= self._hub.patience.tries or not passes(problem):
                    raise problem
                self._stop.wait(self._hub.patience.after(failures, problem))

    def _request(self, file: BinaryIO) -> None:
        """One request from the first missing byte on."""
        self._go_on()
        with self._hub.open(self._repository, self._commit, self._wanted.path, self._size) as answer:
            if self._size and not self._continues(answer):
                file.truncate(0)
                self._count(-self._size)
                self._size, self._digest = 0, self._wanted.hasher()
            for (
                chunk
            ) in answer.iter_bytes():  # as they arrive: chunks of a given size are lost with a broken connection
                self._go_on()
                fitting = chunk[: self._wanted.size - self._size]
                self._write(file, fitting)
                if len(fitting) < len(chunk):  # longer than the lock says: the hash will tell whether that matters
                    return

    def _continues(self, answer: httpx2.Response) -> bool:
        """Whether the answer starts at the first missing byte; a server without ranges sends everything."""
        if answer.status_code != 206:
            return False
        given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        return given is None or int(given[1]) == self._size

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:  # an unbuffered write may be a short one
            written = file.write(view)
            self._digest.update(view[:written])
            self._size += written
            self._count(written)
            view = view[written:]

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise Stopped(f"{self._wanted.path}: stopped")

    def _broken(self, why: str) -> Interrupted:
        return Interrupted(
            f"{self._repository.name}: {self._wanted.path} breaks off again and again ({why}), after {self._size:,} of "
            f"{self._wanted.size:,} bytes, which are kept. Run the same command again to go on"
        )

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """Turns the operating system's "no space left" into a message that says what to do."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            what = f"{self._wanted.path} has {self._wanted.size:,} bytes"
            raise disk_full(self._partial.parent, what) from None


def disk_full(folder: Path, what: str) -> DiskFull:
    return DiskFull(
        f"the disk of {folder} is full: {what}. What arrived is kept. Free some space, or move the results folder to "
        "another disk, and run the same command again"
    )
