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
from yarnlab.corpus.local import SOURCES, TextFiles, of_corpus
from yarnlab.corpus.local_documents import LocalDocuments
from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import Special, load_tokenizer, special_ids
from yarnlab.corpus.tokens import CorpusWriter
from yarnlab.corpus.version import VERSION
from yarnlab.hub.local import content_of
from yarnlab.progress import Progress
from yarnlab.provenance import read_json, write_json


def build_corpus(
    spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, asset: Path | None, log: Path | None
) -> dict[str, Any]:
    """Write tokens.npy and documents.json; returns the counts and the source in words.

    A build from a dataset that was interrupted keeps the files that it had read. Raises CorpusError.
    """
    source = spec["corpus"]["source"]
    if source == "python-packages":
        facts = tokens.build_corpus(spec, tokenizer_folder, folder, log=log)
        return facts | {"source": ", ".join(f"{package} {version}" for package, version in facts["versions"].items())}
    if source == "local-text":
        with of_corpus(folder.name):
            return _from_files(spec, tokenizer_folder, folder, log)
    assert asset is not None
    return _from_dataset(spec["corpus"], tokenizer_folder, folder, asset, log)


def _from_dataset(
    source: dict[str, Any], tokenizer_folder: Path, folder: Path, asset: Path, log: Path | None
) -> dict[str, Any]:
    from yarnlab.provenance import sha256_of
    from yarnlab.study.sections import digest

    files = files_of(asset, source["files"])
    identity = [
        VERSION,
        source,
        [(f.name, f.stat().st_size) for f in files],
        sha256_of(tokenizer_folder / "tokenizer.json"),
    ]
    shards = folder / ".shards" / digest(identity)[:16]
    documents = (("", ids) for ids in _documents(source, files, tokenizer_folder, shards, log))
    facts = _write(documents, source, asset.name, asset.name, tokenizer_folder, folder, log)
    shutil.rmtree(folder / ".shards", ignore_errors=True)
    return facts | {"files": len(files), "source": f"{asset.name}: {', '.join(source['files'])}"}


def _from_files(spec: dict[str, Any], tokenizer_folder: Path, folder: Path, log: Path | None) -> dict[str, Any]:
    """Text of this machine. What was read is noted beside the corpus, so that the next start need not read it again."""
    source, texts = spec["corpus"], TextFiles.of(spec["corpus"]["path"])
    read = texts.read(read_json(folder / SOURCES))
    expected = spec.get("content", content_of(read))
    documents = LocalDocuments(texts.files(), source["column"], source.get("part"), spec["seed"], log)
    encoded_ones = documents.encoded(load_tokenizer(tokenizer_folder))
    facts = _write(encoded_ones, source, str(texts), documents.root, tokenizer_folder, folder, log)
    if {content_of(read), content_of(texts.read(read))} != {expected}:
        raise CorpusError(
            f"path {texts}: files have changed since this run started: leave them alone for a while, and run the same "
            "command again"
        )
    write_json(folder / SOURCES, read)
    return facts | {"files": len(read), "empty": documents.empty, "content": expected, "source": str(texts)}


def _write(
    documents: Iterator[tuple[str, np.ndarray]],
    source: dict[str, Any],
    shown: str,
    unnamed: str,
    tokenizer_folder: Path,
    folder: Path,
    log: Path | None,
) -> dict[str, Any]:
    """Write (name, ids) of documents, or the blocks that they are cut into, up to the limits of `source`.

    Without a name they are called `unnamed`/0, 1, …; `shown` is the source in words.
    """
    special = special_ids(tokenizer_folder, source.get("separator"))
    dropped, blocks = Dropped(), source.get("blocks")
    pieces: Iterator[tuple[str, np.ndarray]]
    if blocks:
        cut, ids = CUTS[blocks["bookends"]], (ids for _, ids in documents)
        pieces = (("", piece) for piece in cut(ids, blocks["length"], special.bos, special.eos, dropped))
    else:
        least = source.get("min_tokens", 0)
        pieces = ((name, _bookended(ids, special)) for name, ids in documents if len(ids) >= least)
    wanted, most = source.get("documents"), source.get("max_tokens")
    with CorpusWriter(folder, tokens.id_type(tokenizer_folder), special) as writer:
        for i, (name, piece) in enumerate(pieces):
            writer.add(name or f"{unnamed}/{i}", piece)
            if writer.documents == wanted or (most is not None and writer.tokens >= most):
                break
        if writer.documents < (wanted or 1):
            raise CorpusError(
                f"only {writer.documents} documents of {shown} have {source.get('min_tokens', 0)} tokens or more, "
                f"{wanted or 1} are asked for; lower `documents` or `min_tokens`, or name more files"
            )
    return {
        "tokens": writer.tokens,
        "documents": writer.documents,
        "dropped_ids": dropped.ids,
        **tokens.borders(special, load_tokenizer(tokenizer_folder), log),
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
