"""Training rows: spans of text behind BOS, or whole blocks; text that hides keys and asks for them; repeated segments.

A row follows from (order, row number) alone: every model with the same `order` sees the same rows in the same order,
and training resumes without any saved random state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from yarnlab.corpus.passkey import NAMES, NOUNS, TRAINING, PasskeyText, Phrases, random_key
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.errors import UserError
from yarnlab.study.training import Repeats, Retrieval, Train

PASSES = 2**32  # sets the random streams of passes over the blocks apart from those of rows, which have lower numbers
SPARE = 64  # tokens by which filler is drawn too long, as BOS and EOS are taken out of it
SHORT_CONTEXTS = 0.4  # of the rows whose questions stand together have them before the row's end


class Row(NamedTuple):
    """One row; each (seq_len + 1,). `begins` are the places where a document begins; None: the whole is one."""

    ids: np.ndarray
    weights: np.ndarray
    answers: np.ndarray
    begins: np.ndarray | None = None


class RowError(UserError):
    """Rows that can't be made as declared; the message says what to change."""


@dataclass(frozen=True)
class Batch:
    """ids: (rows, seq_len + 1), int64; weights and answers: (rows, seq_len), float32 and bool, of each target.

    positions: (rows, seq_len), int64, of each id but the last in its document; None where a row is attended to whole.
    """

    ids: np.ndarray
    weights: np.ndarray
    answers: np.ndarray
    positions: np.ndarray | None = None


