"""An asset's folder and its `asset.json`: what the files are, and what was made of which.

While files are being replaced there is no asset.json but `.placed.json`: the names that any unfinished fetch has put
here, and its conversions. The next fetch that succeeds removes the names that are not its own, so that no shard of
another revision lingers.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yarnlab.hub.convert import Conversion, convert, target_name, write_index
from yarnlab.hub.download import partial
from yarnlab.hub.lock import Asset, LockedFile
from yarnlab.provenance import read_json, sha256_of, write_json

# What killed processes leave: beginnings of downloads, and of conversions (provenance.replacing).
LEFTOVERS = ("*.partial", ".*.safetensors")


@dataclass(frozen=True)
class Folder:
    """The folder of one asset, held by one process."""

    path: Path

    @property
    def _finished(self) -> Path:
        return self.path / "asset.json"

    @property
    def _unfinished(self) -> Path:
        return self.path / ".placed.json"

    def has_converted(self, wanted: LockedFile) -> bool:
        """Whether the safetensors file that was made of this .bin is there, to the last byte."""
        made = self._conversions().get(wanted.path)
        if made is None or made.source_sha256 != wanted.sha256:
            return False
        file = self.path / made.file
        return file.is_file() and sha256_of(file) == made.sha256

    def place(self, name: str, names: Iterable[str]) -> None:
        """Give a finished download its name; `names` are all that this fetch is going to place."""
        self._open(names)
        partial(self.path / name).replace(self.path / name)

    def complete(self, asset: Asset, commit: str, wanted: list[LockedFile], bins: set[str]) -> dict[str, Any]:
        """Convert what has to be, write asset.json, remove what belongs to no file of it; returns its content."""
        made = [self._converted(file) for file in wanted if file.path in bins]
        hashes = {file.path: file.sha256 for file in wanted if file.path not in bins} | {c.file: c.sha256 for c in made}
        if len(made) > 1:
            hashes[write_index(self.path, [conversion.file for conversion in made]).name] = None
        record = {
            "type": asset.type,
            "repo": asset.repo,
            "revision": asset.revision,
            "commit": commit,
            "files": {
                name: {
                    "size": (self.path / name).stat().st_size,
                    "sha256": hashes[name] or sha256_of(self.path / name),
                }
                for name in sorted(hashes)
            },
            "conversions": [asdict(conversion) for conversion in made],
        }
        if record != read_json(self._finished):
            write_json(self._finished, record)
        for name in set(read_json(self._unfinished).get("files") or ()) - set(hashes):
            (self.path / name).unlink(missing_ok=True)
        for pattern in LEFTOVERS:
            for left in self.path.rglob(pattern):
                left.unlink()
        self._unfinished.unlink(missing_ok=True)
        return record

    def _conversions(self) -> dict[str, Conversion]:
        """Source → what was made of it, by the last finished fetch and by unfinished ones since."""
        found = {}
        for file in (self._finished, self._unfinished):
            for entry in read_json(file).get("conversions") or ():
                with suppress(TypeError):
                    conversion = Conversion(**entry)
                    found[conversion.source] = conversion
        return found

    def _converted(self, file: LockedFile) -> Conversion:
        source = self.path / file.path
        if not source.exists() or self.has_converted(file):  # without a source, has_converted was asked before
            return self._conversions()[file.path]
        target = self.path / target_name(file.path)
        self._open([file.path, target.name])
        conversion = convert(source, file.sha256 or sha256_of(source), target)
        self._open([], conversion)
        return conversion

    def _open(self, names: Iterable[str], *conversions: Conversion) -> None:
        """From here on the folder is not whole."""
        before, finished = read_json(self._unfinished), read_json(self._finished)
        placed = {*(before.get("files") or ()), *(finished.get("files") or ()), *names}
        known = self._conversions() | {conversion.source: conversion for conversion in conversions}
        now = {"files": sorted(placed), "conversions": [asdict(known[source]) for source in sorted(known)]}
        if now != before:
            write_json(self._unfinished, now)
        self._finished.unlink(missing_ok=True)
