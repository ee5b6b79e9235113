"""truncated-prefix@1: perplexity at every length from one forward pass over each document's longest prefix.

The official protocol runs BOS and the first N−1 tokens of a document through the model for each N
(eval/perplexity.py:29-82 with --truncate). In a causal model with static positions the NLL of a token depends on
what precedes it alone, so one pass over the longest prefix yields them all.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from yarnlab.evaluation.base import Evaluation, Outcome, Passes, Rows, Task
from yarnlab.evaluation.documents import prefix, prefixes
from yarnlab.evaluation.nll import cumulative_and_bucket_means, token_nll
from yarnlab.lazy import np, pd
from yarnlab.study.fields import KeyPath, LengthGrid, Positive

if TYPE_CHECKING:
    from yarnlab.progress import Progress
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Study


class Perplexity(Evaluation):
    """truncated-prefix@1: one pass over each document gives every length (paper's Proof-pile protocol)."""

    kind = "perplexity"
    order = 1
    PROTOCOL = "truncated-prefix@1"
    COLUMNS = "method scale corpus document length tokens nll bucket_start bucket_nll"
    STATIC_ONLY = "which perplexity cannot follow: use `dynamic`"

    lengths: LengthGrid
    """The lengths at which perplexity is measured, in tokens."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("lengths", "stop"), self.lengths.stop

    def cost(self, study: Study, arm: str) -> Passes:
        documents, length = self.documents_read(study, arm), self.lengths.values()[-1]
        return Passes([(documents, length)], length, disk=4.0 * documents * length)

    def evaluate(self, task: Task) -> Outcome:
        """One row per document and length; the per-token NLL is kept."""
        lengths = self.lengths.values()
        names = task.corpus.names[: self.documents]
        progress = task.progress(len(names), "document")
        nll = document_nll(task, lengths[-1], self.precision, progress, self.documents)
        columns = {**task.columns, "corpus": self.corpus}
        table = pd.DataFrame(perplexity_rows(nll, names, lengths, columns))
        at = table.groupby("length")["nll"].mean()
        curves = {f"nll/{length}": float(at[length]) for length in lengths}
        curves |= {f"perplexity/{length}": math.exp(at[length]) for length in lengths}
        return Outcome(table, curves, nll)


def document_nll(task: Task, longest: int, precision: str, progress: Progress, documents: int | None) -> np.ndarray:
    """NLL of the first `longest` − 1 tokens after BOS of each of the first `documents` documents (None: all).

    The rope in force must be static: values at N are then a prefix of those at 2N.

    Returns float32, (documents, longest − 1). Raises EvaluationError as `prefixes`.
    """
    from yarnlab.modeling import autocast

    texts = prefixes(task.corpus, longest, documents, task.model.config.vocab_size)

    def computed(i: int, progress: Progress) -> list[float]:
        with autocast(precision):
            nll = token_nll(task.model, texts[i][None])[0]
        progress.advance(note=task.corpus.names[i])
        return nll.tolist()

    def of_one(i: int, progress: Progress) -> list[float]:
        return task.partial_results.part(f"document-{i}", progress, 1, partial(computed, i, progress))

    return np.array(task.side_by_side(of_one, len(texts), progress), np.float32)


def perplexity_rows(
    nll: np.ndarray, documents: tuple[str, ...], lengths: tuple[int, ...], columns: dict[str, Any]
) -> Rows:
    """One row per document and length, with `columns` repeated in front."""
    return [
        {**columns, "document": name, **row, "protocol": Perplexity.PROTOCOL}
        for name, values in zip(documents, nll, strict=True)
        for row in cumulative_and_bucket_means(values, lengths)
    ]


def document_rows(
    rope: Rope,
    task: Task,
    precision: str,
    lengths: tuple[int, ...],
    columns: dict[str, Any],
    number: int,
    progress: Progress,
) -> Rows:
    """`perplexity_rows` of one document of the task's corpus, counted from 0, with `rope` in place of the model's."""
    nll, name = nll_of_document(rope, task, precision, lengths[-1], number, progress)
    return perplexity_rows(nll[None], (name,), lengths, columns)


def nll_of_document(
    rope: Rope, task: Task, precision: str, length: int, number: int, progress: Progress
) -> tuple[np.ndarray, str]:
    """NLL of the first `length` − 1 tokens after BOS of one document, float32, and the document's name.

    `rope`, which must be static, takes the place of the model's own. Raises EvaluationError as `prefix`.
    """
    from yarnlab.modeling import autocast, set_rope

    set_rope(task.model, rope)
    ids, name = prefix(task.corpus, number, length, task.model.config.vocab_size), task.corpus.names[number]
    with autocast(precision):
        nll = token_nll(task.model, ids[None])[0]
    progress.advance(note=name)
    return nll, name


def doublings(first: int, last: float) -> list[int]:
    """first, 2·first, 4·first, … up to `last`."""
    return [first * 2**i for i in range(int(last // first).bit_length())]
