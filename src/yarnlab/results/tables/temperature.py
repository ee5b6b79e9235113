"""Best √(1/t) by scale beside the formula's, then slope and intercept of the fit beside the paper's.

`paper`: the value that Eq. 22 gives. delta: the formula's ln perplexity minus that with √(1/t) = 1; absent where
the grid does not hold 1, as the paper's does not. ln_ppl_over_formula: what the grid's best factor gains over the
formula's, in nats (0: the formula is as good; below 0: better than every factor of the grid); its interval takes
that factor as given, though it was found on the same documents.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    DisplayTable,
    captioned,
    cell,
    delta_cell,
    of_base,
    own_cell,
    rows_of,
    signed,
    value,
    with_interval,
)
from yarnlab.results.estimates import NotMeasured, gap
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import difference, numbers
from yarnlab.results.temperature import INTERCEPT, SLOPE, document_nll, fitted, perplexity_by_factor, sweep_of_base


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    found, rows = fitted(results), []
    for best in found.best:
        row: dict[str, Any] = {
            "quantity": "best √(1/t)",
            "scale": best.scale,
            "at_edge": best.at_edge,
            "cut_off": best.cut_off,
        }
        row |= numbers("value", best.factor) | {"paper": SLOPE * math.log(best.scale) + INTERCEPT}
        rows.append(row | _gain(results, best.scale))
    for name, estimate, paper in (("a", found.slope, SLOPE), ("b", found.intercept, INTERCEPT)):
        if estimate is not None:
            rows.append(
                {"quantity": name, "at_edge": False, "cut_off": False, "paper": paper} | numbers("value", estimate)
            )
    return pd.DataFrame(rows)


def _gain(results: Results, scale: float) -> dict[str, Any]:
    frame = sweep_of_base(results)
    means = perplexity_by_factor(frame[frame["scale"] == scale])
    grid = means[means["kind"] == "grid"]
    lowest = float(grid["factor"].to_numpy()[grid["perplexity"].to_numpy().argmin()])
    own = {kind: document_nll(results, scale, kind) for kind in ("formula", "reading")}
    best = document_nll(results, scale, "grid", lowest)
    row: dict[str, Any] = {"grid_best": lowest}
    row |= gap(own["formula"], best).columns("ln_ppl_over_formula")
    row |= gap(own["reading"], own["formula"]).columns("reading")
    with suppress(NotMeasured):
        row |= difference(gap(own["formula"], document_nll(results, scale, "grid", 1.0)))
    return row


@table(
    "Best temperature by scale", tidy, needs=("temperature",), section="temperature", place=20, per_base=True, opened=2
)
def temperature(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Best factor by scale beside the formula's; then the fit beside the paper's numbers."""
    scales = frame[frame["quantity"] == "best √(1/t)"]
    baseline = "delta" in frame
    rows = [
        {
            "scale": f"s = {r.scale:g}",
            "best √(1/t)": with_interval(r.value, r.low, r.high, 4)
            + (" at the grid's edge" if r.at_edge else "")
            + (" on documents read to fewer than s·L tokens" if r.cut_off else ""),
            "formula 0.1 ln s + 1": value(r.paper, 4),
        }
        | ({"formula minus no temperature": delta_cell(r)} if baseline else {})
        | {
            "formula minus best of grid": cell(signed, "ln_ppl_over_formula")(r),
            "√(formula) minus formula": cell(signed, "reading")(r),
        }
        for r in rows_of(scales)
    ]
    note = "The columns with 'minus' are differences in ln perplexity (below 0: the first is better)."
    if not baseline:
        note += " The grid has no √(1/t) = 1 to compare with."
    caption = captioned("Factor √(1/t) of lowest loss at each scale, without fine-tuning", scales, note)
    sections = [of_base(results, "temperature", caption, rows)]
    fit = frame[frame["quantity"].isin(["a", "b"])]
    if not fit.empty:
        meanings = {"a": "a, slope over ln s", "b": "b, value at s = 1"}
        lines = [
            {"√(1/t) = a·ln s + b": meanings[r.quantity], "here": own_cell(with_interval, "value")(r)}
            | {"paper": f"{r.paper:g}"}
            for r in rows_of(fit)
        ]
        note = "Left out: scales whose best factor is at an edge of the grid, and those with a document read to fewer "
        caption = captioned("Line through the best factors over ln s", fit, f"{note}than s·L tokens.")
        sections.append(of_base(results, "temperature", caption, lines))
    return sections
