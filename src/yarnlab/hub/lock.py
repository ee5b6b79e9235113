"""config/hub.lock.yaml: which commit every asset is, and the size and hash of each file that is fetched from it.

Large files have the sha256 that the hub lists; small ones have git's sha1 of their content. An entry, once written, is
never changed by a fetch: a branch that moves on is followed only when somebody locks it again.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from yarnlab.hub.api import HubError, Repository, client, commit_of, tree
from yarnlab.provenance import replacing

HEADER = """\
# Every download, pinned: `yarnlab lock STUDY` writes this file, every fetch verifies against it.
# sha256 is that of the content, git_sha1 that of git's blob.
"""
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
OLD_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
# What could run code when it is loaded; plain tensors in .bin files are converted (convert.py).
REFUSED = ("*.py", "*.pkl", "*.pickle", "*.pt", "*.pth", "*.ckpt", "*.joblib", "*.msgpack", "*.h5")


@dataclass(frozen=True)
class Asset:
    """A repository at one revision, as a study declares it; `files` are shell patterns, () the usual ones."""

    type: str
    repo: str
    revision: str
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        chosen = f"#{','.join(self.files)}" if self.files else ""
        return f"{self.type}:{self.repo}@{self.revision}{chosen}"

    @property
    def repository(self) -> Repository:
        return Repository(self.type, self.repo)


@dataclass(frozen=True)
class LockedFile:
    """One file's size in bytes and hash; exactly one of the hashes is known."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Locked:
    """An asset's commit and files."""

    commit: str
    files: tuple[LockedFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def read_lock(lock_file: Path) -> dict[str, Locked]:
    """Asset key → what is pinned. Raises HubError for a file that is not a lock."""
    if not lock_file.exists():
        return {}
    try:
        content = yaml.safe_load(lock_file.read_text(encoding="utf-8")) or {}
        return {key: _entry(value) for key, value in content.items()}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{lock_file} cannot be read ({error}): restore it, or remove it and lock again") from None


def lock_assets(assets: Iterable[Asset], lock_file: Path, *, update: bool = False) -> list[Asset]:
    """Pin what is not pinned yet (with `update`, everything anew); returns the assets that were.

    Only metadata is fetched. Two processes may do this at once. Raises HubError.
    """
    wanted = [asset for asset in assets if update or asset.key not in read_lock(lock_file)]
    if not wanted:
        return []
    with client() as http:
        found = {asset.key: _resolve(http, asset) for asset in wanted}
    with _exclusive(lock_file):
        known = read_lock(lock_file)
        for key, locked in found.items():
            if update or key not in known:
                known[key] = locked
        _write(lock_file, known)
    return wanted


def _resolve(http: Any, asset: Asset) -> Locked:
    pinned = re.fullmatch(r"[0-9a-f]{40}", asset.revision) is not None
    commit = asset.revision if pinned else commit_of(http, asset.repository, asset.revision)
    listed = tree(http, asset.repository, commit)
    names = set(choose([entry["path"] for entry in listed], asset))
    files = [_file(entry) for entry in listed if entry["path"] in names]
    return Locked(commit, tuple(sorted(files, key=lambda file: file.path)))


def choose(paths: list[str], asset: Asset) -> list[str]:
    """The files of a repository that an asset needs. Raises HubError where there are none or they can't be trusted."""
    if asset.files:
        chosen = [path for path in paths if _matches(path, asset.files)]
        if bad := [path for path in chosen if _matches(path, REFUSED)]:
            raise HubError(
                f"{asset.repo}: {bad[0]} could run code when it is loaded and is never fetched; narrow `files`"
            )
    elif asset.type == "dataset":
        chosen = [path for path in paths if not _matches(path, REFUSED) and not path.startswith(".")]
    else:
        top = [path for path in paths if "/" not in path]
        weights = [path for path in top if _matches(path, WEIGHTS)] or [p for p in top if _matches(p, OLD_WEIGHTS)]
        chosen = [path for path in top if _matches(path, MODEL_FILES)] + weights
        if not weights:
            raise HubError(f"{asset.repo} has neither safetensors nor pytorch_model.bin weights at this commit")
    if not chosen:
        raise HubError(f"{asset.repo} has no file that matches {', '.join(asset.files) or 'the usual names'}")
    return sorted(chosen)


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _file(entry: dict[str, Any]) -> LockedFile:
    lfs = entry.get("lfs")
    if lfs:
        return LockedFile(entry["path"], int(lfs["size"]), sha256=lfs.get("oid") or lfs["sha256"])
    return LockedFile(entry["path"], int(entry["size"]), git_sha1=entry["oid"])


def _entry(value: dict[str, Any]) -> Locked:
    files = tuple(LockedFile(path, **fields) for path, fields in value["files"].items())
    return Locked(value["commit"], files)


def _write(lock_file: Path, entries: dict[str, Locked]) -> None:
    content = {
        key: {
            "commit": locked.commit,
            "files": {
                file.path: {"size": file.size}
                | ({"sha256": file.sha256} if file.sha256 else {"git_sha1": file.git_sha1})
                for file in locked.files
            },
        }
        for key, locked in sorted(entries.items())
    }
    with replacing(lock_file) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, width=120) if content else ""
        temporary.write_text(HEADER + text, encoding="utf-8")


@contextmanager
def _exclusive(lock_file: Path) -> Iterator[None]:
    """Hold the lock file's folder, so that two processes that lock at once lose nothing."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(lock_file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
