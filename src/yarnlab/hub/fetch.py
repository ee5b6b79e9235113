"""Fetch an asset: what is there and right is kept, what is missing or wrong is fetched, every byte is hashed.

A file gets its name only once its hash is right. Until then it is NAME.partial, from which the next call goes on.
`asset.json` is written last.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from yarnlab.hub.api import HubError, client, home, refusal, unreachable
from yarnlab.hub.convert import convert
from yarnlab.hub.lock import Asset, Locked, LockedFile, lock_assets, read_lock
from yarnlab.progress import Progress
from yarnlab.provenance import sha256_of, write_json

CHUNK = 1 << 20


@dataclass(frozen=True)
class Patience:
    """How often a request without progress is repeated, and the first pause in seconds (it doubles)."""

    tries: int = 5
    pause: float = 1.0


@dataclass(frozen=True)
class Fetched:
    """paths: the asset's files, asset.json among them. conversions: what was made of .bin weights."""

    commit: str
    paths: list[Path]
    bytes: int
    conversions: dict[str, Any] = field(default_factory=dict)


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

    With `lock_missing` an asset that nobody has locked yet is locked now. Raises HubError with one message; good files
    and the beginnings of others stay.
    """
    locked = read_lock(lock_file).get(asset.key)
    progress = None
    if locked is None:
        if not lock_missing:
            raise HubError(f"{asset.key} is not in {lock_file}: run `yarnlab lock STUDY`")
        lock_assets([asset], lock_file)
        locked = read_lock(lock_file)[asset.key]
        _say(log, f"{asset.key} was not pinned: it is now, at {locked.commit}, in {lock_file}")
    folder.mkdir(parents=True, exist_ok=True)
    good = {
        file.path
        for file in locked.files
        if _good(folder / file.path, file) or _from_cache(asset, locked, file, folder)
    }
    missing = [file for file in locked.files if file.path not in good]
    if missing:
        (folder / "asset.json").unlink(missing_ok=True)
        _check_space(folder, missing)
        progress = Progress(f"fetch {asset.repo}", sum(file.size for file in missing), log=log, unit="byte")
        _fetch_all(asset, locked, missing, folder, progress, workers, patience or Patience())
    conversions = convert(folder, [file.path for file in locked.files])
    made = [Path(name) for name in conversions.get("files", ())]
    names = sorted({*(Path(file.path) for file in locked.files if not _converted(file.path, conversions)), *made})
    hashes = {file.path: file.sha256 for file in locked.files}
    entries = {
        str(name): {"size": (folder / name).stat().st_size, "sha256": hashes.get(str(name)) or sha256_of(folder / name)}
        for name in names
    }
    write_json(
        folder / "asset.json",
        {"type": asset.type, "repo": asset.repo, "revision": asset.revision, "commit": locked.commit,
         "files": entries, "conversions": conversions},
    )  # fmt: skip
    return Fetched(
        locked.commit, [folder / name for name in names] + [folder / "asset.json"], locked.bytes, conversions
    )


def _say(log: Path | None, text: str) -> None:
    import sys

    print(text, file=sys.stderr)
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _converted(path: str, conversions: dict[str, Any]) -> bool:
    return path in conversions.get("sources", {})


def _good(path: Path, wanted: LockedFile) -> bool:
    """Whether the file on disk is the one wanted, to the last byte."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return False
    digest = _hash_of(wanted)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == (wanted.sha256 or wanted.git_sha1)


def _hash_of(wanted: LockedFile) -> Any:
    """A hash that has read nothing of the content yet."""
    if wanted.sha256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % wanted.size, usedforsecurity=False)  # git's, not for secrecy


def _from_cache(asset: Asset, locked: Locked, file: LockedFile, folder: Path) -> bool:
    """Take a file over from the hub's own cache, if it is there and right."""
    name = f"{asset.type}s--{asset.repo.replace('/', '--')}"
    cache = Path(os.environ.get("HF_HUB_CACHE", home() / "hub"))
    source = cache / name / "snapshots" / locked.commit / file.path
    if not _good(source, file):
        return False
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    return True


