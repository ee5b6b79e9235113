"""The model that is to be extended: what its config.json says of its shape, its rope and its window."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import BeginsTurn, check_vocabulary, special_ids
from yarnlab.errors import UserError
from yarnlab.hub.gguf import WORDS, read_words
from yarnlab.provenance import project_root
from yarnlab.rope import Rope, Temperature, options
from yarnlab.study import architectures
from yarnlab.study.schema import Architecture
from yarnlab.weights import is_gguf

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TOKENIZER = "tokenizer.json"


class NewError(UserError):
    """A study that can't be written as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Parent:
    """A model that can be extended.

    asset: its keys in a study. architecture, vocab_size: its shape. rope: what a study declares of its own rope, None
    for plain RoPE. window: the tokens that it reads as it is. ignored: keys of config.json to leave out. trainable: not
    so for experts. attends: the tokens that each layer sees, where all see no more than so many. files: WORDS by name,
    those that it has.
    """

    asset: dict[str, Any]
    architecture: Architecture
    vocab_size: int
    rope: dict[str, Any] | None
    window: int
    files: Mapping[str, bytes]
    ignored: tuple[str, ...] = ()
    trainable: bool = True
    attends: int | None = None

    @property
    def name(self) -> str:
        """Its folder, or its repository with the revision."""
        return architectures.key_of(self.asset)

    @property
    def short_name(self) -> str:
        """What titles call it."""
        return Path(str(self.asset.get("path") or self.asset["repo"])).name

    @property
    def said_of_documents(self) -> str:
        """What begins them, where that is not the tokenizer's own BOS; else empty."""
        if "bos" not in self.asset:
            return ""
        return f"Documents begin with {self.asset['bos']}: the tokenizer's own BOS begins a turn of a chat."


def find_parent(model: str, revision: str, ignored: Sequence[str] = ()) -> Parent:
    """The model in a folder or GGUF file, or in a repository of the hub, which is pinned. Its shape is recorded.

    Raises NewError for what is none of them, or names no EOS; HubError for files that are missing, UnsupportedModel for
    a model without a rope or with settings that mean another one than its code would make.
    """
    folder = Path(os.path.expanduser(model))
    if folder.is_dir() and not (folder / "config.json").is_file():
        inside = next((f": {file}" for file in sorted(folder.glob("*")) if is_gguf(file.name)), "")
        raise NewError(
            f"--model {model}: has no config.json; give the folder that `save_pretrained` wrote, or a GGUF file{inside}"
        )
    if folder.is_file() and is_gguf(folder.name):
        asset = {"type": "model", "path": project_path(folder)}
        return _described(asset, folder, read_words(folder), ignored)
    if folder.is_dir():
        asset = {"type": "model", "path": project_path(folder)}
        return _described(asset, folder, _local_files(asset), ignored)
    if folder.exists():
        raise NewError(
            f"--model {model}: is a file; give the folder that holds config.json, weights and tokenizer, or a GGUF file"
        )
    if not REPOSITORY.fullmatch(model) or model.startswith((".", "/", "~")):
        raise NewError(
            f"--model {model}: there is no such folder, and it is no repository of the hub, which reads owner/name"
        )
    asset = {"type": "model", "repo": model, "revision": revision}
    with tempfile.TemporaryDirectory() as scratch:
        return _described(asset, Path(scratch), _published_files(asset, Path(scratch)), ignored)


def project_path(path: Path) -> str:
    """A path as studies name it: relative to the project's folder where it lies there, else absolute.

    Raises NewError for one that is no text, which no study file could hold.
    """
    found = Path(os.path.expanduser(path)).resolve()
    try:
        str(found).encode()
    except UnicodeEncodeError:
        raise NewError(f"the path {os.fsencode(found)!r} is not in UTF-8: rename it") from None
    root = project_root().resolve()
    return f"./{found.relative_to(root).as_posix()}" if found.is_relative_to(root) else found.as_posix()


def record_architectures(data: Mapping[str, Any]) -> list[str]:
    """Record the shape of every model that a study file leaves to config.json; returns the assets' names there.

    Raises as `find_parent` does.
    """
    found = []
    for _, hub, asset in architectures.unstated(data):
        if asset and not asset.get("wheel"):
            name = asset.get("path") or str(asset.get("repo"))
            folder = str(project_root() / os.path.expanduser(name)) if asset.get("path") else name
            find_parent(folder, str(asset.get("revision") or "main"), tuple(hub.get("ignored_config") or ()))
            found.append(architectures.key_of(asset))
    return found


