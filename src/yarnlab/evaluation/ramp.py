"""Does the shape of the ramp matter? Perplexity by truncated-prefix@1 for one method with different options.

The paper's γ is linear in the rotations r (Eq. 18), the official code's in the pair index, with its ends rounded
outwards (LlamaYaRNScaledRotaryEmbedding.py:5-22); alpha and beta set where the ramp ends. The variants differ in the
frequencies alone: same weights, same temperature rule.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from yarnlab.evaluation.grids import lengths_within
from yarnlab.evaluation.perplexity import rows_under
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.study.schema import RopeChoice


def evaluate(task: Task) -> Outcome:
    """One row per scale, variant, document and length."""
    import pandas as pd

    shape, settings = task.architecture, task.settings
    documents = task.corpus.names[: settings["documents"]]
    cells = len(settings["variants"]) * len(settings["scales"])
    progress = task.progress(cells * len(documents), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    rows: list[dict[str, Any]] = []
    for scale in settings["scales"]:
        lengths = lengths_within(shape.original_context, scale, settings["max_length"])
        for variant, options in settings["variants"].items():
            rope = RopeChoice(method=settings["method"], scale=scale, **options).make(shape)
            labels = {**columns, "variant": variant, "method": settings["method"], "scale": float(scale)}
            of_one = partial(rows_under, rope, task, lengths, labels, progress, settings["documents"])
            rows += task.blocks.rows(f"{scale}-{variant}", progress, len(documents), of_one)
    table = pd.DataFrame(rows)
    return Outcome(table, _at_the_end(table))


def _at_the_end(table: Any) -> dict[str, float]:
    """Mean NLL over the documents at each scale's longest length."""
    longest = table[table["length"] == table.groupby("scale")["length"].transform("max")]
    means = longest.groupby(["scale", "variant"], sort=False)["nll"].mean()
    return {f"nll/{variant}/{scale:g}": float(nll) for (scale, variant), nll in means.items()}
