"""Our number for a published cell, whatever kind of number it is: `ours(results, reference, cell)`.

Each protocol of config/reference/protocols.csv has a kind, and each kind one function in published_ours (evaluations)
or published_settings (settings, formulas, budgets, costs).
"""

from __future__ import annotations

from dataclasses import replace

from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.published_ours import MEASURED, Ours, because
from yarnlab.results.published.published_settings import SETTINGS
from yarnlab.results.published.reference import Reference
from yarnlab.results.published.reference_roles import role_of
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.results import Results


def ours(results: Results, reference: Reference, cell: Cell) -> Ours:
    """Our number for a cell; NotMeasured says why there is none."""
    kind = reference.protocols[cell.protocol].kind
    measure = (MEASURED | SETTINGS).get(kind)
    if measure is None:
        raise NotMeasured(f"nothing here measures {kind}")
    published = reference.model_of(cell) if kind != "formula" else None
    role = role_of(results, published) if published is not None else None
    if published is not None and role is None:
        raise NotMeasured(f"no model of this study stands for {published.label}")
    found = measure(results, reference, cell, role)
    if role is not None and role.analogue is not None:
        found = replace(found, incomparable=because(role.analogue, found.incomparable))
    return found
