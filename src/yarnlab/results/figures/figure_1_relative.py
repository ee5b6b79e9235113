"""Perplexity relative to that at L against N/L: base, YaRN and PI of this study over the paper's Figure 1."""

from __future__ import annotations

import math
from typing import Any

from yarnlab.results.bases import tree_of
from yarnlab.results.estimates import NotMeasured, nll
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.overlay import overlaid, relative
from yarnlab.results.registry import figure
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import named_arms
from yarnlab.results.style import labels, look


@figure(
    "Shape of the paper’s Figure 1",
    needs=("perplexity",),
    section="perplexity",
    place=30,
    fold="The shape of these curves over the paper’s Figure 1",
    parts="groups",
    alt="Lines of perplexity divided by its value at the original context, against the context window in "
    "units of the original context, both axes logarithmic; this study's models in colour over the "
    "paper's in grey.",
    caption="Perplexities of different models on different text cannot be compared, but the shape of the "
    "curve can: every curve is divided by its own value at L. Coloured: this study. Grey: the paper’s "
    "models, from the authors’ own result files.",
)
def figure_1_relative(results: Results) -> Any:
    """Perplexity relative to that at L against N/L: base, YaRN and PI of this study over the paper's Figure 1."""
    names = labels(results)
    shown = [model for model in _compared(results) if _measured(results, model)]
    rows: list[dict[str, Any]] = []
    for model in shown:
        own, window = results.frame("perplexity"), tree_of(results, model.arm).original_context
        lengths = sorted(int(n) for n in own.loc[own["arm"] == model.arm, "length"].unique() if n >= window / 2)
        start = nll(results, model.arm, window)
        for length in lengths:
            change = (nll(results, model.arm, length) - start).dropna(axis=1).to_numpy(float)
            row = {"model": names[model.arm], "x": length / window, "y": math.exp(min(change.mean(), 700.0))}
            rows.append(row | {"n": change.size})
    published = relative(load_reference().figure("Figure 1"), "model")
    looks = {names[model.arm]: look(model, results) for model in shown}
    return overlaid(rows, looks, published, "perplexity(N) / perplexity(L)")


def _compared(results: Results) -> list[Model]:
    """Arms that have a counterpart in the paper's Figure 1: base, YaRN at its scales, PI and NTK-aware."""
    kept = {"yarn", "pi", "ntk-aware"}
    bases = ("pretrain", "hub")
    return [m for m, _ in named_arms(results) if m.kind in bases or (m.method in kept and m.ramp == "dimension")]


def _measured(results: Results, model: Model) -> bool:
    try:
        nll(results, model.arm, tree_of(results, model.arm).original_context)
    except NotMeasured:
        return False
    return True
