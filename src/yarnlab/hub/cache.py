"""Files that huggingface_hub has downloaded already, taken over if they are right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from yarnlab.hub import settings
from yarnlab.hub.lock import Asset, LockedFile
from yarnlab.hub.transfer import is_right, partial


def cached(asset: Asset, commit: str, wanted: LockedFile) -> Path | None:
    """The cache's copy of a file, if there is one and every byte of it is right."""
    repository = f"{asset.type}s--{asset.repo.replace('/', '--')}"
    path = settings.cache() / repository / "snapshots" / commit / wanted.path
    return path if is_right(path, wanted) else None


def take_over(source: Path, wanted: LockedFile, target: Path) -> bool:
    """Put the cache's file to `partial(target)`: a link where the file system allows, else a copy that is checked."""
    place = partial(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), place)  # the snapshot holds symbolic links into the cache's blobs
        return True
    except OSError:
        shutil.copyfile(source, place)
        return is_right(place, wanted)
