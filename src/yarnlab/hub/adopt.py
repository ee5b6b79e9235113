"""Copy an asset from a folder of this machine: every byte is hashed, as that of a download is.

A copy, not a link: weights that are linked would change under finished models when somebody edits the folder in place.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from yarnlab.hub.download import partial
from yarnlab.hub.errors import HubError
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.fetch import Fetched
from yarnlab.hub.local import LocalAsset, content_of
from yarnlab.hub.lock import LockedFile
from yarnlab.hub.record import Folder
from yarnlab.hub.selection import weights
from yarnlab.progress import Progress

_AGAIN = "leave it alone for a while, and run the same command again"


def adopt(asset: LocalAsset, folder: Path, *, expected: str | None = None, log: Path | None = None) -> Fetched:
    """Bring `folder` to what the asset's folder holds, every byte hashed; .bin weights become safetensors.

    HubError if the content is not the `expected` one, since it has changed after the study was read.
    """
    say = Progress(f"copy {asset.path}", 1, log=log).say
    with exclusively(folder / ".fetch.lock", waiting=lambda: say("another process copies it too: waiting for that")):
        sources, there = asset.read(), Folder(folder)
        wanted = [LockedFile(name, file["size"], sha256=file["sha256"]) for name, file in sources.items()]
        found = content_of(sources)
        if expected is not None and found != expected:
            raise HubError(f"{asset.folder} has changed since this run started: {_AGAIN}")
        bins = set(weights(file.path for file in wanted)) if asset.type == "model" else set()
        missing = there.missing(wanted)
        there.check_space(asset.path, missing, bins)
        for file in missing:
            source, target = asset.folder / file.path, folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial(target))
            if not file.is_at(partial(target)):
                raise HubError(f"{source} has changed while it was copied: {_AGAIN}")
            there.place(file.path, sources)
        there.check_index(asset.path, asset.type, wanted)
        origin = {"type": asset.type, "path": asset.path, "content": found, "sources": sources}
        record = there.complete(origin, wanted, bins)
        say(f"{len(record['files'])} files of {asset.folder} are there and right")
    return Fetched.of(found, folder, record)
