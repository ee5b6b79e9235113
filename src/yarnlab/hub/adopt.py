"""Copy an asset from a folder of this machine: every byte is hashed, as that of a download is.

A copy, not a link: weights that are linked would change under finished models when somebody edits the folder in place.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yarnlab.hub.download import partial
from yarnlab.hub.errors import HubError
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.fetch import Fetched
from yarnlab.hub.gguf import Declared, convert, finished, named
from yarnlab.hub.local import LocalAsset, content_of
from yarnlab.hub.lock import LockedFile
from yarnlab.hub.record import Folder
from yarnlab.hub.selection import weights
from yarnlab.progress import Progress

_AGAIN = "leave it alone for a while, and run the same command again"


def adopt(
    asset: LocalAsset,
    folder: Path,
    *,
    expected: str | None = None,
    declared: Declared | None = None,
    log: Path | None = None,
) -> Fetched:
    """Bring `folder` to what the asset's folder holds, every byte hashed; .bin weights become safetensors.

    A GGUF file is converted once (gguf.py); `declared` is what the study says of it.

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
        origin = {"type": asset.type, "path": asset.path, "content": found, "sources": sources}
        if asset.gguf:
            return _converted(asset, folder, origin, declared or Declared(), say)
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
        record = there.complete(origin, wanted, bins)
        say(f"{len(record['files'])} files of {asset.folder} are there and right")
    return Fetched.of(found, folder, record)


def _converted(
    asset: LocalAsset, folder: Path, origin: dict[str, Any], declared: Declared, say: Callable[[str], None]
) -> Fetched:
    """The checkpoint that a GGUF file holds; a file that changes while it is read is refused."""
    (source,) = asset.names()
    if (record := finished(folder, origin, declared)) is None:
        say(f"dequantising {source}")
        record = convert(asset.folder / source, origin["sources"][source]["sha256"], folder, origin, declared)
        if content_of(asset.read()) != origin["content"]:
            (folder / "asset.json").unlink()
            raise HubError(f"{asset.folder / source} has changed while it was read: {_AGAIN}")
    made = record["conversions"][0]
    say(f"{source} ({named(made)}) is there as {made['file']}")
    return Fetched.of(origin["content"], folder, record)
