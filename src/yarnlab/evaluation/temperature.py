"""temperature@1: NLL by attention factor √(1/t) and position at each scale, no fine-tuning (paper App. A.2, Eq. 22).

The paper's sweep has no published code; what is known of it: one method at a fixed scale, documents of s·L tokens, a
grid of √(1/t), the mean NLL of equal segments of each document. One forward pass per document, scale and factor:
measured on CPU, batches of short documents are no faster than one at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task, methods_that
from yarnlab.evaluation.documents import documents_of
from yarnlab.evaluation.perplexity import nll_of_document
from yarnlab.rope import Rope
from yarnlab.study.fields import FactorGrid, KeyPath, Positive, Problem, Scales

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

SLOPE = 0.1  # of Eq. 22, whose factor is run beside the grid; the official Mistral code has 0.07


def _interpolates_alone(rope: type[Rope]) -> bool:
    """Static, with frequencies of its own, and no attention factor that the sweep would replace."""
    return not rope.dynamic and rope is not Rope and rope.attention_factor is Rope.attention_factor


INTERPOLATION = methods_that("is not a static interpolation without a temperature of its own", _interpolates_alone)


class Temperature(Evaluation):
    """Perplexity by attention factor √(1/t) at each scale without fine-tuning (paper App. A.2).

    Beside the grid, every scale is run with the formula's own factor 0.1 ln s + 1 and with its other reading,
    √(0.1 ln s + 1).
    """

    kind = "temperature"
    order = 7
    PROTOCOL = "temperature@1"
    SWEEPS = "method"
    COLUMNS = "corpus method scale factor kind document segment start tokens nll"

    method: Annotated[str, INTERPOLATION]
    """A static method that changes the frequencies and has no attention factor of its own."""
    scales: Scales
    """Scales at which each factor is run."""
    factors: FactorGrid
    """Attention factors √(1/t)."""
    segments: Positive
    """Equal parts of a document whose mean NLL is measured."""
    documents: Positive
    """How many of the corpus's documents are read, from the first on."""
    max_length: Positive
    """Documents are read to s·L tokens, to `max_length` at most."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("max_length",), self.max_length

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        shortest = min(self._lengths(study.architecture(arm).original_context))
        if shortest < 2 * self.segments:
            yield ("segments",), f"{self.segments} segments need 2 tokens each, {arm} is read for {shortest}"

    def cost(self, study: Study, arm: str) -> Passes:
        lengths = self._lengths(study.architecture(arm).original_context)
        runs = self.documents * len(factors_at(1.0, self.factors.values()))
        return Passes([(runs, length) for length in lengths], max(lengths))

    def evaluate(self, task: Task) -> Outcome:
        """One row per scale, factor, document and segment; weights and frequencies are the same for all factors."""
        documents, cells = documents_of(task.corpus, self.documents), []
        for scale, length in zip(self.scales, self._lengths(task.architecture.original_context), strict=True):
            untempered = task.make_rope(self.method, scale)
            for kind, factor in factors_at(scale, self.factors.values()):
                labels = task.labels(corpus=self.corpus, method=self.method, scale=scale, factor=factor, kind=kind)
                of_one = partial(self._rows, task, tempered(untempered, factor), length, labels)
                cells += [Cell(f"{scale}-{kind}-{factor}-{i}", 1, partial(of_one, i)) for i in range(documents)]
        table = task.table(cells, "document")
        curves = table[table["kind"] == "grid"].groupby(["scale", "factor"])["nll"].mean()
        best = {f"best_factor/{scale:g}": float(curves[scale].idxmin()) for scale in table["scale"].unique()}
        return Outcome(table, best)

    def _lengths(self, original_context: int) -> list[int]:
        """Tokens read of each document at each scale: s·L, or `max_length` where that is less."""
        return [min(round(scale * original_context), self.max_length) for scale in self.scales]

    def _rows(
        self, task: Task, rope: Rope, length: int, labels: dict[str, Any], number: int, progress: Progress
    ) -> Rows:
        """One row per segment of a document."""
        nll, name = nll_of_document(rope, task, self.precision, length, number, progress)
        labels = labels | {"document": name}
        return [{**labels, **part, "protocol": self.PROTOCOL} for part in segment_means(nll, self.segments)]


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


def factors_at(scale: float, grid: tuple[float, ...]) -> list[tuple[str, float]]:
    """(kind, √(1/t)) of every run at one scale: the grid, the formula 0.1 ln s + 1 (paper Eq. 22, official code),
    and √(0.1 ln s + 1), which is what one gets by reading the formula as 1/t."""
    formula = SLOPE * math.log(scale) + 1
    return [*(("grid", factor) for factor in grid), ("formula", formula), ("reading", math.sqrt(formula))]


def segment_means(nll: np.ndarray, segments: int) -> list[dict[str, float | int]]:
    """Mean NLL of `segments` equal parts of a document; sums are in fp64.

    Args:
        nll: NLL of positions 1, 2, … of a document of len(nll) + 1 tokens. Position 0 is BOS, which nothing predicts,
            so the first part has one target less than its tokens.
    """
    bounds = [round(i * (len(nll) + 1) / segments) for i in range(segments + 1)]
    rows: list[dict[str, float | int]] = []
    for i in range(segments):
        start, end = max(bounds[i], 1), bounds[i + 1]
        part = nll[start - 1 : end - 1]
        rows.append({"segment": i, "start": start, "tokens": len(part), "nll": float(part.mean(dtype="float64"))})
    return rows
