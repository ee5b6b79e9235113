"""The files of a checkpoint, and whether each is what was written; for this no torch is needed."""

from __future__ import annotations

from pathlib import Path

from yarnlab.provenance import record_is_intact, sha256_of

UNFINISHED = ".checkpoint.partial"  # the folder of one that is being written
PLACE = "place.json"  # the place in the run; a record
ROWS, DIGEST = ".safetensors", ".sha256"  # rows of weights and moments, and the file with the sha256 of theirs


def rows_file(i: int, files: int) -> str:
    """The name of the i-th of so many files of rows."""
    return f"rows-{i:05d}-of-{files:05d}{ROWS}"


def rows_intact(file: Path) -> bool:
    """Whether a file of rows has the sha256 that lies beside it. Raises OSError."""
    return file.with_suffix(DIGEST).read_bytes() == sha256_of(file).encode("ascii")


def is_intact(file: Path) -> bool:
    """Whether a file of a checkpoint is what was written: either of rows and digest says it of both. Raises OSError."""
    return bool(record_is_intact(file)) if file.name == PLACE else rows_intact(file.with_suffix(ROWS))
