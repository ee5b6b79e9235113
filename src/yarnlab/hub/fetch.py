"""Fetch an asset: what is there and right is kept, what is missing or wrong is fetched, every byte is hashed.

A file gets its name only once its hash is right. `asset.json` is written last and taken away before anything that it
lists is replaced, so that a folder with `asset.json` is whole.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from yarnlab.hub import cache, settings
from yarnlab.hub.api import Hub, Patience
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.faults import HubError, LockError, NoSuchFile, NoSuchRevision, Offline
from yarnlab.hub.lock import Asset, Locked, LockedFile, lock_assets, read_lock
from yarnlab.hub.record import Folder, Record
from yarnlab.hub.selection import weights
from yarnlab.hub.transfer import Stopped, Transfer, disk_full, is_right, partial
from yarnlab.progress import Progress

WEIGHT_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Fetched:
    """paths: the asset's files, asset.json among them. conversions: what was made of .bin weights (JSON)."""

    commit: str
    paths: list[Path]
    bytes: int
    conversions: list[dict[str, str]] = field(default_factory=list)


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
    say = _Voice(asset, log)
    locked = _pinned(asset, lock_file, lock_missing, patience, say)
    with exclusively(folder / ".fetch.lock", waiting=lambda: say("another process fetches it too: waiting for that")):
        job = _Job(asset, locked, Folder(folder), lock_file, say, workers, patience or Patience())
        record = job.run()
    return Fetched(
        locked.commit,
        [folder / name for name in (*record.files, "asset.json")],
        sum(size for size, _ in record.files.values()),
        [conversion.as_dict() for conversion in record.conversions],
    )