class RowSource:
    """The rows of one training phase.

    Args:
        corpus: training text.
        text: builds key statements and questions; only needed where rows ask for keys.
        phase: seq_len, global_batch and the mixture.
        order: the integers that fix the order of the data: seed, depth in the model tree, phase.

    Raises RowError if rows ask for keys and there is no text to ask with, or if the corpus is too short for a row.
    """

    def __init__(self, corpus: TokenisedCorpus, text: PasskeyText | None, phase: Train, order: tuple[int, ...]) -> None:
        if text is None and phase.rows.retrieval is not None:
            raise RowError(f"phase {phase.name} asks for keys, and there is no tokenizer to write them with")
        least = phase.seq_len + 1 + SPARE
        if phase.rows.text == "spans" and len(corpus.tokens) <= least:
            raise RowError(
                f"corpus {phase.corpus} has {len(corpus.tokens)} tokens, and a row of seq_len {phase.seq_len} is cut "
                f"from more than {least}: name more text, or lower seq_len"
            )
        self._corpus = corpus
        self._tokens = corpus.tokens
        self._passkey = text
        self._phase = phase
        self._order = order

    def batch(self, step: int, share: slice = slice(None)) -> Batch:
        """The rows of optimizer step `step` (0-based within the phase), or a share of them."""
        first = step * self._phase.global_batch
        rows = [self._row(first + i) for i in range(self._phase.global_batch)[share]]
        apart = self._phase.rows.attention_within == "document"
        return Batch(
            ids=np.stack([row.ids for row in rows]),
            # The first token of a row is never a target.
            weights=np.stack([row.weights[1:] for row in rows]),
            answers=np.stack([row.answers[1:] for row in rows]),
            positions=np.stack([_positions(row)[:-1] for row in rows]) if apart else None,
        )

    def _row(self, number: int) -> Row:
        rng = np.random.default_rng([*self._order, number])
        length = self._phase.seq_len + 1
        retrieval, repeats = self._phase.rows.retrieval, self._phase.rows.repeats
        share = rng.random()
        if retrieval is not None and share < retrieval.share:
            return self._retrieval(rng, length, retrieval)
        if repeats is not None and share < (retrieval.share if retrieval else 0) + repeats.share:
            return self._repeated(rng, length, repeats)
        if self._phase.rows.text == "blocks":
            return self._block(number)
        # Behind BOS, as a model reads documents and prompts; what stood there was no target either.
        ids = self._span(rng, length)
        ids[0] = self._corpus.bos
        return Row(ids, np.ones(length, np.float32), np.zeros(length, bool), self._begins(ids))

    def _block(self, number: int) -> Row:
        """The first seq_len ids of a document; there is none behind them, so the last has no target.

        As in the official run, whose labels are the block's own ids, shifted (finetune.py @995db5b).
        """
        count, length = len(self._corpus.names), self._phase.seq_len
        index = int(_permutation(self._order, number // count, count)[number % count])
        ids = self._corpus.document(index)[:length].astype(np.int64)
        if len(ids) < length:
            raise RowError(
                f"block {self._corpus.names[index]} of corpus {self._phase.corpus} has {len(ids)} tokens, seq_len is "
                f"{length}: lower seq_len, set the corpus's min_tokens to {length}, or take rows of text: spans"
            )
        weights = np.ones(length + 1, np.float32)
        weights[-1] = 0
        ids = np.append(ids, ids[-1])
        return Row(ids, weights, np.zeros(length + 1, bool), self._begins(ids))

    def _begins(self, ids: np.ndarray) -> np.ndarray | None:
        """Where documents of a row of text begin: with BOS. If that is EOS too, it follows the EOS of another."""
        if self._phase.rows.attention_within is None:
            return None
        begins = ids == self._corpus.bos
        if self._corpus.bos == self._corpus.eos:
            begins[1:] &= ids[:-1] == self._corpus.eos
        return begins

    def _span(self, rng: np.random.Generator, length: int) -> np.ndarray:
        start = int(rng.integers(len(self._tokens) - length))
        return self._tokens[start : start + length].astype(np.int64)

    @property
    def _text(self) -> PasskeyText:
        assert self._passkey is not None
        return self._passkey

    @cached_property
    def _ordinary(self) -> np.ndarray:
        """The ids up to the corpus's largest, without BOS and EOS; reads all of it."""
        return np.setdiff1d(np.arange(int(self._tokens.max()) + 1), [self._corpus.bos, self._corpus.eos])

    def _repeated(self, rng: np.random.Generator, length: int, repeats: Repeats) -> Row:
        """One segment over and over; only what can be copied counts, not its first occurrence."""
        size = int(rng.integers(repeats.min_segment, repeats.max_segment + 1))
        noise = rng.random() < repeats.random
        segment = self._ordinary[rng.integers(len(self._ordinary), size=size)] if noise else self._span(rng, size)
        weights = np.ones(length, np.float32)
        if noise:
            weights[:size] = 0
        return Row(np.resize(segment, length), weights, np.zeros(length, bool))

    def _retrieval(self, rng: np.random.Generator, length: int, retrieval: Retrieval) -> Row:
        """Keys hidden anywhere in text and asked for after that."""
        wanted = int(rng.integers(retrieval.min_keys, retrieval.max_keys + 1))
        about = _About(TRAINING[rng.integers(len(TRAINING))], NOUNS[rng.integers(len(NOUNS))])
        opening = self._text.wording(about.phrases, about.noun).opening
        head = np.concatenate([[self._text.bos], opening])
        asked = self._asked_together if retrieval.asked == "together" else self._asked_apart
        for count in range(wanted, retrieval.min_keys - 1, -1):
            pieces = asked(rng, count, about)
            room = length - len(head) - sum(len(piece.ids) for piece in pieces)
            if room >= 0:
                break
        else:
            raise RowError(
                f"a retrieval row of {count} keys needs {length - room - 1} tokens, seq_len is {length - 1}: "
                "lower min_keys"
            )
        filler = self._text.clean(self._span(rng, room + SPARE))[:room]
        filler = np.concatenate([filler, np.resize(self._text.end, room - len(filler))])
        return _assemble(head, filler, pieces, retrieval.answer_weight)

    def _asked_together(self, rng: np.random.Generator, count: int, about: _About) -> list[_Piece]:
        """Keys spread over a context that all questions follow."""
        context = 1.0 if rng.random() >= SHORT_CONTEXTS else float(rng.random())
        names = self._names(rng, count) if count > 1 else [""]
        keys = {name: self._text.key_ids(random_key(rng)) for name in names}
        statements = [self._statement(keys[name], about, name, context * float(rng.random())) for name in names]
        asked = rng.permutation(names) if count > 1 else ["", ""]
        return statements + [self._question(keys[name], about, str(name), context) for name in asked]

    def _asked_apart(self, rng: np.random.Generator, count: int, about: _About) -> list[_Piece]:
        """Every question somewhere behind its key, the nameless one at the row's end."""
        pieces = []
        for name in ["", *self._names(rng, count - 1)]:
            key = self._text.key_ids(random_key(rng))
            stated, asked = (float(place) for place in sorted(rng.random(2)))
            if name == "":
                stated, asked = float(rng.random()), 1.0
            elif rng.random() < 0.5:  # half of the distances evenly in length, half evenly in its logarithm
                stated = max(0.0, asked - 10 ** -float(rng.uniform(0, 2.5)))
            pieces += [self._statement(key, about, name, stated), self._question(key, about, name, asked)]
        return pieces

    def _names(self, rng: np.random.Generator, count: int) -> list[str]:
        return [str(name) for name in rng.choice(NAMES, count, replace=False)]

    def _statement(self, key: np.ndarray, about: _About, name: str, place: float) -> _Piece:
        return _Piece(place, self._text.wording(about.phrases, about.called(name)).statement(key))

    def _question(self, key: np.ndarray, about: _About, name: str, place: float) -> _Piece:
        question, end = self._text.wording(about.phrases, about.called(name)).question, self._text.end
        return _Piece(place, np.concatenate([question, key, end]), answer=len(key) + len(end))


@dataclass(frozen=True)
class _About:
    """How a row words its keys, and what all of them are."""

    phrases: Phrases
    noun: str

    def called(self, name: str) -> str:
        return f"{name} {self.noun}".strip()


@lru_cache(maxsize=16)
def _permutation(order: tuple[int, ...], number: int, count: int) -> np.ndarray:
    """The order of `count` blocks in the pass of that number over them."""
    return np.random.default_rng([*order, PASSES + number]).permutation(count)


@dataclass(frozen=True)
class _Piece:
    """Token ids to insert into the filler at `place` (0 … 1); the last `answer` ids are an answer.

    The random key of a statement is a target too, although nothing predicts it: a model that copies another name's key
    there pays for it, and learns to compare names.
    """

    place: float
    ids: np.ndarray
    answer: int = 0


def _positions(row: Row) -> np.ndarray:
    """The place of each id in its document, from 0; (seq_len + 1,), int64."""
    places = np.arange(len(row.ids))
    return places if row.begins is None else places - np.maximum.accumulate(np.where(row.begins, places, 0))


def _assemble(head: np.ndarray, filler: np.ndarray, pieces: list[_Piece], answer_weight: float) -> Row:
    """(ids, weights, answers) of one row: the pieces in their places, answers weighted, unpredictable ids at 0."""
    ids, weights, answers = [head], [np.ones(len(head), np.float32)], [np.zeros(len(head), bool)]
    at = 0
    for piece in sorted(pieces, key=lambda piece: piece.place):  # stable: a question stays behind its statement
        cut = round(piece.place * len(filler))
        marks = np.arange(len(piece.ids)) >= len(piece.ids) - piece.answer
        weight = np.where(marks, np.float32(answer_weight), np.float32(1))
        ids += [filler[at:cut], piece.ids]
        weights += [np.ones(cut - at, np.float32), weight]
        answers += [np.zeros(cut - at, bool), marks]
        at = cut
    rest = filler[at:]
    ids, weights = [*ids, rest], [*weights, np.ones(len(rest), np.float32)]
    return Row(np.concatenate(ids), np.concatenate(weights), np.concatenate([*answers, np.zeros(len(rest), bool)]))
