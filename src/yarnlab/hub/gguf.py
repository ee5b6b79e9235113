"""A model in one GGUF file: dequantised once into the files of a stock checkpoint, with a record of what it was.

transformers reads the file (`gguf_file=`, with the package `gguf`): what comes of it is what stock transformers
computes with, in fp32. Quantised values are kept as they are, so the quantisation's own error stays and is named; or
they are quantised once more first (requantise.py), which is named too.
"""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from yarnlab.hub.download import disk_full
from yarnlab.hub.errors import HubError
from yarnlab.hub.requantise import requantise
from yarnlab.lazy import torch
from yarnlab.provenance import read_json, sha256_of, write_json
from yarnlab.weights import save_tensors

WEIGHTS = "model.safetensors"
WORDS = ("config.json", "tokenizer.json", "tokenizer_config.json")  # a model's shape and text, without its weights
PLAIN = ("F32", "F16", "BF16", "F64")  # of GGML's types, those that lose nothing in fp32
BYTES = 4  # of a weight in fp32


@dataclass(frozen=True)
class Declared:
    """What a study says of the file: its quantisation, to be compared; the tokens that begin and end a document; the
    type that its weights are quantised to once more, if any.

    A file of a chat model names tokens of the chat for these, and text is not one.
    """

    quantisation: str | None = None
    bos: str | None = None
    eos: str | None = None
    requantise: str | None = None

    @classmethod
    def of(cls, asset: Mapping[str, Any]) -> Declared:
        """From an asset's section of the study."""
        return cls(*(asset.get(key) for key in ("quantisation", "bos", "eos", "requantise")))


def finished(folder: Path, origin: Mapping[str, Any], declared: Declared) -> dict[str, Any] | None:
    """The asset.json of a folder that holds, to the last byte, what was made of this origin before; else None."""
    record = read_json(folder / "asset.json")
    if any(record.get(key) != value for key, value in {**origin, **_made_by(declared)}.items()):
        return None
    for name, file in record.get("files", {}).items():
        place = folder / name
        if not place.is_file() or sha256_of(place) != file["sha256"]:
            return None
    check_quantisation(record["conversions"][0]["quantisation"], declared, str(folder))
    return record


def convert(source: Path, source_sha256: str, folder: Path, origin: Mapping[str, Any], declared: Declared) -> Any:
    """Write the checkpoint that `source` holds into `folder`, asset.json last; returns its content.

    Args:
        origin: what asset.json says of where the file comes from.

    Memory: all weights in fp32. Raises HubError for a file that transformers cannot read, another quantisation than
    the study declares, one that `requantise` does not fit, a token that the tokenizer does not have, or a full disk;
    the folder then has no asset.json.
    """
    quantisation, tensors, parameters = inspect(source)
    check_quantisation(quantisation, declared, str(source))
    if declared.requantise is not None and quantisation in PLAIN:
        raise HubError(
            f"{source}: its weights are {quantisation}, so that nothing of it can be quantised once more: leave "
            "`requantise` out, or use a quantised file"
        )
    needed, free = BYTES * parameters, shutil.disk_usage(folder).free
    if needed > free:
        raise disk_full(folder, f"{source.name} takes {needed / 1e9:,.1f} GB in fp32 and {free / 1e9:,.1f} are free")
    (folder / "asset.json").unlink(missing_ok=True)
    temporary = folder / ".gguf.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        weights = source
        if declared.requantise is not None:
            weights = temporary / f"requantised.{source.name}"
            requantise(source, quantisation, declared.requantise, weights)
        _write(source, weights, temporary, declared)
        if weights != source:
            weights.unlink()
        made = {file.name: {"size": file.stat().st_size, "sha256": sha256_of(file)} for file in temporary.iterdir()}
        for left in folder.iterdir():  # of another model
            if left.is_file() and not left.name.startswith(".") and left.name != "manifest.json":
                left.unlink()
        for name in made:
            (temporary / name).replace(folder / name)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(folder, f"{source.name} is written as {needed / 1e9:,.1f} GB of fp32 weights") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    conversion: dict[str, object] = {"source": source.name, "source_sha256": source_sha256, "file": WEIGHTS}
    conversion |= {"sha256": made[WEIGHTS]["sha256"], "quantisation": quantisation, "tensors": tensors}
    if declared.requantise is not None:
        conversion["requantised"] = declared.requantise
    record: dict[str, object] = {**origin, **_made_by(declared)}
    if declared.requantise is None:
        del record["requantise"]
    record |= {"files": dict(sorted(made.items())), "conversions": [conversion]}
    write_json(folder / "asset.json", record)
    return record


