"""sliding-window@1: windows over whole documents, each scored on the tokens that no earlier window covers.

The official protocol without --truncate (eval/perplexity.py:29-86), the paper's for GovReport (§4.3.1, Table 4). A
window is BOS and up to window − 1 document tokens, at positions from 0 on. Windows begin at document tokens 0, stride,
2·stride, … until one reaches the document's end. The first is scored on all its document tokens, BOS never, each later
one on the `stride` tokens that it adds (the last may add fewer), so every token is scored once.

A dynamic rope is allowed here: each window is an input of its own, and the whole of it is run, its last token included,
so that the rope is that of the window's length. The official dynamic modules keep the longest scale seen for later,
shorter windows (modeling_llama_yarn.py:321-324); ours do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task
from yarnlab.evaluation.documents import EvaluationError, check_vocabulary
from yarnlab.evaluation.nll import TOKENS_PER_BATCH, target_nll
from yarnlab.lazy import np, pd, torch
from yarnlab.study.fields import Positive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

BATCHES_PER_PART = 64  # of one window each at full scale: two minutes for a model of 7B on an H100
UNTRUNCATED = 1.25  # windows that a document is taken to be long where the study does not cut it (in `yarnlab plan`)


class SlidingWindow(Evaluation):
    """sliding-window@1: windows of `window` tokens every `stride` tokens (the paper's GovReport protocol)."""

    kind = "sliding_window"
    order = 4
    PROTOCOL = "sliding-window@1"
    COLUMNS = "method scale corpus document window_index start tokens nll"

    window: int = Field(ge=2)
    """Tokens of a window, BOS included."""
    stride: Positive
    """Tokens from the start of a window to that of the next."""
    max_tokens: Positive | None = None
    """Documents are cut to this many tokens; without it they are read whole, as the paper does."""

    @model_validator(mode="after")
    def _overlap(self) -> SlidingWindow:
        if self.stride >= self.window:
            raise ValueError(f"stride {self.stride} must be below window {self.window}")
        return self

    def cost(self, study: Study, arm: str) -> Passes:
        tokens = self.max_tokens or round(UNTRUNCATED * self.window)
        each, size = window_count(tokens, self.window, self.stride), min(self.window, tokens + 1)
        note = None
        if self.max_tokens is None:
            note = (
                f"sliding_window: documents are read whole; each is taken to have {tokens:,} tokens, so {each} "
                "windows. Their real lengths decide."
            )
        windows = self.documents_read(study, arm) * each
        return Passes([(windows, size)], max(size, TOKENS_PER_BATCH), note=note)

    def evaluate(self, task: Task) -> Outcome:
        """One row per window: `start` is the first scored token's index in the document (BOS not counted), `tokens`
        how many are scored, `nll` their mean in nats.

        Raises EvaluationError for a corpus or document without tokens, for token ids that the model does not have,
        and for a loss that is not finite.
        """
        documents = _documents(task.corpus, self.max_tokens, task.model.config.vocab_size)
        windows = [
            window
            for i, ids in enumerate(documents)
            for window in windows_of(i, len(ids) - 1, self.window, self.stride)
        ]
        together = list(batches(windows))
        parts = {i: together[i : i + BATCHES_PER_PART] for i in range(0, len(together), BATCHES_PER_PART)}
        cells = [
            Cell(f"batches-{i}", sum(map(len, part)), partial(self._rows, task, documents, part))
            for i, part in parts.items()
        ]
        measured = [window for batch in together for window in batch]
        rows = dict(zip(measured, task.rows(cells, "window"), strict=True))
        table = pd.DataFrame(rows[window] for window in windows)
        pooled, by_document = pooled_nll(table).iloc[0], document_means(table)
        return Outcome(table, {"nll/windows": float(pooled), "nll/documents": float(by_document.mean())})

    def _rows(self, task: Task, documents: list[np.ndarray], part: list[list[Window]], progress: Progress) -> Rows:
        """One row per window, batch by batch."""
        from yarnlab.modeling import autocast

        columns = {**task.columns, "corpus": self.corpus}
        rows: Rows = []
        for batch in part:
            with autocast(self.precision):
                nll = window_nll(task.model, np.stack([_input(documents, w) for w in batch]), batch[0].tokens)
            for window, values in zip(batch, nll, strict=True):
                mean, name = float(values.mean(dtype=np.float64)), task.corpus.names[window.document]
                if not np.isfinite(mean):
                    raise EvaluationError(
                        f"document {name}: the model's loss is not finite in the window "
                        f"that begins at token {window.begin}: its weights or rope are broken"
                    )
                place = {"document": name, "window_index": window.index, "start": window.start}
                measured = {"tokens": window.tokens, "nll": mean, "protocol": self.PROTOCOL}
                rows.append(columns | place | measured)
            progress.advance(len(batch), note=f"{batch[0].length} tokens each")
        return rows


@dataclass(frozen=True)
class Window:
    """Document tokens begin … end − 1 after BOS, of which start … end − 1 are scored; counted without BOS."""

    document: int
    index: int
    begin: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Tokens of the model's input, BOS included."""
        return 1 + self.end - self.begin

    @property
    def tokens(self) -> int:
        """Tokens scored."""
        return self.end - self.start


def windows_of(document: int, tokens: int, window: int, stride: int) -> Iterator[Window]:
    """The windows of a document of `tokens` tokens without BOS, for stride < window (eval/perplexity.py:49-59, 81)."""
    start = 0
    for index, begin in enumerate(range(0, tokens, stride)):
        end = min(begin + window - 1, tokens)
        yield Window(document, index, begin, start, end)
        if end == tokens:
            return
        start = end


def window_count(tokens: int, window: int, stride: int) -> int:
    """How many `windows_of` gives, in closed form."""
    return 1 + max(0, math.ceil((tokens - (window - 1)) / stride))


def batches(windows: list[Window]) -> Iterator[list[Window]]:
    """Windows alike in length and in tokens scored, so that none needs padding, TOKENS_PER_BATCH at most together."""
    alike: dict[tuple[int, int], list[Window]] = {}
    for window in windows:
        alike.setdefault((window.length, window.tokens), []).append(window)
    for (length, _), group in alike.items():
        size = max(1, TOKENS_PER_BATCH // length)
        for first in range(0, len(group), size):
            yield group[first : first + size]


def window_nll(model: PreTrainedModel, inputs: np.ndarray, scored: int) -> np.ndarray:
    """NLL in nats of the last `scored` tokens of each row of `inputs`: float32, (rows, scored).

    The hidden states are those of the caller's autocast, of the whole row, its last token included.
    """
    from yarnlab.families.hidden_states import hidden_states

    ids = torch.from_numpy(inputs.astype("int64")).to(model.device)
    with torch.inference_mode():
        hidden = hidden_states(model, ids)[:, -scored - 1 : -1]
        return target_nll(model, hidden, ids[:, -scored:]).cpu().numpy()


def pooled_nll(table: pd.DataFrame) -> pd.Series:
    """The official value's logarithm, by model and corpus: the mean over the windows of all documents, each window
    with the same weight (eval/perplexity.py:75, 86). Long documents and the short last windows weigh more in it than
    their tokens do.
    """
    return table.groupby(["model", "corpus"], sort=False)["nll"].mean()


def document_means(table: pd.DataFrame) -> pd.Series:
    """NLL per token of each document, by model, corpus and document: windows weigh as many tokens as they score."""
    keys = ["model", "corpus", "document"]
    sums = table.assign(nll=table["nll"] * table["tokens"]).groupby(keys, sort=False)[["nll", "tokens"]].sum()
    return sums["nll"] / sums["tokens"]


def _documents(corpus: TokenisedCorpus, max_tokens: int | None, vocab_size: int) -> list[np.ndarray]:
    """BOS and the first `max_tokens` tokens (None: all) of each document, without EOS; views of the corpus."""
    if not corpus.names:
        raise EvaluationError("the corpus has no documents: lower its `min_tokens` or name more sources")
    check_vocabulary(int(corpus.tokens.max()), vocab_size)
    documents = [corpus.document(i)[:-1] for i in range(len(corpus.names))]
    for name, ids in zip(corpus.names, documents, strict=True):
        if len(ids) < 2:
            raise EvaluationError(f"document {name} has no tokens to score: raise the corpus's `min_tokens`")
    return documents if max_tokens is None else [ids[: max_tokens + 1] for ids in documents]


def _input(documents: list[np.ndarray], window: Window) -> np.ndarray:
    """BOS and the window's document tokens, as the model reads them."""
    ids = documents[window.document]
    return np.concatenate([ids[:1], ids[1 + window.begin : 1 + window.end]])
