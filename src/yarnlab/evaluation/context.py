"""same-tokens@1: the same target tokens under several contexts, so that a comparison of contexts compares nothing else.

Later tokens of a document differ from earlier ones, whatever a model can read: perplexity at two lengths compares
other text too. Here a token keeps its place, and what precedes it is cut to a window of `context` tokens, or not cut.

Tokens are counted as in truncated-prefix@1, BOS included: the tokens in (a, b] are those at positions a … b − 1, and a
window of c tokens is BOS, c − 2 document tokens and the last target, which is not an input. Windows follow each other
by a stride of c/4, each scored on its last c/4 tokens, so a token is predicted from 3c/4 to c − 1 tokens.

The smallest window is scored on all text behind it, which tells what cutting the text costs; each larger one, c, on
the tokens in (c, 2c] alone, which tells what doubling the context is worth there. More windows would cost more passes
and answer no question that is asked.

Every window begins with BOS at position 0 and runs its positions from there, as the whole text does, and as
sliding-window@1 and the official code cut windows (eval/perplexity.py:49-59). Without BOS the first tokens of a cut
text would have to take its part as the place where unused attention goes, and that harm would pass for a gain from
context.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task
from yarnlab.evaluation.documents import prefixes
from yarnlab.evaluation.nll import batched_nll, rows_together, token_nll
from yarnlab.evaluation.perplexity import doublings
from yarnlab.evaluation.zero_shot import grid_lengths
from yarnlab.lazy import np
from yarnlab.study.fields import Distinct, KeyPath, Name, Positive, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

STRIDES = 4  # in a window: a token sees at least 1 − 1/STRIDES of it; more cost as many more passes


class Context(Evaluation):
    """same-tokens@1: the same tokens predicted from windows of several lengths, and from all that precedes them."""

    kind = "context"
    order = 2
    PROTOCOL = "same-tokens@1"
    COLUMNS = "method scale corpus document context segment_start segment_end tokens nll"
    STATIC_ONLY = "so its contexts would differ in their rope too"

    contexts: Distinct[Annotated[int, Field(ge=STRIDES, multiple_of=STRIDES)]]
    """Tokens of a window, BOS included: the smallest and doublings of it, each scored on the doubling that follows it,
    the smallest on all text. One pass over the whole text is added."""
    contexts_of: dict[Name, Distinct[int]] | None = None
    """Model → those of `contexts` that it is given; without it all of them. Every model is
    given all that precedes too."""
    max_length: Positive
    """Tokens that are read of each document, BOS included; a doubling of the smallest context, beyond the largest."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""
    windows_only: bool | None = None
    """true: no pass over the whole text, where `perplexity`, or for plain RoPE `zero_shot` with the method none, makes
    it too: tables and claims take the NLL from there."""

    @model_validator(mode="after")
    def _doublings(self) -> Context:
        # So windows tile segments, and a context is either a window in all of a segment or its whole prefix.
        first = min(self.contexts)
        for name, tokens in (*(("contexts", context) for context in self.contexts), ("max_length", self.max_length)):
            times, rest = divmod(tokens, first)
            if rest or times & (times - 1):
                raise ValueError(f"{name}: {tokens} is no doubling of the smallest context, {first}")
        if max(self.contexts) >= self.max_length:
            raise ValueError(f"max_length {self.max_length} must exceed the largest context, {max(self.contexts)}")
        for arm, chosen in (self.contexts_of or {}).items():
            if arm not in self.models:
                raise ValueError(f"contexts_of: {arm} is none of `models`")
            if unknown := set(chosen) - set(self.contexts):
                raise ValueError(f"contexts_of.{arm}: {unknown.pop()} is none of `contexts`")
        return self

    def of_arm(self, arm: str) -> Context:
        chosen = (self.contexts_of or {}).get(arm)
        return self.model_copy(update={"contexts_of": chosen and {arm: chosen}})

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("max_length",), self.max_length

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        if self.windows_only and not self._read_whole(study, arm):
            lengths = ", ".join(map(str, doublings(min(self.contexts), self.max_length)))
            yield (
                ("windows_only",),
                f"no `perplexity`, and for plain RoPE no `zero_shot` with the method none, of {arm} has the lengths "
                f"{lengths} on the same corpus and in the same precision: nothing would have the NLL of the whole text",
            )

    def _read_whole(self, study: Study, arm: str) -> bool:
        """Whether another evaluation has the NLL of all segments from all that precedes them."""
        borders = set(doublings(min(self.contexts), self.max_length))
        return any(
            arm in other.models
            and other.precision == self.precision
            and study.corpus_of(other.kind, arm) == study.corpus_of(self.kind, arm)
            and borders <= lengths
            for other, lengths in _passes_over_whole_texts(study, arm)
        )

    def cost(self, study: Study, arm: str) -> Passes:
        documents = self.documents_read(study, arm)
        given = self._given(arm)
        windows = {context: STRIDES * (self._end(context) - context) // context for context in given}
        at_once = [min(count, rows_together(context)) * context for context, count in windows.items()]
        runs: list[tuple[float, int]] = [(documents * count, context) for context, count in windows.items()]
        if self.windows_only:
            return Passes([*runs], max(at_once))
        return Passes([(documents, self.max_length), *runs], max(self.max_length, *at_once))

    def evaluate(self, task: Task) -> Outcome:
        """One row per document, segment and context: mean NLL in nats of the tokens in (segment_start, segment_end].

        Segments are (first, 2·first], (2·first, 4·first], … up to max_length, `first` being the smallest of `contexts`,
        which has a row in each; a larger window has one in the segment that begins at its length. `context` =
        max_length is all that precedes, without `windows_only`.

        Raises EvaluationError as `prefixes` and `token_nll`.
        """
        documents = prefixes(task.corpus, self.max_length, self.documents, task.model.config.vocab_size)
        names = task.corpus.names[: len(documents)]
        texts = zip(names, documents, strict=True)
        cells = [Cell(f"document-{i}", 1, partial(self._rows, task, *text)) for i, text in enumerate(texts)]
        table = task.table(cells, "document")
        last = table[table["segment_end"] == self.max_length].groupby("context")["nll"].mean()
        return Outcome(table, {f"nll_of_last_segment/{context}": float(nll) for context, nll in last.items()})

    def _given(self, arm: str) -> tuple[int, ...]:
        """The contexts of a model, from the smallest on."""
        return tuple(sorted((self.contexts_of or {}).get(arm, self.contexts)))

    def _end(self, context: int) -> int:
        """The last token that is scored with a window, counted from 1."""
        return self.max_length if context == min(self.contexts) else 2 * context

    def _rows(self, task: Task, name: str, ids: np.ndarray, progress: Progress) -> Rows:
        from yarnlab.modeling import autocast

        with autocast(self.precision):
            # Context → its first target's position, and the NLL of all targets from there on.
            measured = {
                c: (c, window_nll(task.model, ids[: self._end(c)], c)) for c in self._given(task.columns["arm"])
            }
            if not self.windows_only:
                measured[self.max_length] = 1, token_nll(task.model, ids[None])[0]
        columns = {**task.columns, "corpus": self.corpus, "document": name}
        rows: Rows = []
        start = min(self.contexts)
        while (end := 2 * start) <= self.max_length:
            for context, (first, nll) in measured.items():
                if first <= start < first + len(nll):
                    row = {"context": context, "segment_start": start, "segment_end": end, "tokens": end - start}
                    mean = float(nll[start - first : end - first].mean(dtype="float64"))
                    rows.append(columns | row | {"nll": mean, "protocol": self.PROTOCOL})
            start = end
        progress.advance(note=name)
        return rows


def _passes_over_whole_texts(study: Study, arm: str) -> Iterator[tuple[Evaluation, set[int]]]:
    """Evaluations that give an arm's NLL under its own rope from all that precedes, and the lengths of each pass."""
    rope, window = study.models[arm].rope, study.architecture(arm).original_context
    if (whole := study.evaluations.perplexity) is not None:
        yield whole, set(whole.lengths.values())
    swept = study.evaluations.zero_shot
    if swept is not None and "none" in swept.methods and (rope is None or rope.method == "none"):
        for scale in swept.scales:
            grid = grid_lengths(window, scale, swept.max_length)
            yield swept, {*grid, *(length for length in swept.lengths or () if length < grid[-1])}


def window_nll(model: PreTrainedModel, ids: np.ndarray, window: int) -> np.ndarray:
    """NLL in nats of ids[window:], each predicted from a window of that many tokens: float32, (tokens,).

    The hidden states are those of the caller's autocast.

    Args:
        ids: BOS and a text, of a length that is a multiple of the stride.
        window: tokens, a multiple of STRIDES.
    """
    stride = window // STRIDES
    ends = range(window + stride, len(ids) + 1, stride)
    rows = np.stack([np.concatenate([ids[:1], ids[end - window + 1 : end]]) for end in ends])
    return batched_nll(model, rows, stride).ravel()
