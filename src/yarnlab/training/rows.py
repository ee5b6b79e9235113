"""Training rows: plain text, text that hides keys and asks for them, and repeated segments.

A row follows from (order, row number) alone: every model with the same `order` sees the same rows in the same order,
and training resumes without any saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yarnlab.corpus.passkey import NAMES, PasskeyText, random_key
from yarnlab.corpus.tokenizer import BOS_ID
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.study.schema import Repeats, Retrieval, Train


@dataclass(frozen=True)
class Batch:
    """ids: (rows, seq_len + 1), int64; weights and answers: (rows, seq_len), float32 and bool, of each target."""

    ids: np.ndarray
    weights: np.ndarray
    answers: np.ndarray


class RowSource:
    """The rows of one training phase.

    Args:
        corpus: training text.
        text: builds key statements and questions.
        phase: seq_len, global_batch and the mixture.
        order: the integers that fix the order of the data: seed, depth in the model tree, phase.
    """

    def __init__(self, corpus: TokenisedCorpus, text: PasskeyText, phase: Train, order: tuple[int, ...]) -> None:
        self._tokens = corpus.tokens
        self._text = text
        self._phase = phase
        self._order = order
        self._vocabulary = int(corpus.tokens.max()) + 1

    def batch(self, step: int) -> Batch:
        """The rows of optimizer step `step` (0-based within the phase)."""
        first = step * self._phase.global_batch
        rows = [self._row(first + i) for i in range(self._phase.global_batch)]
        ids, weights, answers = (np.stack(parts) for parts in zip(*rows, strict=True))
        # The first token of a row is never a target.
        return Batch(ids, weights[:, 1:], answers[:, 1:])

    def _row(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng([*self._order, number])
        length = self._phase.seq_len + 1
        retrieval, repeats = self._phase.rows.retrieval, self._phase.rows.repeats
        share = rng.random()
        if retrieval is not None and share < retrieval.share:
            return self._retrieval(rng, length, retrieval)
        if repeats is not None and share < (retrieval.share if retrieval else 0) + repeats.share:
            return self._repeated(rng, length, repeats)
        return self._span(rng, length), np.ones(length, np.float32), np.zeros(length, bool)

    def _span(self, rng: np.random.Generator, length: int) -> np.ndarray:
        start = int(rng.integers(len(self._tokens) - length))
        return self._tokens[start : start + length].astype(np.int64)

    def _repeated(
        self, rng: np.random.Generator, length: int, repeats: Repeats
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One segment over and over; only what can be copied counts, not its first occurrence."""
        size = int(rng.integers(repeats.min_segment, repeats.max_segment + 1))
        noise = rng.random() < repeats.random
        segment = rng.integers(2, self._vocabulary, size) if noise else self._span(rng, size)
        weights = np.ones(length, np.float32)
        if noise:
            weights[:size] = 0
        return np.resize(segment, length), weights, np.zeros(length, bool)

    def _retrieval(
        self, rng: np.random.Generator, length: int, retrieval: Retrieval
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys hidden anywhere in text, each asked for anywhere after it; the last question ends the row."""
        count = int(rng.integers(retrieval.min_keys, retrieval.max_keys + 1))
        names = [""] if count == 1 else [str(name) for name in rng.choice(NAMES, count, replace=False)]
        keys = {name: self._text.key_ids(random_key(rng)) for name in names}
        head = np.concatenate([[BOS_ID], self._text.opening])
        last = names[int(rng.integers(count))]
        tail = np.concatenate([self._text.question(last), keys[last]])
        pieces: list[tuple[float, np.ndarray, int]] = []  # place in the filler (0 … 1), ids, answer length
        for name in names:
            stated = float(rng.random())
            pieces.append((stated, self._text.statement(keys[name], name), 0))
            asked = stated + (1 - stated) * float(rng.random())
            question = np.concatenate([self._text.question(name), keys[name]])
            pieces.append((asked, question, len(keys[name])))
        room = length - len(head) - len(tail) - sum(len(ids) for _, ids, _ in pieces)
        if room < 0:  # a short row: keep the last question's statement only
            pieces = [(float(rng.random()), self._text.statement(keys[last], last), 0)]
            room = length - len(head) - len(tail) - len(pieces[0][1])
        if room < 0:
            raise ValueError(f"a retrieval row needs {length - room} tokens, seq_len is {length - 1}")
        filler = self._text.clean(self._span(rng, room + 64))[:room]
        filler = np.concatenate([filler, self._text.opening[: room - len(filler)]])
        return _assemble(head, filler, sorted(pieces, key=lambda piece: piece[0]), tail, len(keys[last]), retrieval)


def _assemble(
    head: np.ndarray,
    filler: np.ndarray,
    pieces: list[tuple[float, np.ndarray, int]],
    tail: np.ndarray,
    tail_answer: int,
    retrieval: Retrieval,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Insert the pieces into the filler; answers weigh more and are marked."""
    parts, marks, at = [head], [np.zeros(len(head), bool)], 0
    for place, ids, answer in [*pieces, (1.0, tail, tail_answer)]:
        cut = round(place * len(filler))
        marked = np.zeros(cut - at + len(ids), bool)
        marked[len(marked) - answer :] = answer > 0
        parts += [filler[at:cut], ids]
        marks.append(marked)
        at = cut
    ids, answers = np.concatenate(parts), np.concatenate(marks)
    return ids, np.where(answers, np.float32(retrieval.answer_weight), np.float32(1)), answers