def _local_files(asset: dict[str, Any]) -> dict[str, bytes]:
    from yarnlab.hub.local import LocalAsset

    local = LocalAsset("model", asset["path"])
    names = local.names()  # HubError names what is missing
    return {name: (local.folder / name).read_bytes() for name in WORDS if name in names}


@contextmanager
def tokenizer_folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """WORDS in a folder for a while, where the readers of tokenizers take them from."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def _document_tokens(files: Mapping[str, bytes], name: str, vocab_size: int) -> dict[str, str]:
    """What a study must say of the tokens around a document: `bos`, where the tokenizer's begins a turn of a chat.

    NewError where no token ends a document, or the tokenizer can't be read or is another model's.
    """
    with tokenizer_folder(files) as folder:
        try:
            check_vocabulary(folder, vocab_size)
            special_ids(folder)
        except BeginsTurn as error:
            return {"bos": error.end}
        except CorpusError as error:
            raise NewError(str(error).replace(str(folder), name)) from None
    return {}


def _published_files(asset: dict[str, Any], scratch: Path) -> dict[str, bytes]:
    """WORDS at the commit that the lock pins, or has pinned now."""
    from yarnlab.hub.fetch import fetch
    from yarnlab.hub.lock import Asset, lock_file, read_lock
    from yarnlab.hub.pin import lock_assets

    wanted = Asset("model", asset["repo"], asset["revision"])
    lock_assets([wanted], lock_file())
    locked = read_lock(lock_file())[wanted.key]
    names = [name for name in WORDS if name in locked.files]
    if "config.json" not in names:
        raise NewError(f"{asset['repo']} has no config.json: it is no model of transformers")
    exact = Asset("model", asset["repo"], locked.commit, tuple(names))
    fetch(exact, scratch / "lock.yaml", scratch / "files", lock_missing=True)
    return {name: (scratch / "files" / name).read_bytes() for name in names}


def _described(asset: dict[str, Any], where: Path, files: dict[str, bytes], ignored: Sequence[str]) -> Parent:
    from yarnlab.checkpoints import architecture_of, stock_config
    from yarnlab.families.config import stock_block
    from yarnlab.families.parts import UnsupportedModel, experts
    from yarnlab.families.survey import declared_rope
    from yarnlab.hub.published import translate_config

    name = architectures.key_of(asset)
    try:
        content = json.loads(files["config.json"])
        assert isinstance(content, dict)
    except (ValueError, AssertionError):
        raise NewError(f"{name}: config.json is no JSON object") from None
    try:
        translated = translate_config({**content, "_name_or_path": name})  # which its messages begin with
        drops = [key for key in content if "drop" in key and isinstance(content[key], float) and content[key] > 0]
        config = stock_config(translated, [*ignored, *drops], where)
        stock_block(config)  # UnsupportedModel without a rope
        window = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        rope = declared_rope(config, window_is_stated=bool(content.keys() & {window, "max_position_embeddings"}))
        shape = architecture_of(config, rope.original_context)
    except UnsupportedModel as error:
        why = str(error).replace(f"{where}", name)
        hint = "" if "ignored_config" not in why else ". Here: --ignored-config KEY"
        raise UnsupportedModel(f"{why if name in why else f'{name}: {why}'}{hint}") from None
    asset = asset | (_document_tokens(files, name, config.vocab_size) if TOKENIZER in files else {})
    architectures.record(
        name, shape.model_dump(exclude_unset=True, exclude_none=True), config.vocab_size, files["config.json"]
    )
    sliding = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    everywhere = bool(sliding) and (not layers or layers == {"sliding_attention"})
    return Parent(
        asset,
        shape,
        config.vocab_size,
        _declared(rope),
        # Cards of Qwen tell to add a yarn block alone, and leave the window as it was.
        max(int(config.max_position_embeddings), rope.context if rope.method in ("yarn", "pi") else 0),
        files,
        tuple(dict.fromkeys([*ignored, *drops])),
        not experts(config),
        int(sliding) if sliding and everywhere else None,
    )


def _declared(rope: Rope) -> dict[str, Any] | None:
    """A rope as a study's keys, every option said; None for plain RoPE, which needs none."""
    if rope.method == "none":
        return None
    found: dict[str, Any] = {"method": rope.method, "scale": rope.scale}
    for key in options(rope.method):
        value = getattr(rope, key)
        if isinstance(value, Temperature):
            value = {name: number for name, number in asdict(value).items() if number is not None}
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
