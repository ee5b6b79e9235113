"""zero-shot@1: methods × scales on one model as it is: same weights, other rope, perplexity by truncated-prefix@1."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from yarnlab.evaluation.base import STATIC, Cell, Evaluation, Outcome, Passes, Task
from yarnlab.evaluation.documents import documents_of
from yarnlab.evaluation.perplexity import document_rows, doublings
from yarnlab.study.fields import Distinct, KeyPath, Positive, Problem, Scales

if TYPE_CHECKING:
    from yarnlab.study.schema import Study


class ZeroShot(Evaluation):
    """Methods × scales on models as they are, without fine-tuning, at L, 2L, 4L, … up to s·L or `max_length` tokens."""

    kind = "zero_shot"
    order = 2
    PROTOCOL = "zero-shot@1"
    SWEEPS = "methods"
    COLUMNS = "method scale corpus document length tokens nll bucket_start bucket_nll"

    methods: Annotated[Distinct[str], STATIC]
    """Static methods that take the place of the model's own."""
    scales: Scales
    """Scales at which each method is run."""
    max_length: Positive
    """No length beyond this many tokens."""
    lengths: Distinct[Annotated[int, Field(ge=2)]] | None = None
    """Further lengths, in tokens: each scale is measured at those within its s·L too. One pass gives them all."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("max_length",), self.max_length

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        window = study.architecture(arm).original_context
        if self.max_length < window:
            yield (
                ("max_length",),
                f"{self.max_length} is below the original context of {arm}, {window} tokens, where the lengths begin",
            )

    def cost(self, study: Study, arm: str) -> Passes:
        runs, window = self.documents_read(study, arm) * len(self.methods), study.architecture(arm).original_context
        lengths = [grid_lengths(window, scale, self.max_length)[-1] for scale in self.scales]
        return Passes([(runs, length) for length in lengths], max(lengths))

    def evaluate(self, task: Task) -> Outcome:
        """One row per method, scale, document and length.

        Raises EvaluationError as `documents_of` and `prefix`, and for a loss that is not finite.
        """
        window, documents = task.architecture.original_context, documents_of(task.corpus, self.documents)
        cells = []
        for scale in self.scales:
            grid = grid_lengths(window, scale, self.max_length)
            further = [length for length in self.lengths or () if length < grid[-1]]
            lengths = tuple(sorted({*grid, *further}))
            for i, method in product(range(documents), self.methods):  # so that what is there compares all methods
                labels = task.labels(corpus=self.corpus, method=method, scale=scale)
                rope = task.make_rope(method, scale)
                rows = partial(document_rows, rope, task, self.precision, lengths, labels, i)
                cells.append(Cell(f"{scale}-{method}-{i}", 1, rows))
        return Outcome(task.table(cells, "document"))


def grid_lengths(original_context: int, scale: float, max_length: int) -> tuple[int, ...]:
    """L, 2L, 4L, … up to the extended context s·L, or to `max_length`."""
    return tuple(doublings(original_context, min(scale * original_context, max_length)))
