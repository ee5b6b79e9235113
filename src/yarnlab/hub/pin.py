"""Pinning: which commit a revision stands for now, and the size and hash of each file that is needed, into the lock.

A pinned branch that moves on is followed only with `update`. Only metadata is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yarnlab.hub.client import Hub, Patience
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.lock import COMMIT, Asset, Locked, LockedFile, read_lock, write_lock
from yarnlab.hub.selection import choose


def lock_assets(
    assets: Iterable[Asset], lock_file: Path, *, update: bool = False, patience: Patience | None = None
) -> list[Asset]:
    """Pin what is not pinned yet, with `update` everything anew; returns the assets that were.

    Two processes may do this at once: the first to write an entry decides. More files of a commit that is pinned
    already are looked up at that commit. Raises HubError.
    """
    known = read_lock(lock_file)
    wanted = [a for a in assets if update or a.key not in known or a.files not in known[a.key].selections]
    if not wanted:
        return []
    hub = Hub(patience)
    found: list[tuple[Asset, Locked]] = []
    for asset in wanted:
        commit = None if update or asset.key not in known else known[asset.key].commit
        found.append((asset, _resolve(hub, asset, commit)))
    with exclusively(lock_file.with_name(f".{lock_file.name}.lock")):
        entries = read_lock(lock_file)
        for asset, locked in found:
            entries[asset.key] = _merged(hub, asset, entries.get(asset.key), locked, update)
        write_lock(lock_file, entries)
    return wanted


def _resolve(hub: Hub, asset: Asset, commit: str | None) -> Locked:
    if commit is None:
        commit = asset.revision if COMMIT.fullmatch(asset.revision) else hub.commit(asset)
    listed = {entry["path"]: entry for entry in hub.tree(asset, commit)}
    chosen = choose(listed, asset.repo, asset.type, asset.files)
    return Locked(commit, frozenset([asset.files]), {path: _listed(listed[path]) for path in chosen})


def _merged(hub: Hub, asset: Asset, there: Locked | None, found: Locked, update: bool) -> Locked:
    """An entry with `found` in it; the commit that is there stays, unless `update` found another."""
    if there is None or (update and there.commit != found.commit):
        return found
    if there.commit != found.commit:  # another process was first, and the branch moved between the two
        found = _resolve(hub, asset, there.commit)
    return Locked(there.commit, there.selections | found.selections, {**there.files, **found.files})


def _listed(entry: dict[str, Any]) -> LockedFile:
    lfs = entry.get("lfs")
    if lfs:
        return LockedFile(entry["path"], int(lfs["size"]), sha256=lfs.get("oid") or lfs["sha256"])
    return LockedFile(entry["path"], int(entry["size"]), git_sha1=entry["oid"])
