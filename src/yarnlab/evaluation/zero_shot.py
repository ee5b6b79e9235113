"""Methods × scales on one model as it is: same weights, other rope, perplexity by truncated-prefix@1."""

from __future__ import annotations

from yarnlab.evaluation.grids import grid_lengths
from yarnlab.evaluation.perplexity import document_nll, perplexity_table
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import set_rope
from yarnlab.study.schema import RopeChoice


def evaluate(task: Task) -> Outcome:
    """One row per method, scale, document and length."""
    import pandas as pd

    shape, settings = task.architecture, task.settings
    cells = len(settings["methods"]) * len(settings["scales"])
    progress = task.progress(cells * len(task.corpus.names), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    tables = []
    for scale in settings["scales"]:
        lengths = grid_lengths(shape.original_context, scale, settings["max_length"])
        for method in settings["methods"]:
            rope = RopeChoice(method=method, scale=scale).make(shape)
            set_rope(task.model, rope)
            nll = document_nll(task.model, rope, task.corpus, lengths[-1], settings["precision"], progress)
            labels = {**columns, "method": method, "scale": float(scale)}
            tables.append(perplexity_table(nll, task.corpus.names, lengths, labels))
    return Outcome(pd.concat(tables, ignore_index=True))
