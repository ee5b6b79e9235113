"""truncated-prefix@1: perplexity at every length from one forward pass over each document's longest prefix.

The official protocol runs BOS and the first N−1 tokens of a document through the model for each N
(eval/perplexity.py:29-82 with --truncate). In a causal model with static positions the NLL of a token depends on
what precedes it alone, so one pass over the longest prefix yields them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.documents import EvaluationError, prefixes
from yarnlab.evaluation.nll import cumulative_and_bucket_means, token_nll
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import autocast
from yarnlab.progress import Progress
from yarnlab.rope import Rope
from yarnlab.study.fields import LengthGrid

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

PROTOCOL = "truncated-prefix@1"


def evaluate(task: Task) -> Outcome:
    """One row per document and length; the per-token NLL is kept."""
    lengths = LengthGrid(**task.settings["lengths"]).values()
    progress = task.progress(len(task.corpus.names), "document")
    nll = document_nll(task.model, task.rope, task.corpus, lengths[-1], task.settings["precision"], progress)
    columns = {**task.columns, "corpus": task.settings["corpus"]}
    table = perplexity_table(nll, task.corpus.names, lengths, columns)
    at = table.groupby("length")["nll"].mean()
    return Outcome(table, {f"nll/{length}": float(at[length]) for length in _powers(lengths)}, nll)


def document_nll(
    model: PreTrainedModel,
    rope: Rope,
    corpus: TokenisedCorpus,
    longest: int,
    precision: str,
    progress: Progress,
    documents: int | None = None,
) -> np.ndarray:
    """NLL of the first `longest` − 1 tokens after BOS of each of the first `documents` documents (default: all).

    Returns float32, (documents, longest − 1).

    Raises EvaluationError for a dynamic rope (its values at N are not a prefix of those at 2N), and as `prefixes`.
    """
    if rope.dynamic:
        raise EvaluationError(f"{rope.method} rescales with the input's length, so one pass can't give other lengths")
    rows = []
    for name, ids in zip(corpus.names, prefixes(corpus, longest, documents, model.config.vocab_size), strict=False):
        with autocast(precision):
            rows.append(token_nll(model, ids[None])[0])
        progress.advance(note=name)
    return np.stack(rows)


def perplexity_table(
    nll: np.ndarray, documents: tuple[str, ...], lengths: tuple[int, ...], columns: dict[str, Any]
) -> pd.DataFrame:
    """One row per document and length, with `columns` repeated in front."""
    import pandas as pd

    rows = [
        {**columns, "document": name, **row, "protocol": PROTOCOL}
        for name, values in zip(documents, nll, strict=True)
        for row in cumulative_and_bucket_means(values, lengths)
    ]
    return pd.DataFrame(rows)


def _powers(lengths: tuple[int, ...]) -> list[int]:
    """The shortest length and its doublings: enough for a glance in the dashboard."""
    chosen, length = [], lengths[0]
    while length <= lengths[-1]:
        if length in lengths:
            chosen.append(length)
        length *= 2
    return chosen