def inspect(source: Path) -> tuple[str, str, int]:
    """(quantisation, tensors by type, number of weights): the type that most weights of the file have, such as Q4_1.

    Raises HubError for a file that is none, is cut short, or whose reader is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise HubError(
            f"{source}: the package `gguf`, which reads such files, is not installed in this environment: run "
            "`envs/run true`, which brings it up to its lock file"
        ) from None
    try:
        found = [(tensor.tensor_type.name, int(tensor.n_elements)) for tensor in GGUFReader(source).tensors]
    except Exception as error:  # ValueError, IndexError, KeyError, …: whatever a broken file leads its reader to
        raise _unreadable(source, error) from None
    weights, tensors = Counter[str](), Counter[str]()
    for kind, elements in found:
        weights[kind] += elements
        tensors[kind] += 1
    if not weights:
        raise HubError(f"{source} is a GGUF file without tensors: use the one that holds the model's weights")
    listed = ", ".join(f"{kind} {count}" for kind, count in tensors.most_common())
    return weights.most_common(1)[0][0], listed, sum(weights.values())


def check_quantisation(found: str, declared: Declared, where: str) -> None:
    """HubError for another quantisation than the study declares."""
    if declared.quantisation is not None and declared.quantisation.upper() != found:
        raise HubError(
            f"{where}: its weights are {found}, the study says `quantisation: {declared.quantisation}`: correct the "
            "asset, or use the file that is meant"
        )


def _made_by(declared: Declared) -> dict[str, str | None]:
    """What the written files depend on, beside the file."""
    return {"bos": declared.bos, "eos": declared.eos, "requantise": declared.requantise}


def named(conversion: Mapping[str, Any]) -> str:
    """How the weights of a conversion were given, in words: 'Q4_1', or 'Q4_1, quantised once more to Q4_0'."""
    more = f", quantised once more to {conversion['requantised']}" if "requantised" in conversion else ""
    return f"{conversion['quantisation']}{more}"


def read_words(source: Path) -> dict[str, bytes]:
    """config.json and the tokenizer's two files that come of a GGUF file; its weights are not read.

    Raises HubError for a file that transformers cannot read.
    """
    from transformers import AutoConfig

    inspect(source)
    with tempfile.TemporaryDirectory() as folder:
        _write_words(source, Path(folder), Declared(), _read(AutoConfig, source))
        return {name: (Path(folder) / name).read_bytes() for name in WORDS}


def _read(kind: Any, source: Path, **options: Any) -> Any:
    """What one of transformers' Auto classes makes of the file; HubError if it can't."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        with redirect_stderr(StringIO()):  # a bar with a step for each tensor, which nothing switches off
            return kind.from_pretrained(source.parent, gguf_file=source.name, **options)
    except Exception as error:  # of a class for each family and kind of fault
        raise _unreadable(source, error) from None


def _write(source: Path, weights: Path, folder: Path, declared: Declared) -> None:
    """Weights, config and tokenizer as stock transformers reads them from the file; weights from the file `weights`."""
    from transformers import AutoModelForCausalLM

    model = _read(AutoModelForCausalLM, weights, dtype=torch.float32)
    tensors, seen = {}, set[int]()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a head that is the embedding; whoever loads it ties them again
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.contiguous()
    save_tensors(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    _write_words(source, folder, declared, model.config)


def _write_words(source: Path, folder: Path, declared: Declared, read: Any) -> None:
    """The tokenizer's files, and the config that was `read` from the file."""
    from transformers import AutoTokenizer

    tokenizer = _read(AutoTokenizer, source)
    tokenizer.save_pretrained(folder)
    _name_tokens(folder, tokenizer, declared, source)
    config = {key: value for key, value in read.to_dict().items() if not key.startswith("_")}
    config.pop("quantization_config", None)
    special = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for key in ("bos", "eos"):
        if (token := special.get(f"{key}_token")) is not None:
            config[f"{key}_token_id"] = tokenizer.convert_tokens_to_ids(token)
    write_json(folder / "config.json", config)


def _name_tokens(folder: Path, tokenizer: Any, declared: Declared, source: Path) -> None:
    """Write the declared tokens into the tokenizer's config. HubError for one that it does not have."""
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer.get_vocab()
    for key, token in (("bos", declared.bos), ("eos", declared.eos)):
        if token is None:
            continue
        if token not in vocabulary:
            raise HubError(f"{source}: its tokenizer has no token {token!r}: correct `{key}` of the study's asset")
        content[f"{key}_token"] = token
    for key in ("is_local", "local_files_only", "name_or_path"):  # of this call, not of the tokenizer
        content.pop(key, None)
    write_json(file, content)


def _unreadable(source: Path, error: Exception) -> HubError:
    reason = " ".join(str(error).split()) or "no reason given"
    return HubError(
        f"{source} is no GGUF file of a model that the installed transformers reads ({type(error).__name__}: {reason})."
        " If it was cut short, fetch it again; else use a checkpoint with safetensors"
    )
