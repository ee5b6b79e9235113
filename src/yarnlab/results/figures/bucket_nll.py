"""Mean NLL of each stretch of the window, which cumulative perplexity smooths over."""

from __future__ import annotations

from typing import Any

from yarnlab.results.charts import bounds, powers, rounded
from yarnlab.results.estimates import nll
from yarnlab.results.figures.figure_1 import curves, lengths_of
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.rows import named_arms
from yarnlab.results.statistics import mean


@figure(
    "Loss by position in the window",
    needs=("perplexity",),
    section="perplexity",
    place=40,
    fold="Loss by position in the window",
    parts="groups",
    alt="Lines of mean negative log-likelihood of the tokens in each stretch of the window, one per model.",
    caption="Cumulative perplexity averages over the whole window and hides where a model fails; this is the "
    "mean loss of only the tokens between one measured length and the next.",
)
def bucket_nll(results: Results) -> Any:
    """Mean NLL of each stretch of the window, which cumulative perplexity smooths over."""
    rows = []
    marked = powers(results.original_context)
    for model, name in named_arms(results):
        for length in lengths_of(results, model):
            table = nll(results, model.arm, length, "bucket_nll").to_numpy()
            row = {"model": name, "N": length, "nll": float(table.mean()), "n": table.size}
            if length in marked:  # only markers show an interval
                e = mean(table)
                row |= {"interval": bounds(e.low, e.high)}
            rows.append(row)
    return curves(results, rounded(rows), "nll", "mean NLL of the stretch that ends here (nats/token)", log=False)
