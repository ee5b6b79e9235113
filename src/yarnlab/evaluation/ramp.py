"""ramp@1: does the shape of the ramp matter? Perplexity by truncated-prefix@1 for one method with different options.

The paper's γ is linear in the rotations r (Eq. 18), the official code's in the pair index, with its ends rounded
outwards (LlamaYaRNScaledRotaryEmbedding.py:5-22); alpha and beta, by default those of the model's family, set where the
ramp ends. The variants differ in the frequencies alone: same weights, same temperature rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Task, methods_that
from yarnlab.evaluation.documents import documents_of
from yarnlab.evaluation.perplexity import document_rows, doublings
from yarnlab.study.fields import KeyPath, Name, Positive, Problem, Scales
from yarnlab.study.options import rope_problem

if TYPE_CHECKING:
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Study


def _has_ramp(rope: type[Rope]) -> bool:
    return not rope.dynamic and "ramp" in {field.name for field in fields(rope)}


class Ramp(Evaluation):
    """One method with different options (ramp, truncate, alpha, beta) at each scale, without fine-tuning."""

    kind = "ramp"
    order = 8
    PROTOCOL = "ramp@1"
    SWEEPS = "method"
    COLUMNS = "corpus variant method scale document length tokens nll bucket_start bucket_nll"

    method: Annotated[str, methods_that("is not a static method with a ramp", _has_ramp)]
    """A static method that has a ramp."""
    variants: dict[Name, dict[str, Any]] = Field(min_length=1)
    """The name of a variant → options of the method."""
    scales: Scales
    """Scales at which each variant is run."""
    documents: Positive
    """How many of the corpus's documents are read, from the first on."""
    max_length: int = Field(ge=2)  # one token has no target
    """Documents are read to s·L tokens, to `max_length` at most."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("max_length",), self.max_length

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        shape = study.architecture(arm)
        for name, options in self.variants.items():
            problem = rope_problem(("variants", name), self.method, max(self.scales), options, shape)
            if problem is not None:
                yield problem

    def cost(self, study: Study, arm: str) -> Passes:
        window = study.architecture(arm).original_context
        lengths = [lengths_within(window, scale, self.max_length)[-1] for scale in self.scales]
        return Passes([(self.documents * len(self.variants), length) for length in lengths], max(lengths))

    def evaluate(self, task: Task) -> Outcome:
        """One row per scale, variant, document and length."""
        window = task.architecture.original_context
        documents, cells = documents_of(task.corpus, self.documents), []
        for scale in self.scales:
            lengths = lengths_within(window, scale, self.max_length)
            for variant, options in self.variants.items():
                labels = task.labels(corpus=self.corpus, variant=variant, method=self.method, scale=scale)
                rope = task.make_rope(self.method, scale, **options)
                of_one = partial(document_rows, rope, task, self.precision, lengths, labels)
                cells += [Cell(f"{scale}-{variant}-{i}", 1, partial(of_one, i)) for i in range(documents)]
        table = task.table(cells, "document")
        longest = table[table["length"] == table.groupby("scale")["length"].transform("max")]
        means = longest.groupby(["scale", "variant"], sort=False, as_index=False)["nll"].mean()
        return Outcome(table, {f"nll/{row.variant}/{row.scale:g}": float(row.nll) for row in means.itertuples()})


def lengths_within(original_context: int, scale: float, max_length: int) -> tuple[int, ...]:
    """L, 2L, 4L, … and the end of the extended context, s·L tokens or `max_length` where that is less."""
    end = min(round(scale * original_context), max_length)
    return (*doublings(original_context, end - 1), end)
