"""Fetch an asset: what is there and right is kept, what is missing or wrong is fetched, every byte is hashed.

A file gets its name only once its hash is right. `asset.json` is written last and taken away before anything that it
lists is replaced, so that a folder with `asset.json` is whole.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from yarnlab.hub.client import Hub, Patience
from yarnlab.hub.download import Download, take_from_cache
from yarnlab.hub.errors import FileError, HubError, some
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.lock import Asset, Locked, LockedFile, read_lock
from yarnlab.hub.pin import lock_assets
from yarnlab.hub.record import Folder
from yarnlab.hub.selection import weights
from yarnlab.progress import Progress


@dataclass(frozen=True)
class Fetched:
    """commit: the hub's, the hash of a local folder's content, or a wheel's sha256. paths: its files, asset.json among
    them. conversions: what was made of .bin or GGUF weights (JSON)."""

    commit: str
    paths: list[Path]
    bytes: int
    conversions: list[dict[str, str]]

    @classmethod
    def of(cls, commit: str, folder: Path, record: dict[str, Any]) -> Fetched:
        """What lies in `folder`, whose asset.json is `record`."""
        paths = [folder / name for name in (*record["files"], "asset.json")]
        return cls(commit, paths, sum(file["size"] for file in record["files"].values()), record["conversions"])


def fetch(
    asset: Asset,
    lock_file: Path,
    folder: Path,
    *,
    log: Path | None = None,
    workers: int = 8,
    lock_missing: bool = False,
    patience: Patience | None = None,
) -> Fetched:
    """Bring `folder` to what the lock says of `asset`, from the hub's cache or from the hub.

    With `lock_missing` an asset that nobody has locked yet is locked now. Two processes may fetch into one folder: the
    second waits and finds everything there. Raises HubError with one message; good files and the beginnings of others
    stay.
    """
    say = Progress(f"fetch {asset.repo}", 1, log=log).say
    locked = _pinned(asset, lock_file, lock_missing, patience, say)
    with exclusively(folder / ".fetch.lock", waiting=lambda: say("another process fetches it too: waiting for that")):
        record = _Fetch(asset, locked, Folder(folder), lock_file, log, workers, patience).run()
    return Fetched.of(locked.commit, folder, record)


def _pinned(
    asset: Asset, lock_file: Path, lock_missing: bool, patience: Patience | None, say: Callable[[str], None]
) -> Locked:
    locked = read_lock(lock_file).get(asset.key)
    if locked is None or asset.files not in locked.selections:
        if not lock_missing:
            raise HubError(f"{asset.key} is not pinned in {lock_file}: run `yarnlab lock STUDY` and commit that file")
        if constants.is_offline_mode():
            raise HubError(
                f"{asset.key} is not pinned in {lock_file} and HF_HUB_OFFLINE forbids to ask the hub: run "
                "`yarnlab lock STUDY` on a machine with a network and bring that file along"
            )
        lock_assets([asset], lock_file, patience=patience)
        locked = read_lock(lock_file)[asset.key]
        say(f"{asset.revision} was not pinned and is trusted as it is now: {locked.commit}, written to {lock_file}")
    return locked


@dataclass(frozen=True)
class _Fetch:
    """One fetch by the process that holds the folder."""

    asset: Asset
    locked: Locked
    folder: Folder
    lock_file: Path
    log: Path | None
    workers: int
    patience: Patience | None

    def run(self) -> dict[str, Any]:
        """Returns the content of asset.json."""
        wanted = self.locked.of(self.asset)
        missing = self.folder.missing(wanted, self.workers)
        bins = set(weights(file.path for file in wanted)) if self.asset.type == "model" else set()
        if missing:
            self.folder.check_space(self.asset.repo, missing, bins)
            self._bring(missing, [file.path for file in wanted])
        self.folder.check_index(self.asset.repo, self.asset.type, wanted)
        origin = {"type": self.asset.type, "repo": self.asset.repo, "revision": self.asset.revision}
        record = self.folder.complete({**origin, "commit": self.locked.commit}, wanted, bins)
        if missing:
            self._say(f"{len(record['files'])} files are there and right, at {self.locked.commit}")
        return record

    def _say(self, text: str) -> None:
        Progress(f"fetch {self.asset.repo}", 1, log=self.log).say(text)

    def _bring(self, missing: list[LockedFile], names: list[str]) -> None:
        rest = []
        for file in missing:
            if take_from_cache(self.asset, self.locked.commit, file, self.folder.path / file.path):
                self.folder.place(file.path, names)
            else:
                rest.append(file)
        if taken := len(missing) - len(rest):
            self._say(f"{taken} of {len(missing)} missing files taken over from {constants.HF_HUB_CACHE}")
        if rest and constants.is_offline_mode():
            raise HubError(
                f"{self.asset.repo}: {some(file.path for file in rest)} missing or wrong, and HF_HUB_OFFLINE forbids "
                f"to fetch. Unset it, or fill {constants.HF_HUB_CACHE} on a machine with a network: hf download "
                f"{self.asset.repo} --repo-type {self.asset.type} --revision {self.locked.commit}"
            )
        if rest:
            self._download(rest, names)

    def _download(self, files: list[LockedFile], names: list[str]) -> None:
        """Fetch files side by side. A fault of one file leaves the others to finish; any other stops them."""
        hub, stop = Hub(self.patience), threading.Event()
        downloads = [
            Download(hub, self.asset, self.locked.commit, file, self.folder.path / file.path, stop) for file in files
        ]
        total = max(1, math.ceil(sum(file.size for file in files) / 1e6))
        progress, shown = Progress(f"fetch {self.asset.repo}", total, log=self.log, unit="megabyte"), 0
        faults: dict[str, HubError] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            jobs = {pool.submit(self._fault, download, hub, stop): download.wanted.path for download in downloads}
            try:
                while jobs:
                    done, _ = wait(jobs, timeout=1.0, return_when=FIRST_COMPLETED)
                    for path, fault in [(jobs.pop(job), job.result()) for job in done]:
                        if fault is not None:
                            faults[path] = fault
                        elif not stop.is_set():
                            self.folder.place(path, names)
                    arrived = math.ceil(sum(download.size for download in downloads) / 1e6)
                    if arrived != shown:
                        progress.advance(arrived - shown)
                        shown = arrived
            except BaseException:  # an interrupt, or a bug
                stop.set()  # the others end at their next chunk
                raise
        if faults:
            for fault in faults.values():
                if not isinstance(fault, FileError):
                    raise fault
            first, *others = sorted(faults)
            raise FileError(f"{faults[first]}" + (f". Also not fetched: {some(others)}" if others else ""))

    def _fault(self, download: Download, hub: Hub, stop: threading.Event) -> HubError | None:
        """What went wrong with a file; sets `stop` if it concerns all of them."""
        try:
            download.run()
            return None
        except RevisionNotFoundError:
            fault = HubError(
                f"{self.asset.repo} no longer has commit {self.locked.commit}, which {self.lock_file} pins for "
                f"{self.asset.revision}. Lock it anew (`yarnlab lock --update STUDY`) if the study may use another, "
                "or take the old one from a mirror or a cache"
            )
        except HfHubHTTPError as error:
            fault = hub.fault(error, self.asset, download.wanted.path)
        except HubError as error:
            fault = error
        if not isinstance(fault, FileError):
            stop.set()
        return fault
