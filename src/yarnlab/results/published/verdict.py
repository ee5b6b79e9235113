"""A verdict on every published number.

The rule, written before any result:

* **not run**: the study has no model that stands for the published one, or has not measured it; the reason says which.
* **not comparable**: there is a number of ours, but of an analogue, other text or another protocol.
* **reproduced**: our value is within the tolerance (`verdict_tolerance`) of what the published number can have been;
  for '>10^n', it is above.
* **contradicted**: it is not, and an order that the paper's table shows is reversed: another cell of the same column
  (same length or task, another model) or row (same model, another length) that the paper has clearly above or below
  this one is, here, clearly on the other side (`verdict_order`). One number that is off is a difference; an order that
  is turned round contradicts what the table is printed for.
* **differs**: anything else outside the tolerance.

Where the documents are not the published ones the tolerance holds our interval, so that 'differs' means that the
interval excludes the published value. Where they are, the interval over documents says nothing about the difference,
and an order is judged on differences paired by document.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.published_match import ours
from yarnlab.results.published.published_ours import Ours
from yarnlab.results.published.reference import Reference, load_reference
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.published.verdict_order import Orders, compare_orders
from yarnlab.results.published.verdict_tolerance import Tolerance, tolerance
from yarnlab.results.results import Results

REPRODUCED, DIFFERS, CONTRADICTED = "reproduced", "differs", "contradicted"
NOT_RUN, NOT_COMPARABLE = "not run", "not comparable"
VERDICTS = (REPRODUCED, DIFFERS, CONTRADICTED, NOT_RUN, NOT_COMPARABLE)


@dataclass(frozen=True, eq=False)
class CellVerdict:
    """What became of one published number.

    difference: ours minus published, in the cell's unit; relative: that over the published value. Both NaN where there
    is nothing to subtract ('>10^n', no number of ours).
    excess: how far our value is outside of what the published number can have been; at most the tolerance where it is
        reproduced.
    reason: why it is not run or not comparable, or which order is reversed; empty otherwise.
    """

    cell: Cell
    verdict: str
    ours: Ours | None
    difference: float
    relative: float
    excess: float
    tolerance: Tolerance | None
    orders: Orders
    reason: str


def judge(cell: Cell, kind: str, found: Ours, orders: Orders) -> CellVerdict:
    """The verdict on a cell that this study has a number for."""
    value, target = found.estimate.value, cell.target
    if target is None:
        return CellVerdict(cell, NOT_COMPARABLE, found, *(math.nan,) * 3, None, orders, "the paper gives no number")
    low, high = cell.range
    excess = max(low - value, value - high, 0.0)
    difference = math.nan if cell.relation == ">" else value - target
    relative = difference / target if target else math.nan
    allowed = tolerance(cell, kind, found)
    reason = found.incomparable or ""
    if reason:
        verdict = NOT_COMPARABLE
    elif excess <= allowed.amount and (cell.relation == "=" or value > low):
        verdict = REPRODUCED
    elif orders.reversed:
        verdict = CONTRADICTED
        reason = f"order reversed against {', '.join(orders.reversed[:3])}"
        reason += f" and {len(orders.reversed) - 3} more" if len(orders.reversed) > 3 else ""
    else:
        verdict = DIFFERS
    return CellVerdict(cell, verdict, found, difference, relative, excess, allowed, orders, reason)


@lru_cache(maxsize=128)
def judge_artifact(results: Results, reference: Reference, artifact: str) -> tuple[CellVerdict, ...]:
    """A verdict on every cell of one table, figure or section; orders never leave it."""
    cells = reference.of(artifact)
    found: dict[str, Ours] = {}
    absent: dict[str, str] = {}
    for cell in cells:
        try:
            found[cell.cell] = ours(results, reference, cell)
        except NotMeasured as reason:
            absent[cell.cell] = str(reason)
    orders = compare_orders(cells, found)
    verdicts = []
    for cell in cells:
        if cell.cell in absent:
            nothing = (math.nan, math.nan, math.nan)
            verdicts.append(CellVerdict(cell, NOT_RUN, None, *nothing, None, Orders(), absent[cell.cell]))
        else:
            kind = reference.protocols[cell.protocol].kind
            verdicts.append(judge(cell, kind, found[cell.cell], orders[cell.cell]))
    return tuple(verdicts)


def judge_all(results: Results, reference: Reference | None = None) -> tuple[CellVerdict, ...]:
    """A verdict on every published cell, in the paper's order."""
    reference = reference or load_reference()
    return tuple(v for name in reference.artifacts for v in judge_artifact(results, reference, name))


def counts(verdicts: tuple[CellVerdict, ...]) -> dict[str, int]:
    """How many cells have each verdict, in the order of VERDICTS."""
    return {name: sum(v.verdict == name for v in verdicts) for name in VERDICTS}
