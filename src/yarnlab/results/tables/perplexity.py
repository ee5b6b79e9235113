"""Perplexity of every arm at N = L/2 … 32L of any base's L: over the whole window, and over its last bucket."""

from __future__ import annotations

from yarnlab.lazy import pd
from yarnlab.results.bases import by_base
from yarnlab.results.display import DisplayTable, by_length, captioned, perplexity_cell
from yarnlab.results.estimates import NotMeasured, nll
from yarnlab.results.estimates import perplexity as perplexity_of
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import head, named_arms, numbers, with_base

MULTIPLES = (0.5, 1, 2, 4, 8, 16, 24, 32)


def tidy(results: Results) -> pd.DataFrame:
    rows = []
    present = set(results.frame("perplexity")["length"])
    contexts = {tree.original_context for tree in by_base(results).values()}
    for model, name in named_arms(results):
        for length in sorted({int(multiple * context) for multiple in MULTIPLES for context in contexts} & present):
            for measure, column in (("cumulative", "nll"), ("last bucket", "bucket_nll")):
                try:
                    estimate = perplexity_of(nll(results, model.arm, length, column))
                except NotMeasured:
                    continue
                row = head(model, name) | {"length": length, "measure": measure}
                rows.append(row | numbers("perplexity", estimate))
    return with_base(results, pd.DataFrame(rows))


@table("Perplexity by context window", tidy, needs=("perplexity",), section="perplexity", place=20)
def perplexity(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Arms by window length, once for the whole window and once for its last bucket."""
    texts = {
        "cumulative": "Perplexity of the whole window of N tokens",
        "last bucket": "Perplexity of the last bucket of a window of N tokens",
    }
    sections = []
    for measure, text in texts.items():
        part = frame[frame["measure"] == measure]
        caption = captioned(f"{text}: geometric mean over documents", part)
        sections.append(by_length(results, "perplexity", caption, part, perplexity_cell))
    return sections
