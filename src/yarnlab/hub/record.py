"""An asset's folder and its `asset.json`: what the files are, and what was made of which.

While files are being replaced there is no asset.json but `.placed.json`: the names that any unfinished fetch has put
here, and its conversions. The next fetch that succeeds removes the names that are not its own, so that no shard of
another revision lingers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yarnlab.hub.convert import convert, target_name, write_index
from yarnlab.hub.download import disk_full, partial
from yarnlab.hub.errors import HubError, some
from yarnlab.hub.lock import LockedFile
from yarnlab.provenance import read_json, sha256_of, write_json
from yarnlab.weights import INDEX, weight_map

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
        if made is None or made["source_sha256"] != wanted.sha256:
            return False
        file = self.path / made["file"]
        return file.is_file() and sha256_of(file) == made["sha256"]

    def place(self, name: str, names: Iterable[str]) -> None:
        """Give a finished download its name; `names` are all that this fetch is going to place."""
        self._open(names)
        partial(self.path / name).replace(self.path / name)

    def missing(self, wanted: list[LockedFile], workers: int = 1) -> list[LockedFile]:
        """What is not there or not right. A .bin counts as there if what was made of it is."""

        def right(file: LockedFile) -> bool:
            return file.is_at(self.path / file.path) or self.has_converted(file)

        with ThreadPoolExecutor(workers) as pool:
            return [file for file, good in zip(wanted, pool.map(right, wanted), strict=True) if not good]

    def check_space(self, name: str, missing: list[LockedFile], bins: set[str]) -> None:
        """HubError if the disk does not hold what is missing of the asset called `name`."""
        have = sum(p.stat().st_size for f in missing if (p := partial(self.path / f.path)).is_file())
        # A .bin goes only when its conversion is recorded: for a while both are there.
        needed = sum(file.size * (2 if file.path in bins else 1) for file in missing) - have
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise disk_full(self.path, f"{name} needs {needed / 1e9:,.1f} GB more and {free / 1e9:,.1f} GB are free")

    def check_index(self, name: str, type: str, wanted: list[LockedFile]) -> None:
        """HubError unless every shard that an index of weights names is among the files."""
        names = {file.path for file in wanted}
        listed = weight_map(self.path / INDEX) if type == "model" and INDEX in names else {}
        if lost := sorted(set(listed.values()) - names):
            raise HubError(
                f"{name}: {INDEX} names {some(lost)}, which are not among its files: it is incomplete, or the "
                "asset's `files` leave them out"
            )

    def complete(self, origin: dict[str, Any], wanted: list[LockedFile], bins: set[str]) -> dict[str, Any]:
        """Convert what has to be, write asset.json, remove what belongs to no file of it; returns its content.

        origin: what asset.json says of where the files come from.
        """
        made = [self._converted(file) for file in wanted if file.path in bins]
        hashes = {file.path: file.sha256 for file in wanted if file.path not in bins}
        hashes |= {conversion["file"]: conversion["sha256"] for conversion in made}
        if len(made) > 1:
            hashes[write_index(self.path, [conversion["file"] for conversion in made]).name] = None
        record = {
            **origin,
            "files": {
                name: {
                    "size": (self.path / name).stat().st_size,
                    "sha256": hashes[name] or sha256_of(self.path / name),
                }
                for name in sorted(hashes)
            },
            "conversions": made,
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

    def _before(self) -> dict[str, Any]:
        """What is recorded of the folder, by an unfinished fetch or else by the last one that finished."""
        return read_json(self._unfinished) or read_json(self._finished)

    def _conversions(self) -> dict[str, dict[str, str]]:
        """Source → what was made of it (a Conversion's fields)."""
        return {conversion["source"]: conversion for conversion in self._before().get("conversions", ())}

    def _converted(self, file: LockedFile) -> dict[str, str]:
        source, target = self.path / file.path, self.path / target_name(file.path)
        known = self._conversions()
        if not source.exists() or self.has_converted(file):  # without a source, has_converted was asked before
            return known[file.path]
        self._open([file.path, target.name])
        known[file.path] = asdict(convert(source, file.sha256 or sha256_of(source), target))
        self._open([], list(known.values()))
        return known[file.path]

    def _open(self, names: Iterable[str], conversions: list[dict[str, str]] | None = None) -> None:
        """From here on the folder is not whole."""
        before = self._before()
        now = {
            "files": sorted({*before.get("files", ()), *names}),
            "conversions": before.get("conversions", []) if conversions is None else conversions,
        }
        if now != before:
            write_json(self._unfinished, now)
        self._finished.unlink(missing_ok=True)
