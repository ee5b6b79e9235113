"""A corpus on disk: one memory-mapped array of token ids, documents set apart by BOS and EOS, and their index."""

from __future__ import annotations

import io
import json
import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.packages import CorpusError, Document, parts_of, read_packages, versions
from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, Special, load_tokenizer, special_ids
from yarnlab.progress import Progress
from yarnlab.provenance import write_json

if TYPE_CHECKING:
    import tokenizers

HEADER_BYTES = 128  # of a .npy file with one dimension
BATCH = 256  # documents encoded at once: bounds memory, keeps both cores busy


@dataclass(frozen=True)
class TokenisedCorpus:
    """`tokens` is a read-only memory map, shape (total,), uint16 or uint32; documents include their BOS and EOS."""

    tokens: np.ndarray
    names: tuple[str, ...]
    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    bos: int = BOS_ID
    eos: int = EOS_ID

    @classmethod
    def open(cls, folder: Path) -> TokenisedCorpus:
        index = json.loads((folder / "documents.json").read_text(encoding="utf-8"))
        documents = index["documents"]
        return cls(
            tokens=np.load(folder / "tokens.npy", mmap_mode="r"),
            names=tuple(document["name"] for document in documents),
            starts=tuple(document["start"] for document in documents),
            lengths=tuple(document["tokens"] for document in documents),
            bos=index["bos"],
            eos=index["eos"],
        )

    def document(self, i: int) -> np.ndarray:
        """The i-th document's ids, BOS first, EOS last."""
        return self.tokens[self.starts[i] : self.starts[i] + self.lengths[i]]


class CorpusWriter:
    """Writes tokens.npy and documents.json piece by piece, so that a corpus may be larger than memory.

    On leaving the block both files get their names; after an error neither does.
    """

    def __init__(self, folder: Path, dtype: type[np.generic], special: Special) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._dtype, self._special = folder, dtype, special
        self._temporary = folder / ".tokens.npy.partial"
        self._index: list[dict[str, Any]] = []
        self.tokens = 0

    @property
    def documents(self) -> int:
        return len(self._index)

    def __enter__(self) -> CorpusWriter:
        self._file = self._temporary.open("wb")
        self._file.write(self._header())
        return self

    def add(self, name: str, ids: np.ndarray) -> None:
        self._file.write(stored(np.asarray(ids), self._dtype))
        self._index.append({"name": name, "start": self.tokens, "tokens": len(ids)})
        self.tokens += len(ids)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.seek(0)
            self._file.write(self._header())
        self._file.close()
        if kind is not None:
            self._temporary.unlink()
            return
        self._temporary.replace(self._folder / "tokens.npy")
        special = {"bos": self._special.bos, "eos": self._special.eos}
        write_json(self._folder / "documents.json", {**special, "documents": self._index})

    def _header(self) -> bytes:
        """The .npy header for what has been written; of equal length for any number of tokens."""
        buffer = io.BytesIO()
        shape = {"descr": np.lib.format.dtype_to_descr(np.dtype(self._dtype)), "fortran_order": False}
        np.lib.format.write_array_header_1_0(buffer, {**shape, "shape": (self.tokens,)})
        header = buffer.getvalue()
        assert len(header) == HEADER_BYTES, len(header)
        return header


def id_type(tokenizer_folder: Path) -> type[np.generic]:
    """uint16 where it holds every id of the tokenizer, else uint32."""
    return np.uint16 if load_tokenizer(tokenizer_folder).get_vocab_size() <= 2**16 else np.uint32


def stored(ids: np.ndarray, dtype: type[np.generic]) -> bytes:
    """Ids as they lie on disk. Raises CorpusError for one that the type cannot hold: a cast would wrap it silently."""
    as_stored = ids.astype(dtype)
    if not np.array_equal(as_stored, ids):
        wrong = int(ids[as_stored != ids][0])
        raise CorpusError(
            f"token id {wrong:,} does not fit into {np.dtype(dtype).name}, which holds every id of the corpus's "
            "tokenizer: the ids come from another one. Correct the corpus's `tokenizer`"
        )
    return as_stored.tobytes()


