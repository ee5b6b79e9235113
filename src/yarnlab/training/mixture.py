"""Rows of several corpora in one phase, each corpus with its share of the rows.

Which corpus a row is of follows from (order, row number), and a corpus's rows from (order, corpus, how many it gave
before): no longer training changes a row, and no other shares change a corpus's rows or their order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from yarnlab.corpus.passkey import PasskeyText
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.study.training import Train
from yarnlab.training.rows import Row, RowSource

# Sets the stream that chooses corpora apart from those of rows and passes, whose integers have fewer 32-bit words.
CHOICES = 2**96


def row_source(
    corpora: Mapping[str, TokenisedCorpus], text: PasskeyText | None, phase: Train, order: tuple[int, ...]
) -> RowSource:
    """The rows of a phase, of its one corpus or of several; `corpora` has at least those that it names.

    Raises RowError as RowSource does.
    """
    if len(phase.shares) > 1:
        return MixedRows(corpora, text, phase, order)
    (name,) = phase.shares
    return RowSource(corpora[name], text, phase.model_copy(update={"corpus": name}), order)


class MixedRows(RowSource):
    """The rows of a phase with several corpora; arguments as those of `row_source`."""

    def __init__(
        self, corpora: Mapping[str, TokenisedCorpus], text: PasskeyText | None, phase: Train, order: tuple[int, ...]
    ) -> None:
        self._phase = phase
        self._sources = [
            RowSource(corpora[name], text, phase.model_copy(update={"corpus": name}), (*order, i))
            for i, name in enumerate(phase.shares)
        ]
        self._chosen = chosen(phase, order)
        self._number = np.empty(len(self._chosen), np.int64)  # of each row among those of its corpus
        for i in range(len(self._sources)):
            own = self._chosen == i
            self._number[own] = np.arange(np.count_nonzero(own))

    def _row(self, number: int) -> Row:
        return self._sources[self._chosen[number]]._row(int(self._number[number]))


def chosen(phase: Train, order: tuple[int, ...]) -> np.ndarray:
    """Which corpus each row of a phase is of, as its place in `phase.shares`: (steps · global_batch,), int64."""
    drawn = np.random.default_rng([*order, CHOICES]).random(phase.steps * phase.global_batch)
    borders = np.cumsum(list(phase.shares.values()))[:-1]
    return np.searchsorted(borders, drawn, side="right")


def realised(phase: Train, order: tuple[int, ...]) -> dict[str, float]:
    """Corpus → the share of a phase's rows that are of it: every row has as many tokens."""
    counts = np.bincount(chosen(phase, order), minlength=len(phase.shares))
    return {name: float(count / counts.sum()) for name, count in zip(phase.shares, counts, strict=True)}
