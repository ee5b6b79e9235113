"""An asset's folder and its `asset.json`: what the files are, and what was made of which.

While files are being replaced there is no asset.json but `.placed.json`: the names that any unfinished fetch has put
here, and its conversions. The next fetch that succeeds removes the names that are not its own, so that no shard of
another revision lingers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from yarnlab.hub.convert import Conversion, convert, target_name, write_index
from yarnlab.hub.lock import Asset, LockedFile
from yarnlab.hub.transfer import partial
from yarnlab.provenance import read_json, sha256_of, write_json


@dataclass(frozen=True)
class Record:
    """asset.json: of each file its size in bytes and sha256."""

    commit: str
    files: dict[str, tuple[int, str]]
    conversions: tuple[Conversion, ...] = ()


@dataclass
class Folder:
    """The folder of one asset, held by one process."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

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
        with self._lock:
            self._open(names)
            partial(self.path / name).replace(self.path / name)

    def complete(self, asset: Asset, commit: str, wanted: list[LockedFile], bins: set[str]) -> Record:
        """Convert what has to be, write asset.json, and remove what belongs to no file of it."""
        conversions = [self._converted(file) for file in wanted if file.path in bins]
        made = [conversion.file for conversion in conversions]
        names = {file.path for file in wanted} - bins
        if len(made) > 1:
            names.add(write_index(self.path, made).name)
        hashes = {file.path: file.sha256 for file in wanted} | {c.file: c.sha256 for c in conversions}
        files = {
            name: ((self.path / name).stat().st_size, hashes.get(name) or sha256_of(self.path / name))
            for name in sorted({*names, *made})
        }
        record = Record(commit, files, tuple(conversions))
        self._write(asset, record)
        self._tidy(record)
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
        self._open([file.path, target_name(file.path)])
        conversion = convert(source, file.sha256 or sha256_of(source), self.path / target_name(file.path))
        self._open([], conversion)
        return conversion

    def _open(self, names: Iterable[str], *conversions: Conversion) -> None:
        """From here on the folder is not whole."""
        before, finished = read_json(self._unfinished), read_json(self._finished)
        placed = set(before.get("files") or ()) | set(finished.get("files") or ()) | set(names)
        known = self._conversions() | {conversion.source: conversion for conversion in conversions}
        now = {"files": sorted(placed), "conversions": [known[source].as_dict() for source in sorted(known)]}
        if now != before:
            write_json(self._unfinished, now)
        self._finished.unlink(missing_ok=True)

    def _write(self, asset: Asset, record: Record) -> None:
        content = {
            "type": asset.type,
            "repo": asset.repo,
            "revision": asset.revision,
            "commit": record.commit,
            "files": {name: {"size": size, "sha256": digest} for name, (size, digest) in record.files.items()},
            "conversions": [conversion.as_dict() for conversion in record.conversions],
        }
        if content != read_json(self._finished):
            write_json(self._finished, content)

    def _tidy(self, record: Record) -> None:
        if self._unfinished.exists():
            for name in set(read_json(self._unfinished).get("files") or ()) - set(record.files):
                (self.path / name).unlink(missing_ok=True)
            for left in self.path.rglob("*.partial"):
                left.unlink()
            self._unfinished.unlink()
