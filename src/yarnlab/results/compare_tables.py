"""Numbers of a written table by what they are of, so that two studies' tables can be set side by side."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

# Columns that say what a number is of, in the tidy tables of all kinds.
KEYS = (
    "base",
    "cell",
    "artifact",
    "curve",
    "quantity",
    "model",
    "arm",
    "variant",
    "method",
    "scale",
    "layer",
    "head",
    "cache",
    "task",
    "metric",
    "measure",
    "length",
    "bucket_start",
    "bucket_end",
    "depth_low",
    "depth_high",
    "stage",
    "name",
)
LENGTHS = ("length", "bucket_start", "bucket_end")
NAMED = (*LENGTHS, "scale", "layer", "head")  # keys that do not speak for themselves
# Numbers without an interval that are results all the same.
PLAIN = {
    "training": ("final_loss", "final_text_loss", "final_answer_loss", "steps", "tokens", "tokens_per_second"),
    "cost": ("seconds", "peak_memory_gib"),
    "published_curves": ("measured", "within", "largest"),
}
NOT_OURS = ("published", "depth")  # columns with bounds that are no result


@dataclass(frozen=True, eq=False)
class Number:
    """A number with its 95 % interval (NaN where it has none) and n, as they stand in the file.

    Equal when value and interval are, NaN being equal to NaN.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: str = ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Number):
            return NotImplemented
        pairs = zip((self.value, self.low, self.high), (other.value, other.low, other.high), strict=True)
        return all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in pairs)


def numbers(path: Path, original_context: int | None = None) -> dict[tuple[str, str], Number]:
    """(key, column) → number for every number of a tidy table; empty for a table that says 'not run'.

    original_context: lengths in the keys are given in units of it; None: in tokens.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = list(reader.fieldnames or ())
        found: dict[tuple[str, str], Number] = {}
        for row in reader:
            key = _key(row, original_context)
            for column, (low, high) in _measured(path.stem, columns).items():
                value = _float(row.get(column))
                if not math.isnan(value):
                    n = row.get(f"{column}_n") or row.get("n") or ""
                    found[key, column] = Number(value, _float(row.get(low)), _float(row.get(high)), n)
    return found


def _measured(table: str, columns: list[str]) -> dict[str, tuple[str, str]]:
    """The columns that hold results, each with the columns of its interval ('' where it has none)."""
    found = {column: ("", "") for column in PLAIN.get(table, ()) if column in columns}
    if "low" in columns and table not in PLAIN:
        # A tidy row is keys, then the number, then low, high, n: see yarnlab.results.rows.numbers.
        found[columns[columns.index("low") - 1]] = ("low", "high")
    # Further numbers of a row have bounds of their own name: see yarnlab.results.statistics.Estimate.columns.
    bounded = (column for column in columns if f"{column}_low" in columns and column not in NOT_OURS)
    return found | {column: (f"{column}_low", f"{column}_high") for column in bounded}


def _key(row: dict[str, str], original_context: int | None) -> str:
    parts = []
    for column in KEYS:
        text = row.get(column) or ""
        if not text:
            continue
        if column in LENGTHS:
            tokens = float(text)
            text = f"{tokens:,.0f}" if original_context is None else f"{tokens / original_context:g}L"
        parts.append(f"{column.replace('_', ' ')} {text}" if column in NAMED else text)
    return ", ".join(parts)


def _float(text: str | None) -> float:
    try:
        return float(text) if text else math.nan
    except ValueError:
        return math.nan