def _check_space(folder: Path, missing: list[LockedFile]) -> None:
    there = sum(p.stat().st_size for f in missing if (p := _partial(folder / f.path)).exists())
    needed, free = sum(file.size for file in missing) - there, shutil.disk_usage(folder).free
    if needed > free:
        raise _disk_full(folder, f"{needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free")


def _disk_full(folder: Path, how: str) -> HubError:
    return HubError(f"the disk of {folder} is full: {how}. Free some, or put `results` on another disk; then run again")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _fetch_all(
    asset: Asset,
    locked: Locked,
    missing: list[LockedFile],
    folder: Path,
    progress: Progress,
    workers: int,
    patience: Patience,
) -> None:
    """Fetch files side by side; the first failure stops the others at their next chunk, and all keep what they have."""
    stop, counting = threading.Event(), threading.Lock()

    def count(size: int) -> None:
        with counting:
            progress.advance(size)

    with client() as http, ThreadPoolExecutor(max_workers=workers) as pool:
        jobs = [
            pool.submit(_Transfer(http, asset, locked.commit, f, folder, count, stop, patience).run) for f in missing
        ]
        failures = []
        for job in jobs:
            try:
                job.result()
            except HubError as error:
                stop.set()
                failures.append(error)
    if failures:
        raise failures[0]


class _Stopped(HubError):
    """Another file failed; this one's beginning stays."""


@dataclass
class _Transfer:
    http: httpx2.Client
    asset: Asset
    commit: str
    file: LockedFile
    folder: Path
    count: Any
    stop: threading.Event
    patience: Patience

    def run(self) -> None:
        target = self.folder / self.file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        for _ in range(2):  # corruption on the way is worth one more try
            self._complete(partial)
            if _good(partial, self.file):
                partial.replace(target)
                return
            partial.unlink()
        raise HubError(
            f"{self.asset.repo}: {self.file.path} arrived twice with another hash than the lock's. "
            "The mirror or a proxy alters it: try another HF_ENDPOINT; nothing of it was kept"
        )

    def _complete(self, partial: Path) -> None:
        """Extend `partial` to the file's full size, with patience while it grows."""
        tries, pause = 0, self.patience.pause
        while True:
            size = partial.stat().st_size if partial.exists() else 0
            if size == self.file.size and partial.exists():
                return
            if size > self.file.size:
                partial.unlink()
                continue
            problem = self._once(partial, size)
            if problem is None:
                continue
            grown = partial.exists() and partial.stat().st_size > size
            tries = 1 if grown else tries + 1
            if tries >= self.patience.tries:
                raise problem
            time.sleep(pause)
            pause = pause if grown else 2 * pause

    def _once(self, partial: Path, size: int) -> HubError | None:
        """One request from byte `size` on; an error that may pass is returned, one that will not is raised."""
        repository, path = self.asset.repository, self.file.path
        try:
            url = repository.file(self.commit, path)
            headers = {"Range": f"bytes={size}-"} if size else {}
            with self.http.stream("GET", url, headers=headers) as answer:
                if answer.status_code >= 500:
                    return refusal(answer, repository, path)
                if answer.status_code not in (200, 206):
                    raise refusal(answer, repository, path)
                again = size and answer.status_code == 200  # the server does not know ranges
                with partial.open("wb" if again else "ab") as file:
                    for chunk in answer.iter_raw():
                        if self.stop.is_set():
                            raise _Stopped(f"{path}: stopped")
                        file.write(chunk)
                        self.count(len(chunk))
        except httpx2.HTTPError as error:
            if partial.exists() and partial.stat().st_size:
                return HubError(
                    f"{self.asset.repo}: {path} breaks off again and again ({type(error).__name__}) after "
                    f"{partial.stat().st_size:,} of {self.file.size:,} bytes, which are kept. Run again to go on"
                )
            return unreachable(repository, error)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise _disk_full(self.folder, f"{path} has {self.file.size:,} bytes") from None
            raise
        if partial.stat().st_size < self.file.size:
            return HubError(
                f"{self.asset.repo}: {path} ends after {partial.stat().st_size:,} of {self.file.size:,} bytes"
            )
        return None
