"""config/hub.lock.yaml: which commit every asset is, and the size and hash of each file that is fetched from it.

Large files have the sha256 that the hub lists; small ones have git's sha1 of their content, so that locking needs no
download. Nobody but pin.py changes an entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.hub.errors import HubError
from yarnlab.hub.selection import check_name, choose
from yarnlab.provenance import project_root, replacing

HEADER = """\
# Every download, pinned: `yarnlab lock STUDY` writes this file, every fetch verifies each byte against it. Commit it.
# Per asset: the commit that its revision stood for, which files were asked for ([] = the usual ones), and of each file
# the size in bytes with sha256 (of the content) or git_sha1 (of git's blob).
"""
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Asset:
    """A repository at one revision, as a study declares it; `files` are shell patterns, () the usual ones."""

    type: str
    repo: str
    revision: str
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its entry in the lock."""
        return f"{self.type}:{self.repo}@{self.revision}"


def hub_assets(assets: Mapping[str, Any]) -> dict[str, Asset]:
    """Name → repository of those assets of a study (study.data.Asset) that come from the hub."""
    return {
        name: Asset(asset.type, asset.repo, asset.revision, asset.files or ())
        for name, asset in assets.items()
        if asset.repo is not None
    }


@dataclass(frozen=True)
class LockedFile:
    """One file's size in bytes and hash; exactly one of the hashes is known."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def digest(self) -> str:
        return self.sha256 or self.git_sha1 or ""

    def hasher(self) -> hashlib._Hash:
        """A hash that has read nothing of the content yet."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)  # git's name for the content

    def is_at(self, path: Path) -> bool:
        """Whether the file on disk is this one, to the last byte."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.hasher).hexdigest() == self.digest


@dataclass(frozen=True)
class Locked:
    """A commit, the selections of files that were looked up at it, and those files by path."""

    commit: str
    selections: frozenset[tuple[str, ...]]
    files: Mapping[str, LockedFile]

    def of(self, asset: Asset) -> list[LockedFile]:
        """What `asset` needs, sorted by path."""
        return [self.files[path] for path in choose(self.files, asset.repo, asset.type, asset.files)]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files.values())


def lock_file() -> Path:
    """The lock of the project: config/hub.lock.yaml, or YARNLAB_HUB_LOCK."""
    chosen = os.environ.get("YARNLAB_HUB_LOCK")
    return Path(chosen) if chosen else project_root() / "config" / "hub.lock.yaml"


def read_lock(path: Path) -> dict[str, Locked]:
    """Asset key → what is pinned; {} without a file. Raises HubError for a file that is not a lock."""
    import yaml

    if not path.exists():
        return {}
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) or {}
        return {str(key): _entry(value) for key, value in content.items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, HubError) as error:
        why = " ".join(str(error).split())
        raise HubError(f"{path} cannot be read ({why}): restore it from git, or remove it and lock again") from None


def _entry(value: dict[str, Any]) -> Locked:
    files = {}
    for path, fields in value["files"].items():
        check_name(path, "the lock")
        file = files[path] = LockedFile(path, **fields)
        if not isinstance(file.size, int) or len(file.digest) != (64 if file.sha256 else 40):
            raise ValueError(f"{path} has no valid size and hash")
    if not COMMIT.fullmatch(value["commit"]):
        raise ValueError(f"{value['commit']!r} is no commit")
    return Locked(value["commit"], frozenset(tuple(patterns) for patterns in value["selections"]), files)


def write_lock(path: Path, entries: Mapping[str, Locked]) -> None:
    """Sorted, a line a file, strings quoted: hashes of digits alone would be numbers."""
    lines = []
    for key, locked in sorted(entries.items()):
        selections = ", ".join(json.dumps(list(patterns)) for patterns in sorted(locked.selections))
        lines += [f"{json.dumps(key)}:", f'  commit: "{locked.commit}"', f"  selections: [{selections}]", "  files:"]
        for name, file in sorted(locked.files.items()):
            hashed = f'sha256: "{file.sha256}"' if file.sha256 else f'git_sha1: "{file.git_sha1}"'
            lines.append(f"    {json.dumps(name)}: {{size: {file.size}, {hashed}}}")
    with replacing(path) as temporary:
        temporary.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
