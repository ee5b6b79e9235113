"""dynamic@2: dynamic scaling length by length, one forward pass for each (paper §3.3, App. B.3 and Fig. 5).

At length N every document's BOS and first N − 1 tokens are scored under the rope that a dynamic method has for an
input of N tokens, s = max(1, N/L). Shorter lengths are no prefix of longer ones, hence a pass for each. The paper's
figure shows one document; here every document of the corpus is a row.

The tokens at the end are scored once more as somebody without a longer context would have them: under plain RoPE, the
input cut to BOS and its last L − 1 tokens. Only that comparison is of the same tokens: text changes along a document.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated

from pydantic import model_validator

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task, methods_that
from yarnlab.evaluation.documents import prefixes
from yarnlab.evaluation.nll import token_nll
from yarnlab.lazy import np
from yarnlab.study.fields import Distinct, KeyPath, Positive, Problem

if TYPE_CHECKING:
    from yarnlab.progress import Progress
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Study

DYNAMIC_OR_NONE = methods_that("is neither dynamic nor none", lambda rope: rope.dynamic or rope.method == "none")


class Dynamic(Evaluation):
    """Dynamic scaling length by length, one forward pass for each, beside plain RoPE (`none`)."""

    kind = "dynamic"
    order = 5
    PROTOCOL = "dynamic@2"
    SWEEPS = "methods"
    COLUMNS = "corpus method document length scale_in_force nll tail_nll truncated_nll tokens"

    methods: Annotated[Distinct[str], DYNAMIC_OR_NONE]
    """Dynamic methods, and `none`, that take the place of the model's own."""
    lengths: Distinct[Positive]
    """Lengths of the inputs, in tokens."""
    tail: Positive
    """How many tokens at the end of each length are also scored by themselves: the mean over all flatters the end."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""

    @model_validator(mode="after")
    def _short_tail(self) -> Dynamic:
        if self.tail >= min(self.lengths):
            raise ValueError(f"tail {self.tail} must be below the shortest length {min(self.lengths)}")
        return self

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        if self.tail >= (context := study.architecture(arm).original_context):
            yield ("tail",), f"{self.tail} must be below the original context of {arm}, {context}"

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("lengths",), max(self.lengths)

    def cost(self, study: Study, arm: str) -> Passes:
        documents = self.documents_read(study, arm)
        cut = (documents * len(self.lengths), study.architecture(arm).original_context)
        runs = [(documents * len(self.methods), length) for length in self.lengths]
        return Passes([*runs, cut], max(self.lengths))

    def evaluate(self, task: Task) -> Outcome:
        """One row per method, document and length: `nll` over all N − 1 targets and `tail_nll` over the last `tail`.

        The weights are run with each method's rope instead of their own; `none` is plain RoPE. `truncated_nll` is of
        the same tail under plain RoPE and the last L tokens, whatever the method.
        """
        documents = prefixes(task.corpus, max(self.lengths), self.documents, task.model.config.vocab_size)
        cells = []
        for length, (i, ids) in product(self.lengths, enumerate(documents)):
            rows = partial(self._rows, task, task.corpus.names[i], ids[:length])
            cells.append(Cell(f"{length}-{i}", length * len(self.methods), rows))
        table = task.table(cells, "token", by=("length", "method"))
        at_the_end = table[table["length"] == max(self.lengths)].groupby("method")["tail_nll"].mean()
        return Outcome(table, {f"tail_nll/{method}": float(nll) for method, nll in at_the_end.items()})

    def _rows(self, task: Task, document: str, ids: np.ndarray, progress: Progress) -> Rows:
        """One row per method, of all of `ids`."""
        from yarnlab.modeling import autocast, set_rope

        def nll_under(rope: Rope, ids: np.ndarray) -> np.ndarray:
            set_rope(task.model, rope)
            with autocast(self.precision):
                return token_nll(task.model, ids[None])[0].astype(np.float64)

        plain, context, rows = task.make_rope("none"), task.architecture.original_context, []
        cut = np.concatenate([ids[:1], ids[1:][1 - context :]])
        truncated = nll_under(plain, cut)[-self.tail :].mean()
        for method in self.methods:
            rope = task.make_rope(method).at(len(ids))
            nll = nll_under(rope, ids)
            rows.append(
                {
                    **task.labels(corpus=self.corpus, method=method, document=document, length=len(ids)),
                    "scale_in_force": float(rope.scale),
                    "nll": nll.mean(),
                    "tail_nll": nll[-self.tail :].mean(),
                    "truncated_nll": truncated,
                    "tokens": len(nll),
                    "protocol": self.PROTOCOL,
                }
            )
            progress.advance(len(ids), note=f"{method} at {len(ids)}")
        return rows
