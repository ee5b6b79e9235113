"""Builds a corpus from whichever source its section names."""

from __future__ import annotations

import math
import random
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.blocks import CUTS, Dropped
from yarnlab.corpus.datasets import encoded, files_of, id_rows, shard, text_rows
from yarnlab.corpus.local import SOURCES, TextFiles, of_corpus
from yarnlab.corpus.local_documents import LocalDocuments
from yarnlab.corpus.packages import CorpusError, parts_of, read_packages, versions
from yarnlab.corpus.tokenizer import Special, load_tokenizer, special_ids
from yarnlab.corpus.tokens import CorpusWriter, borders, id_type
from yarnlab.corpus.version import VERSION
from yarnlab.hub.local import content_of
from yarnlab.progress import Progress
from yarnlab.provenance import read_json, write_json

if TYPE_CHECKING:
    import tokenizers

PACKAGE_BATCH = 2_000_000  # bytes of text encoded at once: files are small, and a corpus may end after a few


def build_corpus(
    spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, asset: Path | None = None, log: Path | None = None
) -> dict[str, Any]:
    """Write tokens.npy and documents.json; returns the counts and the source in words.

    A build from a dataset that was interrupted keeps the files that it had read. Raises CorpusError.
    """
    source = spec["corpus"]["source"]
    if source == "python-packages":
        return _from_packages(spec, tokenizer_folder, folder, log)
    if source == "local-text":
        with of_corpus(folder.name):
            return _from_files(spec, tokenizer_folder, folder, log)
    assert asset is not None
    return _from_dataset(spec["corpus"], tokenizer_folder, folder, asset, log)


def _from_packages(spec: dict[str, Any], tokenizer_folder: Path, folder: Path, log: Path | None) -> dict[str, Any]:
    source, packages = spec["corpus"], tuple(spec["corpus"]["packages"])
    documents = _in_turns(_of_packages(spec, load_tokenizer(tokenizer_folder), log), source.get("parts", ["source"]))
    facts = _write(documents, source, ", ".join(packages), "", tokenizer_folder, folder, log)
    read = versions(packages)
    return facts | {"versions": read, "source": ", ".join(f"{package} {version}" for package, version in read.items())}


def _of_packages(
    spec: dict[str, Any], tokenizer: tokenizers.Tokenizer, log: Path | None
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, ids) of each document that the section keeps, in the order that the seed draws; lazy."""
    source, least = spec["corpus"], spec["corpus"].get("min_tokens", 0)
    documents = read_packages(tuple(source["packages"]))
    random.Random(spec["seed"]).shuffle(documents)
    if "parts" in source:
        documents = parts_of(documents, tuple(source["parts"]))
    # A token is at least one byte, so shorter texts need no encoding to be ruled out.
    kept = [d for d in documents if len(d.text.encode()) >= least]
    if "max_digits" in source:
        kept = [d for d in kept if sum(map(str.isdigit, d.text)) <= source["max_digits"] * len(d.text)]
    progress, of_folder = Progress("tokenise", len(kept), log=log, unit="document"), Counter[str]()
    for document, ids in zip(kept, encoded((d.text for d in kept), tokenizer, PACKAGE_BATCH), strict=True):
        progress.advance()
        place = f"{document.name.rpartition('/')[0]}#{_part_of(document.name)}"  # each part of a folder's by itself
        if len(ids) >= least and of_folder[place] < source.get("per_folder", math.inf):
            of_folder[place] += 1
            yield document.name, ids


def _in_turns(documents: Iterator[tuple[str, np.ndarray]], parts: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """One document of each part after the other while there are any; then what is left."""
    waiting: dict[str, deque[tuple[str, np.ndarray]]] = {part: deque() for part in parts}
    turn = 0
    for document in documents:
        waiting[_part_of(document[0])].append(document)
        while waiting[parts[turn]]:
            yield waiting[parts[turn]].popleft()
            turn = (turn + 1) % len(parts)
    for left in waiting.values():
        yield from left


def _part_of(name: str) -> str:
    """Of a document of packages."""
    return "docstrings" if name.endswith("#docstrings") else "source"


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
    with CorpusWriter(folder, id_type(tokenizer_folder), special) as writer:
        for i, (name, piece) in enumerate(pieces):
            writer.add(name or f"{unnamed}/{i}", piece)
            if writer.documents == wanted or (most is not None and writer.tokens >= most):
                break
        if writer.documents < (wanted or 1):
            limits = " and ".join(key for key in ("max_digits", "per_folder") if key in source)
            raise CorpusError(
                f"only {writer.documents} documents of {shown} have {source.get('min_tokens', 0)} tokens or more"
                f"{limits and f' within {limits}'}, {wanted or 1} are asked for; lower `documents` or `min_tokens`, "
                f"{limits and f'raise {limits}, '}or name more text"
            )
    return {
        "tokens": writer.tokens,
        "documents": writer.documents,
        "dropped_ids": dropped.ids,
        **borders(special, load_tokenizer(tokenizer_folder), log),
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
    dtype = id_type(tokenizer_folder)
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
