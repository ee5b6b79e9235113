"""Does the shape of the ramp matter? Perplexity by truncated-prefix@1 for one method with different options.

The paper's γ is linear in the rotations r (Eq. 18), the official code's in the pair index, with its ends rounded
outwards (LlamaYaRNScaledRotaryEmbedding.py:5-22); alpha and beta set where the ramp ends. The variants differ in the
frequencies alone: same weights, same temperature rule.
"""

from __future__ import annotations

from yarnlab.evaluation.grids import lengths_within
from yarnlab.evaluation.perplexity import document_nll, perplexity_table
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import set_rope
from yarnlab.study.schema import RopeChoice


def evaluate(task: Task) -> Outcome:
    """One row per scale, variant, document and length."""
    import pandas as pd

    shape, settings = task.architecture, task.settings
    documents = task.corpus.names[: settings["documents"]]
    cells = len(settings["variants"]) * len(settings["scales"])
    progress = task.progress(cells * len(documents), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    tables, metrics = [], {}
    for scale in settings["scales"]:
        lengths = lengths_within(shape.original_context, scale, settings["max_length"])
        for variant, options in settings["variants"].items():
            rope = RopeChoice(method=settings["method"], scale=scale, **options).make(shape)
            set_rope(task.model, rope)
            nll = document_nll(
                task.model,
                rope,
                task.corpus,
                lengths[-1],
                settings["precision"],
                progress,
                documents=settings["documents"],
            )
            labels = {**columns, "variant": variant, "method": settings["method"], "scale": float(scale)}
            tables.append(perplexity_table(nll, documents, lengths, labels))
            metrics[f"nll/{variant}/{scale:g}"] = float(nll.mean())
    return Outcome(pd.concat(tables, ignore_index=True), metrics)
