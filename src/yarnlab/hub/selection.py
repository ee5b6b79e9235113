"""Which files of a repository an asset needs: never code, never a pickle, and each weight only once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from yarnlab.hub.errors import HubError
from yarnlab.weights import COMPANIONS

MODEL_FILES = (
    "config.json",
    "tokenizer*",
    *COMPANIONS,
)
NESTED = tuple(pattern for pattern in COMPANIONS if "/" in pattern)
WEIGHTS = ("model*.safetensors", "model*.safetensors.index.json")
OTHER_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")  # where none has the usual name
OLD_WEIGHTS = ("pytorch_model*.bin",)  # their index is not needed: the files say what they hold
# What could run code when it is used. The tensors in pytorch_model*.bin are read as such (convert.py).
CODE = ("*.py", "*.pkl", "*.pickle", "*.pt", "*.pth", "*.ckpt", "*.joblib", "*.msgpack", "*.h5")
# Names that an asset's folder has for other things: our own records, and git's.
RESERVED = ("asset.json", "manifest.json", ".*", "*/.*", "*.partial")


def choose(paths: Iterable[str], repo: str, type: str, patterns: tuple[str, ...]) -> list[str]:
    """The files to fetch, sorted: those that `patterns` name, or without any those that a model needs, or a dataset.

    `*` in a pattern matches `/` too, as it does for huggingface_hub.

    Raises HubError for a pattern without a file, and for a file that could run code.
    """
    paths = list(paths)
    for path in paths:
        check_name(path, repo)
    paths = [path for path in paths if not matches(path, RESERVED)]
    if patterns:
        chosen = _named(paths, repo, type, patterns)
    elif type == "dataset":
        chosen = [path for path in paths if not _is_code(path, type)]
    else:
        chosen = _of_model(paths, repo)
    if not chosen:
        raise HubError(f"{repo} has no file that yarnlab could use: name some with `files` in the study's assets")
    return sorted(chosen)


def weights(paths: Iterable[str]) -> list[str]:
    """The .bin weights among the files of a model, which have to be converted."""
    return sorted(fnmatch.filter(paths, OLD_WEIGHTS[0]))


def matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def check_name(path: str, where: str) -> None:
    """Raises HubError for a name that would lie outside the asset's folder."""
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
        raise HubError(f"{where} names a file {path!r}, which lies outside its folder: do not use this source")


def _named(paths: list[str], repo: str, type: str, patterns: tuple[str, ...]) -> list[str]:
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
            raise HubError(f"{repo} has no file that matches {pattern}; it has {shown}. Correct the asset's `files`")
    chosen = [path for path in paths if matches(path, patterns)]
    if code := [path for path in chosen if _is_code(path, type)]:
        raise HubError(
            f"{repo}: {code[0]} could run code when it is loaded and is never fetched; narrow the asset's `files`"
        )
    safe = any(path.endswith(".safetensors") for path in chosen)
    return [path for path in chosen if not (safe and type == "model" and matches(path, OLD_WEIGHTS))]


def _of_model(paths: list[str], repo: str) -> list[str]:
    top = [path for path in paths if "/" not in path]
    for kind in (WEIGHTS, OTHER_WEIGHTS, OLD_WEIGHTS):
        if fnmatch.filter(top, kind[0]):
            _check_numbers([path for path in top if matches(path, kind)], repo)
            beside = [path for path in paths if matches(path, (*MODEL_FILES, *kind)) and not _is_code(path, "model")]
            return [path for path in beside if path in top or matches(path, NESTED)]
    if code := [path for path in top if matches(path, CODE) and not path.endswith(".py")]:
        raise HubError(
            f"{repo} has its weights as {code[0]} only, which could run code when it is loaded and is never fetched. "
            "Use a repository or a revision with safetensors"
        )
    return [path for path in paths if matches(path, MODEL_FILES) and (path in top or matches(path, NESTED))]


def _check_numbers(shards: list[str], repo: str) -> None:
    """Raises HubError if one of …-00001-of-0000N is missing: an upload that was never finished."""
    numbers = [(int(m[1]), int(m[2])) for path in shards if (m := re.search(r"-(\d+)-of-(\d+)\.", path))]
    for total in {total for _, total in numbers}:
        if lost := set(range(1, total + 1)) - {number for number, of in numbers if of == total}:
            raise HubError(
                f"{repo} lacks shard {min(lost)} of {total} of its weights: complete them, or use another copy"
            )


def _is_code(path: str, type: str) -> bool:
    name = PurePosixPath(path).name
    return matches(name, CODE) or (type == "model" and name.endswith(".bin") and not matches(name, OLD_WEIGHTS))
