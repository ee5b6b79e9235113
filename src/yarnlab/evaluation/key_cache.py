"""key-cache@1: what it costs a dynamic method to cache keys after the rotation instead of before it.

Three ways to predict token p from tokens 0 … p − 1, defined in yarnlab.generation: decoding with keys cached before
the rotation (`pre-rope`), after it (`post-rope`), and recomputing all under one scale (`recomputed`). The first two
read the text token by token, and each is one forward pass here. The third would take a pass for each token; it takes
one for every STEP-th part of L instead, which scores the tokens since the last one: their scale is that of a length
up to L/STEP − 1 beyond their own. Up to L all three are the same (to the rounding of bf16, where that is in use).

Meant for lengths of a few L: rotating all keys for each row costs `pre-rope` O(length² · head_dim) a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import model_validator

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task, methods_that
from yarnlab.evaluation.documents import EvaluationError, prefixes
from yarnlab.evaluation.nll import TOKENS_PER_BATCH, token_nll
from yarnlab.lazy import np
from yarnlab.study.fields import Distinct, KeyPath, Positive, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.progress import Progress
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Study

STEP = 8  # recomputations per L tokens; 4 put the NLL of dynamic PI 0.06 nats off that of 8 in the micro study


class KeyCache(Evaluation):
    """What it costs a dynamic method to cache keys after the rotation instead of before it, over `length` tokens."""

    kind = "key_cache"
    order = 6
    PROTOCOL = "key-cache@1"
    SWEEPS = "methods"
    COLUMNS = "corpus method cache document bucket_start bucket_end nll"

    methods: Annotated[Distinct[str], methods_that("is not a dynamic method", lambda rope: rope.dynamic)]
    """Dynamic methods that take the place of the model's own."""
    length: Positive
    """Tokens that are read of each document; beyond the original context, where nothing rescales."""
    documents: Positive
    """How many of the corpus's documents are read, from the first on."""
    recomputed: Positive | None = None
    """How many of them are recomputed under one scale too, from the first on; without it all. It is what takes
    time."""

    @model_validator(mode="after")
    def _of_those(self) -> KeyCache:
        if self.recomputed is not None and self.recomputed > self.documents:
            raise ValueError(f"recomputed: {self.recomputed} is more than `documents`, {self.documents}")
        return self

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("length",), self.length

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        window = study.architecture(arm).original_context
        if self.length <= window:
            yield (
                ("length",),
                f"{self.length} must exceed the original context of {arm}, {window} tokens: nothing rescales before",
            )

    def cost(self, study: Study, arm: str) -> Passes:
        shape, each = study.architecture(arm), self.documents * len(self.methods)
        window = shape.original_context
        recomputed = recomputed_lengths(window, self.length, max(1, window // STEP))
        # Beyond L every row rotates all keys before it anew: a complex product, 6 operations for two numbers.
        turned = sum(range(window, self.length)) * shape.num_key_value_heads * shape.head_dim
        again = (self.recomputed or self.documents) * len(self.methods)
        return Passes(
            [(2 * each, self.length), *((again, n) for n in recomputed)],
            max(self.length, min(TOKENS_PER_BATCH, self.documents * self.length)),
            rotations=3.0 * turned * shape.num_hidden_layers * each,
        )

    def evaluate(self, task: Task) -> Outcome:
        """One row per method, cache, document and bucket of L tokens: the mean NLL of the tokens at positions
        bucket_start … bucket_end − 1.

        Raises EvaluationError if `length` is beyond the model's sliding window, which the `pre-rope` attention does not
        have.
        """
        length, window = self.length, task.architecture.original_context
        sliding = getattr(task.model.config, "sliding_window", None)
        if sliding is not None and sliding < length - 1:  # the last token is only a target
            raise EvaluationError(
                f"the model attends to the last {sliding} tokens alone, key_cache to all {length}: set "
                "`drop_sliding_window: true` under `hub` of the published model, or a `length` of "
                f"{sliding + 1} at most"
            )
        documents = prefixes(task.corpus, length, self.documents, task.model.config.vocab_size)
        size, cells = max(1, TOKENS_PER_BATCH // length), []
        for method, first in product(self.methods, range(0, len(documents), size)):
            ids = documents[first : first + size]
            cells.append(Cell(f"{method}-{first}", len(ids), partial(self._rows, task, method, first, ids)))
        table = task.table(cells, "document", by=("method", "cache"))
        # Of the wrong cache above the right one, beyond L.
        beyond = table[table["bucket_start"] >= window].groupby(["method", "cache"])["nll"].mean().unstack("cache")
        costs = beyond["post-rope"] - beyond["pre-rope"]
        return Outcome(table, {f"wrong_cache/{method}": float(cost) for method, cost in costs.items()})

    def _rows(self, task: Task, method: str, first: int, ids: np.ndarray, progress: Progress) -> Rows:
        """One row per cache, document and bucket of the documents `ids`, which follow each other from `first` on."""
        from yarnlab.generation import CACHES, key_cache
        from yarnlab.modeling import autocast

        rope, window, found = task.make_rope(method), task.architecture.original_context, {}
        again = len(ids) if self.recomputed is None else max(0, self.recomputed - first)
        with autocast(self.precision):
            for cache in CACHES:
                with key_cache(task.model, rope, cache, row_wise=True):
                    found[cache] = token_nll(task.model, ids)
            if again:
                found["recomputed"] = recomputed_nll(task.model, rope, ids[:again], max(1, window // STEP))
        progress.advance(len(ids), note=method)
        names = task.corpus.names[first : first + len(ids)]
        return [
            row
            for cache, nll in found.items()
            for row in _buckets(nll, names, window, task.labels(corpus=self.corpus, method=method, cache=cache))
        ]


def recomputed_lengths(original_context: int, length: int, step: int) -> tuple[int, ...]:
    """Input lengths of the passes that recompute `length` tokens under one scale each: L, then every `step` more."""
    reached = [min(length - 1, original_context)]
    while reached[-1] < length - 1:
        reached.append(min(length - 1, reached[-1] + step))
    return tuple(reached)


def recomputed_nll(model: PreTrainedModel, rope: Rope, ids: np.ndarray, step: int) -> np.ndarray:
    """NLL of ids[:, 1:] by a forward pass at every `step`-th length, all rows of it under the rope at that length;
    each scores the tokens since the one before. With step 1 every token is scored at its own length.

    Tokens up to position L come from one pass, which has the same rope for all of them.
    """
    from yarnlab.modeling import set_rope

    set_rope(model, rope)
    done, parts = 0, []
    for reached in recomputed_lengths(rope.original_context, ids.shape[1], step):
        parts.append(token_nll(model, ids[:, : reached + 1], reached - done))
        done = reached
    return np.concatenate(parts, axis=1)


def _buckets(
    nll: np.ndarray, documents: tuple[str, ...], window: int, labels: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """nll[:, p − 1] belongs to position p; the first bucket lacks position 0, which is not predicted."""
    end = nll.shape[1] + 1
    for document, values in zip(documents, nll.astype("float64"), strict=False):  # fewer are recomputed
        for edge in range(0, end, window):
            start, stop = max(edge, 1), min(edge + window, end)
            yield {
                **labels,
                "document": document,
                "bucket_start": start,
                "bucket_end": stop,
                "nll": values[start - 1 : stop - 1].mean(),
                "protocol": KeyCache.PROTOCOL,
            }
