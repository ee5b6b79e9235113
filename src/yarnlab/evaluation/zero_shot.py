"""Methods × scales on one model as it is: same weights, other rope, perplexity by truncated-prefix@1."""

from __future__ import annotations

from functools import partial
from typing import Any

from yarnlab.evaluation.grids import grid_lengths
from yarnlab.evaluation.perplexity import rows_under
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.study.schema import RopeChoice


def evaluate(task: Task) -> Outcome:
    """One row per method, scale, document and length."""
    import pandas as pd

    shape, settings = task.architecture, task.settings
    cells = len(settings["methods"]) * len(settings["scales"])
    progress = task.progress(cells * len(task.corpus.names), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    rows: list[dict[str, Any]] = []
    for scale in settings["scales"]:
        lengths = grid_lengths(shape.original_context, scale, settings["max_length"])
        for method in settings["methods"]:
            rope = RopeChoice(method=method, scale=scale).make(shape)
            labels = {**columns, "method": method, "scale": float(scale)}
            of_one = partial(rows_under, rope, task, lengths, labels, progress)
            rows += task.blocks.rows(f"{scale}-{method}", progress, len(task.corpus.names), of_one)
    return Outcome(pd.DataFrame(rows))
