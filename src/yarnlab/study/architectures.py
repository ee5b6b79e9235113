"""config/architectures.lock.yaml: the shape of models as their config.json has it, so that no study need repeat it.

`yarnlab new` and `yarnlab lock` write it (new/parent.py): what a config leaves to its class only transformers knows,
which takes seconds to start, and a study is read at the start of every job. Commit it beside the study.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yarnlab.provenance import project_root, replacing
from yarnlab.study.fields import near
from yarnlab.study.read import Lines, StudyError

STUDIES = project_root() / "config" / "studies"
HEADER = """\
# What models' config.json say of their shape, by folder or repository@revision: a study takes from here what the `hub`
# of its models does not say. `yarnlab new` and `yarnlab lock` write this file; commit it.
"""


def architectures_file() -> Path:
    """The record of the project; beside the lock of the hub that YARNLAB_HUB_LOCK names."""
    lock = os.environ.get("YARNLAB_HUB_LOCK")
    return (Path(lock).parent if lock else project_root() / "config") / "architectures.lock.yaml"


def read_architectures() -> dict[str, dict[str, Any]]:
    """Asset → `architecture`, `vocab_size` and `config_sha256`. Raises StudyError for a file that can't be read."""
    import yaml

    file = architectures_file()
    if not file.exists():
        return {}
    try:
        found: dict[str, dict[str, Any]] = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader) or {}
        for entry in found.values():
            entry["architecture"].items(), entry["vocab_size"], entry["config_sha256"]
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise StudyError(f"{file}: can't be read ({' '.join(str(error).split())}): restore it, or remove it") from None
    return found


def record(key: str, architecture: Mapping[str, Any], vocab_size: int, config: bytes) -> None:
    """Write an asset's entry; `config` is the content of its config.json."""
    entry = {"vocab_size": vocab_size, "config_sha256": hashlib.sha256(config).hexdigest()}
    known = read_architectures() | {key: {**entry, "architecture": dict(architecture)}}
    with replacing(architectures_file()) as temporary:
        # Letters as they are: YAML has no pairs of escapes for those beyond 16 bits.
        lines = [f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(known[name])}\n" for name in sorted(known)]
        temporary.write_text(HEADER + "".join(lines), encoding="utf-8")


def key_of(asset: Mapping[str, Any]) -> str:
    """An asset's entry, from its keys in a study file."""
    return str(asset["path"]) if asset.get("path") else f"{asset.get('repo')}@{asset.get('revision')}"


def local_config(asset: Mapping[str, Any]) -> Path | None:
    """The config.json of an asset of this machine."""
    return project_root() / os.path.expanduser(str(asset["path"])) / "config.json" if asset.get("path") else None


def unstated(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(model, its `hub`, its asset) of those models of a study file that do not say their shape themselves."""
    models, assets = data.get("models"), data.get("assets") or {}
    for arm, model in models.items() if isinstance(models, dict) and isinstance(assets, dict) else ():
        hub = model.get("hub") if isinstance(model, dict) else None
        if isinstance(hub, dict) and "asset" in hub and not ("architecture" in hub and "vocab_size" in hub):
            asset = assets.get(hub["asset"], {})
            if isinstance(asset, dict):
                yield arm, hub, asset


def complete(data: dict[str, Any], lines: Lines, file: Path) -> None:
    """Put into a study file's content what it leaves to the record: `architecture` and `vocab_size` of models.

    Raises StudyError where the record lacks a model, or is of another config.json than the folder's.
    """
    for arm, hub, asset in unstated(data):
        where = f"{lines.get(('models', arm, 'hub'), f'{file}:1')}: models.{arm}.hub"
        again = f"run `yarnlab lock {file.stem if file.parent == STUDIES else file}`, which reads config.json"
        if not asset:
            raise StudyError(
                f"{where}.asset: there is no asset {hub['asset']!r}{near(hub['asset'], data.get('assets') or ())}"
            )
        entry = read_architectures().get(key_of(asset))
        missing = next(key for key in ("architecture", "vocab_size") if key not in hub)
        if asset.get("wheel"):
            raise StudyError(f"{where}.{missing}: is missing: nothing is recorded of models in a wheel")
        if entry is None:
            raise StudyError(f"{where}.{missing}: is missing, and of {key_of(asset)} it is not recorded: {again}")
        config = local_config(asset)
        found = hashlib.sha256(config.read_bytes()).hexdigest() if config is not None and config.is_file() else None
        if found not in (None, entry["config_sha256"]):
            raise StudyError(f"{where}: {config} has changed since its shape was recorded: {again} again")
        given = hub.get("architecture", {})
        if isinstance(given, dict):
            hub["architecture"] = {**entry["architecture"], **given}
        hub.setdefault("vocab_size", entry["vocab_size"])
