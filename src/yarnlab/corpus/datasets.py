"""Documents from a dataset's files: one shard of token ids a file, written as it is read, kept for a restart.

Memory holds one batch of documents whatever the dataset's size. Encoding is parallel inside the tokenizers library and
deterministic.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokens import stored
from yarnlab.provenance import replacing

if TYPE_CHECKING:
    import tokenizers

BATCH_BYTES = 8_000_000  # of text encoded at once, or of ids read at once


@dataclass(frozen=True)
class Shard:
    """One file's documents: `ids`, all of them one behind the other, and the number of ids of each."""

    ids: np.ndarray
    lengths: np.ndarray

    def documents(self) -> Iterator[np.ndarray]:
        at = 0
        for length in self.lengths:
            yield self.ids[at : at + int(length)]
            at += int(length)


def files_of(asset: Path, patterns: Iterable[str]) -> list[Path]:
    """The asset's files that match, in order. Raises CorpusError for a pattern that none matches."""
    names = sorted(path.relative_to(asset).as_posix() for path in asset.rglob("*") if path.is_file())
    found: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatch(name, pattern)]
        if not matching:
            shown = ", ".join(name for name in names if not name.endswith(".json"))[:300]
            raise CorpusError(f"no file of {asset.name} matches {pattern!r}; it has {shown}")
        found |= set(matching)
    return [asset / name for name in sorted(found)]


def text_rows(file: Path, form: str, column: str | None) -> Iterator[str]:
    """The texts of one file, streamed. Raises CorpusError naming file and column."""
    if form == "text":
        yield file.read_text(encoding="utf-8")
    elif form == "jsonl":
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield str(json.loads(line)[column])
                except (ValueError, KeyError) as error:
                    raise CorpusError(f"{file}:{number}: no JSON object with {column!r} ({error})") from None
    else:
        yield from _parquet_rows(file, str(column))


def id_rows(file: Path, column: str) -> Iterator[np.ndarray]:
    """The rows of token ids of one parquet file, streamed."""
    for row in _parquet_rows(file, column):
        yield np.asarray(row, dtype=np.int64)


def _parquet_rows(file: Path, column: str) -> Iterator[Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        opened = parquet.ParquetFile(file)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise CorpusError(f"{file} is no readable parquet file ({error}): fetch it again") from None
    if column not in opened.schema_arrow.names:
        raise CorpusError(f"{file} has no column {column!r}; it has {', '.join(opened.schema_arrow.names)}")
    for batch in opened.iter_batches(batch_size=8, columns=[column]):
        for value in batch.column(0):
            yield value.values.to_numpy(zero_copy_only=False) if hasattr(value, "values") else value.as_py()


@contextmanager
def _opened(file: Path) -> Iterator[Iterable[str]]:
    if file.suffix == ".gz":
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            yield lines
    elif file.suffix == ".zst":
        import pyarrow

        # Arrow's own streams can't be read line by line.
        with (
            pyarrow.input_stream(str(file), compression="zstd") as stream,
            io.TextIOWrapper(stream, encoding="utf-8") as lines,
        ):
            yield lines
    else:
        with file.open(encoding="utf-8") as plain:
            yield plain


def encoded(texts: Iterator[str], tokenizer: tokenizers.Tokenizer) -> Iterator[np.ndarray]:
    """The ids of each text without special tokens, encoded in parallel batches of bounded size."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES:
            yield from _encode(batch, tokenizer)
            batch, size = [], 0
    yield from _encode(batch, tokenizer)


def _encode(batch: list[str], tokenizer: tokenizers.Tokenizer) -> Iterator[np.ndarray]:
    for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
        yield np.asarray(encoding.ids, dtype=np.int64)


def shard(documents: Iterator[np.ndarray], target: Path, dtype: type[np.generic], enough: int | None) -> Shard:
    """The documents of one file as a memory-mapped shard at `target`, from disk if it is there.

    Stops after `enough` documents. A shard is complete or absent: its lengths are written last.
    """
    lengths_file = target.with_suffix(".lengths.npy")
    if not lengths_file.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        lengths = []
        with target.open("wb") as file:
            for ids in documents:
                lengths.append(_append(file, ids, dtype))
                if len(lengths) == enough:
                    break
        with replacing(lengths_file) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(lengths, dtype=np.int64))
    lengths_found = np.load(lengths_file)
    count = int(lengths_found.sum())
    ids = np.memmap(target, dtype=dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
    return Shard(ids, lengths_found)


def _append(file: IO[bytes], ids: np.ndarray, dtype: type[np.generic]) -> int:
    file.write(stored(ids, dtype))
    return len(ids)