@dataclass(frozen=True)
class _Voice:
    """Messages for the terminal and the log."""

    asset: Asset
    log: Path | None

    def __call__(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {self.asset.repo}: {text}"
        print(line, file=sys.stderr, flush=True)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _pinned(asset: Asset, lock_file: Path, lock_missing: bool, patience: Patience | None, say: _Voice) -> Locked:
    locked = read_lock(lock_file).get(asset.key)
    if locked is None or asset.files not in locked.selections:
        if not lock_missing:
            raise LockError(f"{asset.key} is not pinned in {lock_file}: run `yarnlab lock STUDY` and commit that file")
        if settings.offline():
            raise Offline(
                f"{asset.key} is not pinned in {lock_file} and HF_HUB_OFFLINE forbids to ask the hub: run "
                "`yarnlab lock STUDY` on a machine with a network and bring that file along"
            )
        lock_assets([asset], lock_file, patience=patience)
        locked = read_lock(lock_file)[asset.key]
        say(f"{asset.revision} was not pinned and is trusted as it is now: {locked.commit}, written to {lock_file}")
    return locked


@dataclass
class _Job:
    asset: Asset
    locked: Locked
    folder: Folder
    lock_file: Path
    say: _Voice
    workers: int
    patience: Patience

    def run(self) -> Record:
        wanted = self.locked.of(self.asset)
        missing = self._missing(wanted)
        bins = set(weights(file.path for file in wanted)) if self.asset.type == "model" else set()
        if missing:
            self._check_space(missing, bins)
            self._bring(wanted, missing)
        self._check_index(wanted)
        record = self.folder.complete(self.asset, self.locked.commit, wanted, bins)
        if missing:
            self.say(f"{len(record.files)} files are there and right, at {self.locked.commit}")
        return record

    def _missing(self, wanted: list[LockedFile]) -> list[LockedFile]:
        """What is not there or not right. A .bin counts as there if what was made of it is."""

        def right(file: LockedFile) -> bool:
            return is_right(self.folder.path / file.path, file) or self.folder.has_converted(file)

        with ThreadPoolExecutor(self.workers) as pool:
            return [file for file, good in zip(wanted, pool.map(right, wanted), strict=True) if not good]

    def _check_space(self, missing: list[LockedFile], bins: set[str]) -> None:
        have = sum(p.stat().st_size for f in missing if (p := partial(self.folder.path / f.path)).is_file())
        # A .bin goes only when its conversion is recorded: for a while both are there.
        needed = sum(file.size * (2 if file.path in bins else 1) for file in missing) - have
        free = shutil.disk_usage(self.folder.path).free
        if needed > free:
            raise disk_full(
                self.folder.path,
                f"{self.asset.repo} needs {needed / 1e9:,.1f} GB more and {free / 1e9:,.1f} GB are free",
            )

    def _bring(self, wanted: list[LockedFile], missing: list[LockedFile]) -> None:
        names = [file.path for file in wanted]
        rest = []
        for file in missing:
            source = cache.cached(self.asset, self.locked.commit, file)
            if source is not None and cache.take_over(source, file, self.folder.path / file.path):
                self.folder.place(file.path, names)
            else:
                rest.append(file)
        if taken := len(missing) - len(rest):
            self.say(f"{taken} of {len(missing)} missing files taken over from {settings.cache()}")
        if not rest:
            return
        if settings.offline():
            raise Offline(
                f"{self.asset.repo}: {_some(file.path for file in rest)} missing or wrong, and HF_HUB_OFFLINE forbids "
                f"to fetch. Unset it, or fill {settings.cache()} on a machine with a network: hf download "
                f"{self.asset.repo} --repo-type {self.asset.type} --revision {self.locked.commit}"
            )
        _fetch_all(self, rest, names)

    def _check_index(self, wanted: list[LockedFile]) -> None:
        """Every shard that an index of weights names must be among the files."""
        names = {file.path for file in wanted}
        if self.asset.type == "model" and WEIGHT_INDEX in names:
            content = json.loads((self.folder.path / WEIGHT_INDEX).read_text(encoding="utf-8"))
            if lost := sorted(set(content.get("weight_map", {}).values()) - names):
                raise NoSuchFile(
                    f"{self.asset.repo}: {WEIGHT_INDEX} names {_some(lost)}, which the lock does not have: the "
                    "repository is incomplete at this commit, or the asset's `files` leave them out"
                )


def _fetch_all(job: _Job, files: list[LockedFile], names: list[str]) -> None:
    """Fetch files side by side. A fault of one file leaves the others to finish; one that concerns all stops them."""
    stop = threading.Event()
    counter = _Counter(job.say, sum(file.size for file in files))
    faults: dict[str, HubError] = {}
    with Hub(job.patience, stop) as hub, ThreadPoolExecutor(job.workers) as pool:

        def one(file: LockedFile) -> None:
            if stop.is_set():
                return
            target = job.folder.path / file.path
            try:
                Transfer(hub, job.asset.repository, job.locked.commit, file, target, counter.add, stop).run()
            except HubError as error:
                if error.concerns_all:
                    stop.set()
                raise
            job.folder.place(file.path, names)

        jobs: dict[Future[None], str] = {pool.submit(one, file): file.path for file in files}
        try:
            for done in as_completed(jobs):
                try:
                    done.result()
                except Stopped:
                    continue
                except HubError as error:
                    faults[jobs[done]] = error
        except BaseException:  # an interrupt, or a bug: end the others at their next chunk
            stop.set()
            raise
    if faults:
        raise _summary(job, faults)


def _summary(job: _Job, faults: dict[str, HubError]) -> HubError:
    """One error for all: the one that concerns all files if there is one, else the first file's."""
    chosen = next((e for e in faults.values() if e.concerns_all), faults[min(faults)])
    if isinstance(chosen, NoSuchRevision):
        return LockError(
            f"{job.asset.repo} no longer has commit {job.locked.commit}, which {job.lock_file} pins for "
            f"{job.asset.revision}. Lock it anew (`yarnlab lock --update STUDY`) if the study may use another, "
            "or take the old one from a mirror or a cache"
        )
    others = [path for path, error in faults.items() if error is not chosen]
    if not others or chosen.concerns_all:
        return chosen
    return type(chosen)(f"{chosen}. Also not fetched: {_some(sorted(others))}")


class _Counter:
    """Bytes of several threads as one progress in megabytes."""

    def __init__(self, say: _Voice, total: int) -> None:
        self._progress = Progress(
            f"fetch {say.asset.repo}", max(1, math.ceil(total / 1e6)), log=say.log, unit="megabyte"
        )
        self._total, self._bytes, self._shown = total, 0, 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._bytes += size
            now = math.ceil(self._bytes / 1e6) if self._bytes == self._total else int(self._bytes / 1e6)
            if now != self._shown:
                self._progress.advance(now - self._shown)
                self._shown = now


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


__all__ = ["Asset", "Fetched", "Patience", "fetch"]
