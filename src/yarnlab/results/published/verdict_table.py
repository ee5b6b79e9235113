"""Verdicts as a tidy table: one row for each published number, with ours, the tolerance and where ours comes from."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.published.published_commands import command_for
from yarnlab.results.published.reference import Reference, load_reference
from yarnlab.results.published.verdict import NOT_RUN, VERDICTS, CellVerdict, judge_artifact
from yarnlab.results.results import Results


def verdict_table(results: Results, *artifacts: str) -> pd.DataFrame:
    """The published cells of these tables, figures or sections, or all of them, in the paper's order.

    published_low, published_high: what the published number can have been. our_x: the length in tokens that ours was
    measured at, or up to; it is the study's own, whatever the published one is.
    difference and tolerance are in `unit`; the tolerance is counted from the end of the published range.
    manifest: that of ours (the first, for several seeds).
    """
    wanted = artifacts or load_reference().artifacts
    return pd.DataFrame([row for name in wanted for row in _rows(results, name)])


@lru_cache(maxsize=128)
def _rows(results: Results, artifact: str) -> tuple[dict[str, Any], ...]:
    reference = load_reference()
    return tuple(_row(results, reference, verdict) for verdict in judge_artifact(results, reference, artifact))


def count_table(results: Results) -> pd.DataFrame:
    """How many cells of each table, figure or section have each verdict, and all of them together."""
    table = verdict_table(results)
    rows = [_counted(str(name), part) for name, part in table.groupby("artifact", sort=False)]
    return pd.DataFrame([*rows, _counted("all", table)])


def _counted(name: str, part: pd.DataFrame) -> dict[str, Any]:
    return {"artifact": name, "cells": len(part)} | {v: int((part["verdict"] == v).sum()) for v in VERDICTS}


def _row(results: Results, reference: Reference, verdict: CellVerdict) -> dict[str, Any]:
    cell, ours = verdict.cell, verdict.ours
    published = reference.model_of(cell)
    low, high = cell.range
    own: dict[str, Any] = dict.fromkeys(
        ("our_model", "our_x", "ours", "low", "high", "n", "over", "interval", "manifest")
    )
    if ours is not None:
        e, role = ours.estimate, ours.role
        own |= {"ours": e.value, "low": e.low, "high": e.high, "n": e.n, "over": e.over, "interval": e.method}
        own["manifest"] = ours.sources[0] if ours.sources else None
        own |= {"our_model": role.model.arm if role is not None else None, "our_x": ours.length}
    command = command_for(results, reference, cell) if verdict.verdict == NOT_RUN else ""
    return {
        "cell": cell.cell,
        "artifact": cell.artifact,
        "version": cell.version,
        "model": cell.model,
        "label": published.label if published else "YaRN",
        "method": cell.method,
        "scale": cell.scale,
        "protocol": cell.protocol,
        "metric": cell.metric,
        "unit": cell.unit,
        "x": cell.x,
        "printed": cell.printed,
        "published": cell.target,
        "published_low": low,
        "published_high": high,
        "rounding": cell.rounding,
        **own,
        "difference": verdict.difference,
        "relative": verdict.relative,
        "tolerance": verdict.tolerance.amount if verdict.tolerance else None,
        "tolerance_reason": verdict.tolerance.reason if verdict.tolerance else None,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "orders_kept": len(verdict.orders.kept),
        "orders_reversed": len(verdict.orders.reversed),
        "orders_open": len(verdict.orders.open),
        "command": command,
        "source": cell.source,
        "exact_source": cell.exact_source,
        "note": cell.note,
    }