def build_corpus(spec: dict[str, Any], tokenizer_folder: Path, folder: Path, *, log: Path | None) -> dict[str, Any]:
    """Write tokens.npy and documents.json of one section of packages; returns counts and the packages' versions.

    Raises CorpusError if fewer documents than asked for are long enough.
    """
    source, seed = spec["corpus"], spec["seed"]
    packages = tuple(source["packages"])
    documents = read_packages(packages)
    random.Random(seed).shuffle(documents)
    if "parts" in source:
        documents = parts_of(documents, tuple(source["parts"]))
    tokenizer, special = load_tokenizer(tokenizer_folder), special_ids(tokenizer_folder, source.get("separator"))
    most_of_folder, of_folder = source.get("per_folder", math.inf), Counter[str]()
    with CorpusWriter(folder, id_type(tokenizer_folder), special) as writer:

        def kept() -> Iterator[tuple[str, list[int]]]:
            for name, ids in _encode(documents, tokenizer, source, log):
                place = f"{name.rpartition('/')[0]}#{_part_of(name)}"  # each part of a folder's files by itself
                if len(ids) >= source.get("min_tokens", 0) and of_folder[place] < most_of_folder:
                    of_folder[place] += 1
                    yield name, ids

        for name, ids in _in_turns(kept(), source.get("parts", ["source"])):
            writer.add(name, np.array([special.bos, *ids, special.eos]))
            if writer.documents == source.get("documents") or writer.tokens >= source.get("max_tokens", math.inf):
                break
        if writer.documents < source.get("documents", 1):
            limits = [key for key in ("max_digits", "per_folder") if key in source]
            raise CorpusError(
                f"only {writer.documents} documents of {', '.join(packages)} have {source.get('min_tokens', 0)} tokens "
                f"or more{' within ' + ' and '.join(limits) if limits else ''}, {source.get('documents', 1)} are asked "
                f"for; lower `documents` or `min_tokens`, {'raise ' + ' or '.join(limits) + ', ' if limits else ''}or "
                "name more packages"
            )
    facts = {"tokens": writer.tokens, "documents": writer.documents, "versions": versions(packages)}
    return facts | borders(special, tokenizer, log)


def borders(special: Special, tokenizer: tokenizers.Tokenizer, log: Path | None) -> dict[str, Any]:
    """What stands around documents, for the manifest; the log shows it in the tokenizer's words."""
    begin, end = (tokenizer.id_to_token(token) for token in (special.bos, special.eos))
    Progress("corpus", 0, log=log).say(f"documents begin with {begin!r} and end with {end!r}")
    return {"bos": special.bos, "eos": special.eos, "separator": end}


def _in_turns(documents: Iterator[tuple[str, list[int]]], parts: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, ids): one document of each part after the other while there are any; then what is left."""
    waiting: dict[str, deque[tuple[str, np.ndarray]]] = {part: deque() for part in parts}
    turn = 0
    for name, ids in documents:
        waiting[_part_of(name)].append((name, np.array(ids, dtype=np.int32)))
        while waiting[parts[turn]]:
            yield waiting[parts[turn]].popleft()
            turn = (turn + 1) % len(parts)
    for left in waiting.values():
        yield from left


def _part_of(name: str) -> str:
    """Of a document of packages."""
    return "docstrings" if name.endswith("#docstrings") else "source"


def _encode(
    documents: list[Document], tokenizer: tokenizers.Tokenizer, source: dict[str, Any], log: Path | None
) -> Iterator[tuple[str, list[int]]]:
    """(name, ids) of each document in order, encoded in parallel batches; lazy, so a full corpus ends the work."""
    # A token is at least one byte, so shorter texts need no encoding to be ruled out.
    kept = [d for d in documents if len(d.text.encode()) >= source.get("min_tokens", 0)]
    if "max_digits" in source:
        kept = [d for d in kept if sum(map(str.isdigit, d.text)) <= source["max_digits"] * len(d.text)]
    progress = Progress("tokenise", len(kept), log=log, unit="document")
    for first in range(0, len(kept), BATCH):
        batch = kept[first : first + BATCH]
        encoded = tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encoded, strict=True):
            yield document.name, encoding.ids
        progress.advance(len(batch))
