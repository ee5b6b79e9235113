"""One file onto the disk, whole and right, taken up where it broke off, in this call or in a later one.

Own code, because huggingface_hub throws the beginning of a file away when a call ends (a shard has 10 GB), and takes
a file for right that has the right size.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from yarnlab.hub.client import Hub
from yarnlab.hub.errors import FileError, HubError
from yarnlab.hub.lock import Asset, LockedFile

PROGRESS = 1 << 20  # bytes after which a broken connection is no failure in a row: large files outlast many


def partial(target: Path) -> Path:
    """Where a file grows until its hash is right."""
    return target.with_name(f"{target.name}.partial")


def take_from_cache(asset: Asset, commit: str, wanted: LockedFile, target: Path) -> bool:
    """Put the copy that huggingface_hub has to `partial(target)`, if it has one and every byte of it is right.

    It is linked where the file system allows, and else copied.
    """
    found = try_to_load_from_cache(asset.repo, wanted.path, revision=commit, repo_type=asset.type)
    if not isinstance(found, str) or not wanted.is_at(Path(found)):
        return False
    place = partial(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(Path(found).resolve(), place)  # the snapshot holds symbolic links into the cache's blobs
        return True
    except OSError:
        shutil.copyfile(found, place)
        return wanted.is_at(place)


class Download:
    """Brings one file to `partial(target)`; `size` is how many bytes are there."""

    def __init__(
        self, hub: Hub, asset: Asset, commit: str, wanted: LockedFile, target: Path, stop: threading.Event
    ) -> None:
        self.wanted = wanted
        self.size = 0
        self._hub, self._asset, self._commit, self._stop = hub, asset, commit, stop
        self._partial = partial(target)

    def run(self) -> None:
        """The file is there afterwards, unless `stop` is set. All that arrived is kept, unless it is wrong.

        Raises HfHubHTTPError for a refusal, and HubError.
        """
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        if self._partial.exists():
            there = self._partial.stat()
            # A link into huggingface_hub's cache, where a killed process left one, must not be written to.
            if there.st_nlink > 1 or there.st_size > self.wanted.size:
                self._partial.unlink()
        for _ in range(2):  # corruption on the way is worth one more try
            try:
                with self._partial.open("ab") as file:
                    self._extend(file)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                what = f"{self.wanted.path} has {self.wanted.size:,} bytes"
                raise disk_full(self._partial.parent, what) from None
            if self._stop.is_set() or self.wanted.is_at(self._partial):
                return
            self._partial.unlink()
        raise FileError(
            f"{self._asset.repo}: {self.wanted.path} arrived twice with another content than the lock pins "
            "(of the same size), and nothing of it was kept. A mirror or proxy alters it: use another HF_ENDPOINT"
        )

    def _extend(self, file: BinaryIO) -> None:
        """Request what is missing until nothing is; after `tries` requests in a row that bring little, give up."""
        failures = 0
        patience = self._hub.patience
        while not self._stop.is_set():
            self.size = before = file.tell()
            if self.size == self.wanted.size:
                file.flush()
                os.fsync(file.fileno())
                return
            problem: Exception | None = None
            try:
                self._request(file)
            except HfHubHTTPError as error:
                if self._hub.is_own(error) or error.response.status_code >= 500:
                    raise
                problem = error  # the address that the hub redirected to has expired: ask for another one
            except httpx2.HTTPError as error:
                problem = error
            failures = 1 if self.size - before >= PROGRESS else failures + 1
            if self.size < self.wanted.size:
                if failures >= patience.tries:
                    raise self._given_up(problem)
                self._stop.wait(patience.pause * 2 ** (failures - 1))

    def _request(self, file: BinaryIO) -> None:
        """One request from the first missing byte on."""
        with self._hub.stream(self._asset, self._commit, self.wanted.path, self.size) as answer:
            if self.size and answer.status_code != 206:  # a server without ranges sends everything
                file.seek(0)
                file.truncate()
                self.size = 0
            for chunk in answer.iter_bytes():  # as they arrive: chunks of a given size are lost with the connection
                fitting = chunk[: self.wanted.size - self.size]
                file.write(fitting)
                self.size += len(fitting)
                # A body longer than the lock says: the hash will tell whether that matters.
                if len(fitting) < len(chunk) or self._stop.is_set():
                    return

    def _given_up(self, problem: Exception | None) -> HubError:
        if isinstance(problem, (httpx2.ConnectError, httpx2.ConnectTimeout, HfHubHTTPError)):
            return self._hub.fault(problem, self._asset, self.wanted.path)
        why = "the body is too short" if problem is None else type(problem).__name__
        return FileError(
            f"{self._asset.repo}: {self.wanted.path} breaks off again and again ({why}), after {self.size:,} of "
            f"{self.wanted.size:,} bytes, which are kept. Run the same command again to go on"
        )


def disk_full(folder: Path, what: str) -> HubError:
    return HubError(
        f"the disk of {folder} is full: {what}. What arrived is kept. Free some space, or move the results folder to "
        "another disk, and run the same command again"
    )
