"""A corpus on disk: one memory-mapped array of token ids, documents set apart by BOS and EOS, and their index."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID, Special, load_tokenizer
from yarnlab.progress import Progress
from yarnlab.provenance import write_json

if TYPE_CHECKING:
    import tokenizers

HEADER_BYTES = 128  # of a .npy file with one dimension


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


def borders(special: Special, tokenizer: tokenizers.Tokenizer, log: Path | None) -> dict[str, Any]:
    """What stands around documents, for the manifest; the log shows it in the tokenizer's words."""
    begin, end = (tokenizer.id_to_token(token) for token in (special.bos, special.eos))
    Progress("corpus", 0, log=log).say(f"documents begin with {begin!r} and end with {end!r}")
    return {"bos": special.bos, "eos": special.eos, "separator": end}
