"""Methods × scales on one model as it is: same weights, other rope, perplexity by truncated-prefix@1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.perplexity import document_nll, perplexity_table
from yarnlab.modeling import set_rope
from yarnlab.progress import Progress
from yarnlab.rope import make_rope
from yarnlab.study.schema import Architecture

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel


def grid_lengths(original_context: int, scale: float, max_length: int) -> tuple[int, ...]:
    """L, 2L, 4L, … up to twice the extended context, so that the end of each method's reach is seen."""
    lengths, length = [], original_context
    while length <= min(2 * scale * original_context, max_length):
        lengths.append(length)
        length *= 2
    return tuple(lengths)


def zero_shot_grid(
    model: PreTrainedModel,
    architecture: Architecture,
    corpus: TokenisedCorpus,
    evaluation: dict[str, Any],
    columns: dict[str, Any],
    progress: Progress,
) -> pd.DataFrame:
    """One row per method, scale, document and length."""
    import pandas as pd

    tables = []
    for scale in evaluation["scales"]:
        lengths = grid_lengths(architecture.original_context, scale, evaluation["max_length"])
        for method in evaluation["methods"]:
            rope = make_rope(
                method,
                scale=scale,
                original_context=architecture.original_context,
                head_dim=architecture.head_dim,
                base=architecture.rope_theta,
            )
            set_rope(model, rope)
            nll = document_nll(model, rope, corpus, lengths[-1], evaluation["precision"], progress)
            tables.append(
                perplexity_table(nll, corpus.names, lengths, {**columns, "method": method, "scale": float(scale)})
            )
    return pd.concat(tables, ignore_index=True)
