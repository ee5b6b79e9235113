"""A corpus on disk: one memory-mapped array of token ids, documents set apart by BOS and EOS, and their index."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.packages import CorpusError, Document, read_packages, versions
from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, load_tokenizer
from yarnlab.progress import Progress
from yarnlab.provenance import replacing, write_json

if TYPE_CHECKING:
    import tokenizers

BATCH = 256  # documents encoded at once: bounds memory, keeps both cores busy


@dataclass(frozen=True)
class TokenisedCorpus:
    """`tokens` is a read-only memory map, shape (total,), uint16 or uint32; documents include their BOS and EOS."""

    tokens: np.ndarray
    names: tuple[str, ...]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path) -> TokenisedCorpus:
        index = json.loads((folder / "documents.json").read_text(encoding="utf-8"))
        return cls(
            np.load(folder / "tokens.npy", mmap_mode="r"),
            *(tuple(document[key] for document in index) for key in ("name", "start", "tokens")),
        )

    def document(self, i: int) -> np.ndarray:
        """The i-th document's ids, BOS first, EOS last."""
        return self.tokens[self.starts[i] : self.starts[i] + self.lengths[i]]


def build_corpus(spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, log: Path | None) -> dict[str, Any]:
    """Write tokens.npy and documents.json of one corpus section; returns counts and the packages' versions.

    Raises CorpusError if fewer documents than asked for are long enough.
    """
    source, seed = spec["corpus"], spec["seed"]
    packages = tuple(source["packages"])
    documents = read_packages(packages)
    random.Random(seed).shuffle(documents)
    tokenizer = load_tokenizer(tokenizer_folder)
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32
    kept: list[np.ndarray] = []
    index: list[dict[str, Any]] = []
    total = 0
    for name, ids in _encode(documents, tokenizer, source, log):
        if len(ids) < source.get("min_tokens", 0):
            continue
        kept.append(np.array([BOS_ID, *ids, EOS_ID], dtype=dtype))
        index.append({"name": name, "start": total, "tokens": len(ids) + 2})
        total += len(ids) + 2
        if len(kept) == source.get("documents") or total >= source.get("max_tokens", total + 1):
            break
    if len(kept) < source.get("documents", 1):
        raise CorpusError(
            f"only {len(kept)} documents of {', '.join(packages)} have {source.get('min_tokens', 0)} tokens or more, "
            f"{source.get('documents', 1)} are asked for; lower `documents` or `min_tokens`, or name more packages"
        )
    with replacing(folder / "tokens.npy") as temporary:
        np.save(temporary, np.concatenate(kept))
    write_json(folder / "documents.json", index)
    return {"tokens": total, "documents": len(index), "versions": versions(packages)}


def _encode(
    documents: list[Document], tokenizer: tokenizers.Tokenizer, source: dict[str, Any], log: Path | None
) -> Iterator[tuple[str, list[int]]]:
    """(name, ids) of each document in order, encoded in parallel batches; lazy, so a full corpus ends the work."""
    # A token is at least one byte, so shorter texts need no encoding to be ruled out.
    long_enough = [d for d in documents if len(d.text.encode()) >= source.get("min_tokens", 0)]
    progress = Progress("tokenise", len(long_enough), log=log, unit="document")
    for first in range(0, len(long_enough), BATCH):
        batch = long_enough[first : first + BATCH]
        encoded = tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encoded, strict=True):
            yield document.name, encoding.ids
        progress.advance(len(batch))
