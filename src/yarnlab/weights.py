"""Weights on disk: safetensors files, and folders that hold one checkpoint and no part of another."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Which tokens begin and end a document, where a study says it: a chat model's tokenizer names those of a turn.
DOCUMENT_TOKENS = "document_tokens.json"
# What goes with a checkpoint from parent to child, unchanged: the tokenizer, the chat template, how text is generated.
COMPANIONS = (
    "added_tokens.json",
    "additional_chat_templates/*.jinja",
    "chat_template.jinja",
    "chat_template.json",
    DOCUMENT_TOKENS,
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer*.json",
    "tokenizer*.model",
    "vocab.json",
)
INDEX = "model.safetensors.index.json"
# What a loader takes for a part of the checkpoint wherever it lies beside one; config.json is in every checkpoint.
LOADED = ("*.safetensors", "*.safetensors.index.json", *COMPANIONS)
GGUF = r"(?i)\.gguf$"  # how the name of a model in one file ends
MANIFEST = "manifest.json"
CARD = "README.md"  # written anew whenever there is more to say, so no part of the checkpoint


class BrokenIndex(UserError):
    """An index of weights that can't be read."""


def weight_map(index: Path) -> dict[str, str]:
    """Tensor → file, as an index of shards says. Raises BrokenIndex where it does not."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        assert all(isinstance(file, str) for file in found.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
        raise BrokenIndex(
            f"{index} is no index of weights (a JSON object whose `weight_map` names the file of each weight): fetch "
            "it again, or save the model anew with `save_pretrained`"
        ) from None
    return dict(found)


def is_gguf(name: str) -> bool:
    """Whether a file's name is that of a GGUF file."""
    return re.search(GGUF, name) is not None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise the system's errors as OSError, with their number and `path`, where safetensors raises one of its own.

    A full disk is a SafetensorError otherwise, which nobody who handles OSError sees.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write contiguous tensors, none of which share memory, to one safetensors file. Raises OSError."""
    from safetensors.torch import save_file

    with disk_errors(path):
        save_file(dict(tensors), path, metadata)


@contextmanager
def replacing_checkpoint(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, whose files take the place of the checkpoint there if the block ends well.

    A failure leaves `folder` as it was. Otherwise it holds the new checkpoint alone: files of the former one under
    other names (one file of weights before, several now) are removed, and anything else stays. The manifest of the
    former one goes first, so that a process killed in between leaves no folder that passes for finished.
    """
    temporary = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_errors(temporary):
            yield temporary
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        new = {file.relative_to(temporary) for file in temporary.rglob("*") if not file.is_dir()}
        for name in sorted(new):
            (folder / name).parent.mkdir(exist_ok=True)
            (temporary / name).replace(folder / name)
        for pattern in (*LOADED, CARD):
            for file in folder.glob(pattern):
                if file.relative_to(folder) not in new:
                    file.unlink()
    finally:  # not empty even now where both had links to one file: renaming one to the other does nothing
        shutil.rmtree(temporary, ignore_errors=True)


def companions(folder: Path) -> list[Path]:
    """The files of a model's or a tokenizer's folder that its children take over."""
    return sorted(file for pattern in COMPANIONS for file in folder.glob(pattern) if file.is_file())


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a model's folder, without its manifest, its card and other folders in it."""
    own = [file for file in folder.iterdir() if file.is_file() and file.name not in (MANIFEST, CARD)]
    return sorted({*own, *companions(folder)})
