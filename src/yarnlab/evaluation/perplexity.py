"""truncated-prefix@1: perplexity at every length from one forward pass over each document's longest prefix.

The official protocol runs BOS and the first N−1 tokens of a document through the model for each N
(eval/perplexity.py:29-82 with --truncate). In a causal model with static positions the NLL of a token depends on
what precedes it alone, so one pass over the longest prefix yields them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.nll import EvaluationError, cumulative_and_bucket_means, token_nll
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

    Raises EvaluationError for a dynamic rope (its values at N are not a prefix of those at 2N), for a document
    shorter than `longest`, and for token ids that the model does not have.
    """
    if rope.dynamic:
        raise EvaluationError(f"{rope.method} rescales with the input's length, so one pass can't give other lengths")
    if int(corpus.tokens.max()) >= model.config.vocab_size:
        raise EvaluationError(
            f"the corpus has token id {int(corpus.tokens.max())}, the model's vocabulary ends at "
            f"{model.config.vocab_size - 1}: it was tokenised for another model"
        )
    rows = []
    for i, name in enumerate(corpus.names[:documents]):
        ids = corpus.document(i)[:-1]  # without EOS
        if len(ids) < longest:
            raise EvaluationError(f"document {name} has {len(ids)} tokens with BOS, {longest} are needed")
        with autocast(precision):
            rows.append(token_nll(model, ids[:longest]))
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
