"""An asset that lies in a folder of this machine: which of its files are taken, and what they hold.

The hash of the content is in the asset's section of the study, so an edit of the folder is noticed at the next start
and what depends on the asset is made again. Imported at every start, so without the hub's client.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from yarnlab.hub.errors import HubError
from yarnlab.hub.selection import choose, weights
from yarnlab.provenance import project_root, read_json, sha256_of
from yarnlab.weights import is_gguf

TOKENIZER = "tokenizer.json"
Sources: TypeAlias = dict[str, dict[str, Any]]  # name → size, mtime_ns and sha256, in the order of names


@dataclass(frozen=True)
class LocalAsset:
    """A folder, or one GGUF file, as a study declares it.

    `path` is relative to the project's folder, absolute, or begins with `~`.
    """

    type: str
    path: str
    files: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._place.parent if self.gguf else self._place

    @property
    def gguf(self) -> bool:
        """Whether it is one GGUF file, which is converted, and not a folder."""
        return is_gguf(self.path)

    @property
    def _place(self) -> Path:
        return project_root() / os.path.expanduser(self.path)

    def names(self) -> list[str]:
        """Its files, sorted, chosen as those of a repository are. HubError says what is missing or no such folder."""
        where = "" if os.path.isabs(os.path.expanduser(self.path)) else f", relative to {project_root()}"
        if self.gguf:
            if not self._place.is_file():
                raise HubError(f"path {self.path}: there is no file {self._place}; give the GGUF file{where}")
            return [self._place.name]
        if not self.folder.is_dir():
            raise HubError(f"path {self.path}: {self.folder} is no folder; give the folder of the asset's files{where}")
        found = [file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file()]
        names = choose(found, str(self.folder), self.type, self.files)
        if self.type == "model" and not self.files:
            there = {"config.json": "config.json" in names, TOKENIZER: TOKENIZER in names}
            there["weights (*.safetensors)"] = any(n.endswith(".safetensors") for n in names) or bool(weights(names))
            if lacking := [what for what, found in there.items() if not found]:
                raise HubError(
                    f"{self.folder} lacks {' and '.join(lacking)}: save the model and its tokenizer there with "
                    "`save_pretrained`, or name the files that it has with the asset's `files`"
                )
        return names

    def size(self) -> int:
        """Bytes of its files."""
        return sum((self.folder / name).stat().st_size for name in self.names())

    def read(self, known: Sources | None = None) -> Sources:
        """Its files by name, hashed but for those that are `known` at this size and time of change."""
        return hashed({name: self.folder / name for name in self.names()}, known or {})


def local_assets(assets: Mapping[str, Any]) -> dict[str, LocalAsset]:
    """Name → folder of those assets of a study (study.data.Asset) that lie on this machine."""
    return {
        name: LocalAsset(asset.type, asset.path, asset.files or ())
        for name, asset in assets.items()
        if asset.path is not None
    }


def hashed(files: Mapping[str, Path], known: Sources) -> Sources:
    """The files by name, read but for those that are `known` at this size and time of change."""
    read: Sources = {}
    for name, file in files.items():
        now, before = file.stat(), known.get(name, {})
        read[name] = {"size": now.st_size, "mtime_ns": now.st_mtime_ns}
        same = {key: before.get(key) for key in read[name]} == read[name]
        read[name]["sha256"] = before["sha256"] if same else sha256_of(file)
    return read


def content_of(sources: Sources) -> str:
    """One hash for names and bytes."""
    return hashlib.sha256(json.dumps([[name, file["sha256"]] for name, file in sources.items()]).encode()).hexdigest()


def content(asset: LocalAsset, copy: Path) -> str:
    """The hash of what is in the asset's folder now; asset.json in its copy has what was read of it before."""
    return content_of(asset.read(read_json(copy / "asset.json").get("sources")))
