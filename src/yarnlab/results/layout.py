"""Laying tidy tables out for reading: rows by columns as strings, n in the caption, each row's source files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from yarnlab.results.family import roots, tree_of
from yarnlab.results.format import Section, windows
from yarnlab.results.hypothesis import LEVEL
from yarnlab.results.load import Results
from yarnlab.results.style import labels, method_label

INTERVAL = "95 % intervals in brackets"
UNPROVEN = "n.s."


def manifests_of(results: Results, kind: str, arm: str) -> list[str]:
    """Relative paths of the manifests behind an arm's numbers; kind 'training' means the models' own."""
    if kind == "training":
        return [f"models/{name}/manifest.json" for name in results.members(arm)]
    kind = kind.partition(".")[0]
    return [f"evaluations/{kind}/{name}.manifest.json" for name in results.members(arm)]


def base_manifests(results: Results, kind: str) -> list[str]:
    """The same of the base, for what is measured on it alone."""
    base = results.base()
    return manifests_of(results, kind, base.arm) if base else []


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows, columns as attributes."""
    return iter(frame.itertuples())


def wide(
    caption: str,
    frame: pd.DataFrame,
    row: str,
    column: str,
    cell: Callable[[Any], str],
    *,
    name: Callable[[Any], str] = str,
    heading: str | None = None,
    sources: list[str],
) -> Section:
    """`row` values down, sorted `column` values across, each cell the text of its row of the frame."""
    cells = {(getattr(r, row), getattr(r, column)): cell(r) for r in rows_of(frame)}
    across = sorted(frame[column].unique())
    lines = [
        {heading or row: method_label(str(value))} | {name(c): cells.get((value, c), "–") for c in across}
        for value in frame[row].drop_duplicates()
    ]
    return Section(caption, pd.DataFrame(lines), [list(sources) for _ in lines])


def by_length(results: Results, kind: str, caption: str, frame: pd.DataFrame, cells: dict) -> Section:
    """Models down, lengths across; `cells` by (label, length)."""
    contexts = {tree.original_context for tree in roots(results).values()}
    name = {n: windows(n, *contexts) if len(contexts) == 1 else f"{n:,}" for n in sorted(frame["length"].unique())}
    return by_model(results, kind, caption, frame, cells, name)


def by_model(
    results: Results, kind: str, caption: str, frame: pd.DataFrame, cells: dict, across: dict[Any, str]
) -> Section:
    """Models down, with their base where the frame has it; `cells` by (label, key), `across`: key → heading."""
    arms = frame[["arm", "label", *(["base"] if "base" in frame else [])]].drop_duplicates()
    rows = [
        {"model": r.label}
        | ({"base": r.base} if "base" in arms else {})
        | {heading: cells.get((r.label, key), "–") for key, heading in across.items()}
        for r in rows_of(arms)
    ]
    return Section(caption, pd.DataFrame(rows), [manifests_of(results, kind, arm) for arm in arms["arm"]])


def count(frame: pd.DataFrame) -> str:
    """'12 documents', or the range where cells differ."""
    if frame.empty:
        return "0"
    low, high = int(frame["n"].min()), int(frame["n"].max())
    over = frame["over"].iloc[0]
    return f"{low:,} {over}" if low == high else f"{low:,}–{high:,} {over}"


def marked(text: str, p_holm: float) -> str:
    """The text, with a mark where the difference is not significant after Holm's correction."""
    return text if p_holm < LEVEL else f"{text} {UNPROVEN}"


def same_base(frame: pd.DataFrame) -> str:
    """What a caption of comparisons adds where the rows have a `base`."""
    return " Models are compared with those of the same base only." if "base" in frame else ""


def extended_of(results: Results, arms: Iterable[str]) -> list[str]:
    """Labels of the YaRN models that these arms are compared with, each base's own."""
    names = labels(results)
    found = [tree_of(results, arm).extended() for arm in dict.fromkeys(arms)]
    return list(dict.fromkeys(names[model.arm] for model in found if model is not None))


def mark_note(frame: pd.DataFrame, test: str) -> str:
    """What the mark means, for the caption."""
    return f"{UNPROVEN}: p ≥ {LEVEL:g} by {test}, Holm-corrected over {int(frame['p'].notna().sum())} comparisons."
