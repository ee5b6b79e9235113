"""Documents from a dataset's files: one shard of token ids a file, written as it is read, kept for a restart.

Memory holds one batch of documents whatever the dataset's size. Encoding is parallel inside the tokenizers library and
deterministic.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokens import stored
from yarnlab.provenance import replacing

if TYPE_CHECKING:
    import tokenizers

BATCH_BYTES = 8_000_000  # of text encoded at once, or of ids read at once
# What can be done about a row that can't be read.
_LEAVE_OUT = "leave the file out of the corpus's files"
_REPAIR = f"correct the corpus's `column`, or {_LEAVE_OUT}"


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
    """The texts of one file, streamed. Raises CorpusError naming file, row and column for what is no text."""
    if form == "text":
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"{file}: no text in UTF-8 ({error}): {_LEAVE_OUT}") from None
        yield text
    elif form == "jsonl":
        for number, line in _lines(file):
            if not line.strip():
                continue  # as behind the last row
            yield _text(_json_value(line, f"{file}:{number}", column), f"{file}:{number}", column)
    else:
        for number, cell in _parquet_rows(file, str(column)):
            try:
                value = cell.as_py()
            except UnicodeDecodeError as error:
                raise CorpusError(f"{file}, row {number}: {column!r} is not in UTF-8 ({error}): {_REPAIR}") from None
            yield _text(value, f"{file}, row {number}", column)


def id_rows(file: Path, column: str) -> Iterator[np.ndarray]:
    """The rows of token ids of one parquet file, streamed: int64. Raises CorpusError for a row that is none."""
    import pyarrow

    for number, cell in _parquet_rows(file, column):
        ids = cell.values if isinstance(cell, pyarrow.ListScalar) and cell.is_valid else None
        if ids is None or ids.null_count or not pyarrow.types.is_integer(ids.type):
            found = "null" if not cell.is_valid else f"of type {cell.type}"
            if ids is not None and ids.null_count:
                found = "a list with nulls"
            raise CorpusError(f"{file}, row {number}: {column!r} is {found}, not a list of token ids: {_REPAIR}")
        yield np.asarray(ids.to_numpy(zero_copy_only=False), dtype=np.int64)


def _parquet_rows(file: Path, column: str) -> Iterator[tuple[int, Any]]:
    """(row, cell) of one column, rows counted from 1."""
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        opened = parquet.ParquetFile(file)
        if column not in opened.schema_arrow.names:
            found = ", ".join(opened.schema_arrow.names)
            raise CorpusError(f"{file} has no column {column!r}; it has {found}: correct the corpus's `column`")
        for batch in opened.iter_batches(batch_size=8, columns=[column]):
            for cell in batch.column(0):
                row += 1
                yield row, cell
    except (OSError, pyarrow.ArrowException) as error:
        where, why = f" after row {row}" if row else "", " ".join(str(error).split())  # Arrow's have several lines
        raise CorpusError(f"{file} is no readable parquet file{where} ({why}): fetch or save it again") from None


def _json_value(line: bytes, place: str, column: str | None) -> Any:
    try:
        row = json.loads(line.decode("utf-8-sig"))  # with or without the mark that some editors begin a file with
    except ValueError as error:  # of JSON or UTF-8
        raise CorpusError(f"{place}: no JSON object in UTF-8 ({error}): {_LEAVE_OUT}") from None
    if not isinstance(row, dict):
        raise CorpusError(f"{place}: no JSON object with {column!r}, but a value that is {_kind(row)}: {_LEAVE_OUT}")
    if column not in row:
        raise CorpusError(f"{place}: no JSON object with {column!r}; it has {', '.join(row) or 'nothing'}: {_REPAIR}")
    return row[column]


def _text(value: Any, place: str, column: str | None) -> str:
    """The value, if it is a text that can be encoded."""
    if not isinstance(value, str):
        raise CorpusError(f"{place}: {column!r} is {_kind(value)}, not a text: {_REPAIR}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        raise CorpusError(f"{place}: {column!r} holds what is no character ({error}): {_LEAVE_OUT}") from None
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of a file that may be compressed, from 1. Bytes: decoders read ahead, so could name no line."""
    number = 0
    try:
        with _opened(file) as lines:
            for line in lines:
                number += 1
                yield number, line
    except (EOFError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the system, which names its own trouble
            raise
        raise CorpusError(
            f"{file} is damaged or cut off after line {number} ({error}): fetch or save it again"
        ) from None


@contextmanager
def _opened(file: Path) -> Iterator[Iterable[bytes]]:
    if file.suffix == ".gz":
        with gzip.open(file, "rb") as lines:
            yield lines
    elif file.suffix == ".zst":
        import pyarrow

        # Arrow's own streams can't be read line by line.
        with pyarrow.input_stream(str(file), compression="zstd") as stream, io.BufferedReader(stream) as buffered:
            yield buffered
    else:
        with file.open("rb") as plain:
            yield plain


def encoded(
    texts: Iterable[str], tokenizer: tokenizers.Tokenizer, batch_bytes: int = BATCH_BYTES
) -> Iterator[np.ndarray]:
    """The ids of each text without special tokens, encoded in parallel batches of bounded size."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= batch_bytes:
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
                file.write(stored(ids, dtype))
                lengths.append(len(ids))
                if len(lengths) == enough:
                    break
        with replacing(lengths_file) as temporary, temporary.open("wb") as file:
            np.save(file, np.array(lengths, dtype=np.int64))
    lengths_found = np.load(lengths_file)
    count = int(lengths_found.sum())
    ids = np.memmap(target, dtype=dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
    return Shard(ids, lengths_found)
