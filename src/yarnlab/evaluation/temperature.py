"""temperature@1: NLL by attention factor √(1/t) and position at each scale, no fine-tuning (paper App. A.2, Eq. 22).

The paper's sweep has no published code; what is known of it: one method at a fixed scale, documents of s·L tokens, a
grid of √(1/t), the mean NLL of equal segments of each document. One forward pass per document, scale and factor:
measured on CPU, batches of short documents are no faster than one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.grids import factors_at
from yarnlab.evaluation.perplexity import document_nll
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import set_rope
from yarnlab.rope import Rope
from yarnlab.study.fields import FactorGrid
from yarnlab.study.schema import RopeChoice

if TYPE_CHECKING:
    from torch import Tensor

    from yarnlab.progress import Progress

PROTOCOL = "temperature@1"


@dataclass(frozen=True, kw_only=True)
class Tempered(Rope):
    """The frequencies of `untempered` with the attention factor `factor`: any static method, any temperature."""

    method = "tempered"

    untempered: Rope
    factor: float

    @property
    def attention_factor(self) -> float:
        return self.factor

    def inv_freq(self) -> Tensor:
        return self.untempered.inv_freq()


def tempered(rope: Rope, factor: float) -> Tempered:
    """`rope` with √(1/t) = `factor` in place of its own attention factor."""
    return Tempered(
        untempered=rope,
        factor=factor,
        scale=rope.scale,
        original_context=rope.original_context,
        head_dim=rope.head_dim,
        base=rope.base,
    )


def segment_means(nll: np.ndarray, segments: int) -> list[dict[str, float | int]]:
    """Mean NLL of `segments` equal parts of a document; sums are in fp64.

    Args:
        nll: NLL of positions 1, 2, … of a document of len(nll) + 1 tokens. Position 0 is BOS, which nothing predicts,
            so the first part has one target less than its tokens.
    """
    bounds = [round(i * (len(nll) + 1) / segments) for i in range(segments + 1)]
    rows = []
    for i in range(segments):
        start, end = max(bounds[i], 1), bounds[i + 1]
        part = nll[start - 1 : end - 1]
        rows.append({"segment": i, "start": start, "tokens": len(part), "nll": float(part.mean(dtype=np.float64))})
    return rows


def evaluate(task: Task) -> Outcome:
    """One row per scale, factor, document and segment; weights and frequencies are the same for all factors."""
    import pandas as pd

    settings = task.settings
    grid = FactorGrid(**settings["factors"]).values()
    documents = task.corpus.names[: settings["documents"]]
    lengths = [_length(task, scale) for scale in settings["scales"]]
    progress = task.progress(len(lengths) * len(factors_at(1.0, grid)) * len(documents), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    rows: list[dict[str, Any]] = []
    for scale, length in zip(settings["scales"], lengths, strict=True):
        untempered = RopeChoice(method=settings["method"], scale=scale).make(task.architecture)
        for kind, factor in factors_at(scale, grid):
            labels = {**columns, "method": settings["method"], "scale": float(scale), "factor": factor, "kind": kind}
            of_one = partial(_rows, task, tempered(untempered, factor), length, labels, progress)
            rows += task.blocks.rows(f"{scale}-{kind}-{factor}", progress, len(documents), of_one)
    table = pd.DataFrame(rows)
    return Outcome(table, _best_factors(table))


def _rows(task: Task, rope: Rope, length: int, labels: dict[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """One row per document and segment."""
    settings, count = task.settings, task.settings["documents"]
    set_rope(task.model, rope)
    nll = document_nll(task.model, rope, task.corpus, length, settings["precision"], progress, documents=count)
    return [
        {**labels, "document": name, **part, "protocol": PROTOCOL}
        for name, values in zip(task.corpus.names[:count], nll, strict=True)
        for part in segment_means(values, settings["segments"])
    ]


def _length(task: Task, scale: float) -> int:
    """Tokens read of each document: s·L, or `max_length` where that is less."""
    settings = task.settings
    length = min(round(scale * task.architecture.original_context), settings["max_length"])
    if length < 2 * settings["segments"]:
        raise EvaluationError(
            f"temperature reads {length} tokens at scale {scale:g}, too few for {settings['segments']} segments: "
            "lower `segments` or raise `max_length`"
        )
    return length


def _best_factors(table: Any) -> dict[str, float]:
    """The grid's factor of lowest mean NLL at each scale."""
    curves = table[table["kind"] == "grid"].groupby(["scale", "factor"])["nll"].mean()
    return {f"best_factor/{scale:g}": float(curves[scale].idxmin()) for scale in table["scale"].unique()}
