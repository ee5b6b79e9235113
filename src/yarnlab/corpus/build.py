"""Builds a corpus from whichever source its section names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from yarnlab.corpus import tokens
from yarnlab.corpus.blocks import CUTS, Dropped
from yarnlab.corpus.datasets import encoded, files_of, id_rows, shard, text_rows
from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import Special, load_tokenizer, special_ids
from yarnlab.corpus.tokens import CorpusWriter
from yarnlab.corpus.version import VERSION
from yarnlab.progress import Progress


def build_corpus(
    spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, asset: Path | None, log: Path | None
) -> dict[str, Any]:
    """Write tokens.npy and documents.json; returns the counts and the source in words.

    A build that was interrupted keeps the files that it had read. Raises CorpusError.
    """
    if spec["corpus"]["source"] == "python-packages":
        facts = tokens.build_corpus(spec, tokenizer_folder, folder, log=log)
        return facts | {"source": ", ".join(f"{package} {version}" for package, version in facts["versions"].items())}
    assert asset is not None
    return _from_dataset(spec["corpus"], tokenizer_folder, folder, asset, log)


def _from_dataset(
    source: dict[str, Any], tokenizer_folder: Path, folder: Path, asset: Path, log: Path | None
) -> dict[str, Any]:
    from yarnlab.provenance import sha256_of
    from yarnlab.study.sections import digest

    files = files_of(asset, source["files"])
    special = special_ids(tokenizer_folder)
    identity = [
        VERSION,
        source,
        [(f.name, f.stat().st_size) for f in files],
        sha256_of(tokenizer_folder / "tokenizer.json"),
    ]
    shards = folder / ".shards" / digest(identity)[:16]
    dropped = Dropped()
    documents = _documents(source, files, tokenizer_folder, shards, log)
    blocks = source.get("blocks")
    pieces = (
        CUTS[blocks["bookends"]](documents, blocks["length"], special.bos, special.eos, dropped)
        if blocks
        else (_bookended(ids, special) for ids in documents if len(ids) >= source.get("min_tokens", 0))
    )
    wanted, most = source.get("documents"), source.get("max_tokens")
    with CorpusWriter(folder, tokens.id_type(tokenizer_folder), special) as writer:
        for i, piece in enumerate(pieces):
            writer.add(f"{asset.name}/{i}", piece)
            if writer.documents == wanted or (most is not None and writer.tokens >= most):
                break
        if writer.documents < (wanted or 1):
            raise CorpusError(
                f"only {writer.documents} documents of {asset.name} have {source.get('min_tokens', 0)} tokens or more, "
                f"{wanted or 1} are asked for; lower `documents` or `min_tokens`, or name more files"
            )
    shutil.rmtree(folder / ".shards", ignore_errors=True)
    return {
        "tokens": writer.tokens,
        "documents": writer.documents,
        "files": len(files),
        "dropped_ids": dropped.ids,
        "bos": special.bos,
        "eos": special.eos,
        "source": f"{asset.name}: {', '.join(source['files'])}",
    }


def _bookended(ids: np.ndarray, special: Special) -> np.ndarray:
    """BOS before, EOS behind. A row that begins with BOS was published with its own: it lacks EOS at most, which
    Llama's tokenizer leaves out and every reader of a document takes off its end.
    """
    if len(ids) and ids[0] == special.bos:
        return ids if ids[-1] == special.eos else np.concatenate([ids, [special.eos]])
    return np.concatenate([[special.bos], ids, [special.eos]])


def _documents(
    source: dict[str, Any], files: list[Path], tokenizer_folder: Path, shards: Path, log: Path | None
) -> Iterator[np.ndarray]:
    """Every document's ids, file by file; lazy, so that a full corpus ends the reading."""
    dtype = tokens.id_type(tokenizer_folder)
    progress = Progress("read", len(files), log=log, unit="file")
    # Without a filter or blocks, a file needs no more than the documents that are asked for.
    enough = source.get("documents") if not source.get("blocks") and "min_tokens" not in source else None
    for number, file in enumerate(files):
        if source["source"] == "hub-tokens":
            rows = id_rows(file, source["column"])
        else:
            rows = encoded(text_rows(file, source["format"], source.get("column")), load_tokenizer(tokenizer_folder))
        yield from shard(rows, shards / f"{number:05d}.ids", dtype, enough).documents()
        progress.advance()
