"""short-texts@1: perplexity of texts of a few lengths, cut one after another from whole documents.

truncated-prefix@1 reads a text of N tokens as the first N of a document: one to a document, and for a short N of a
kind of its own (a licence, imports), where models and runs of one model differ from what they do with all that follows.
Here a document is cut into texts of the longest length: BOS and the next N − 1 document tokens, at positions from 0 on,
so each document token is in one text; what is left at the end is dropped. The first n tokens of a text are a text of n,
and in a causal model with static positions one pass scores both.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task
from yarnlab.evaluation.documents import EvaluationError, prefixes, texts_of
from yarnlab.evaluation.nll import batched_nll, rows_together
from yarnlab.lazy import np
from yarnlab.study.fields import Distinct, KeyPath, Positive, Problem

if TYPE_CHECKING:
    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study


class ShortTexts(Evaluation):
    """short-texts@1: many short texts from all over the documents, instead of each document's first tokens."""

    kind = "short_texts"
    order = 2
    PROTOCOL = "short-texts@1"
    COLUMNS = "method scale corpus document length texts nll"

    lengths: Distinct[Annotated[int, Field(ge=2)]]
    """Tokens of a text, BOS included. Documents are cut into texts of the longest; their beginnings are the others."""
    max_tokens: Positive
    """Tokens that are read of each document, BOS included."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""

    @model_validator(mode="after")
    def _one_text(self) -> ShortTexts:
        if self.max_tokens < max(self.lengths):
            raise ValueError(f"max_tokens {self.max_tokens} is less than one text of {max(self.lengths)} tokens")
        return self

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("max_tokens",), self.max_tokens

    @property
    def texts(self) -> int:
        """Texts that a document is cut into."""
        return (self.max_tokens - 1) // (max(self.lengths) - 1)

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        if study.rope(arm).dynamic and len(self.lengths) > 1:
            at = ("models", self.models.index(arm))
            yield at, f"{arm} rescales with the input's length, so one pass cannot give several `lengths`"

    def cost(self, study: Study, arm: str) -> Passes:
        length = max(self.lengths)
        together = min(self.texts, rows_together(length)) * length
        return Passes([(self.documents_read(study, arm) * self.texts, length)], together)

    def evaluate(self, task: Task) -> Outcome:
        """One row per document and length: mean NLL in nats of all texts' positions 1 … length − 1.

        Raises EvaluationError for a dynamic rope and several lengths, and as `prefixes` and `token_nll`.
        """
        if task.rope.dynamic and len(self.lengths) > 1:
            raise EvaluationError(
                f"{task.rope.method} rescales with the input's length, so one pass can't give several `lengths`"
            )
        documents = prefixes(task.corpus, self.max_tokens, self.documents, task.model.config.vocab_size)
        named = zip(task.corpus.names[: len(documents)], documents, strict=True)
        cells = [Cell(f"document-{i}", 1, partial(self._rows, task, *one)) for i, one in enumerate(named)]
        table = task.table(cells, "document")
        means = table.groupby("length")["nll"].mean()
        return Outcome(table, {f"nll/{length}": float(nll) for length, nll in means.items()})

    def _rows(self, task: Task, name: str, ids: np.ndarray, progress: Progress) -> Rows:
        from yarnlab.modeling import autocast

        longest = max(self.lengths)
        texts = texts_of(ids, longest)
        with autocast(self.precision):
            nll = batched_nll(task.model, texts)
        progress.advance(note=name)
        columns = {**task.columns, "corpus": self.corpus, "document": name, "texts": len(texts)}
        return [
            columns
            | {"length": length, "nll": float(nll[:, : length - 1].mean(dtype="float64")), "protocol": self.PROTOCOL}
            for length in sorted(self.lengths)
        ]
