"""dynamic@1: dynamic scaling length by length, one forward pass for each (paper §3.3, App. B.3 and Fig. 5).

At length N every document's BOS and first N − 1 tokens are scored under the rope that a dynamic method has for an
input of N tokens, s = max(1, N/L). Shorter lengths are no prefix of longer ones, hence a pass for each. The paper's
figure shows one document; here every document of the corpus is a row.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from yarnlab.evaluation.documents import prefixes
from yarnlab.evaluation.nll import token_nll
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import autocast, set_rope
from yarnlab.study.schema import RopeChoice

if TYPE_CHECKING:
    from yarnlab.rope import Rope

PROTOCOL = "dynamic@1"


def evaluate(task: Task) -> Outcome:
    """One row per method, document and length: `nll` over all N − 1 targets and `tail_nll` over the last `tail`.

    The weights are run with each method's rope instead of their own; `none` is plain RoPE.
    """
    import pandas as pd

    settings, corpus = task.settings, task.corpus
    methods, lengths, tail = settings["methods"], settings["lengths"], settings["tail"]
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    documents = prefixes(corpus, max(lengths), None, task.model.config.vocab_size)
    progress = task.progress(len(methods) * sum(lengths) * len(documents), "token")
    rows: list[dict[str, Any]] = []

    def of_one(method: str, rope: Rope, length: int) -> list[dict[str, Any]]:
        """One row per document."""
        set_rope(task.model, rope)
        made = []
        for name, ids in zip(corpus.names, documents, strict=True):
            with autocast(settings["precision"]):
                nll = token_nll(task.model, ids[None, :length])[0].astype(np.float64)
            made.append(
                {
                    **columns,
                    "method": method,
                    "document": name,
                    "length": length,
                    "scale_in_force": float(rope.scale),
                    "nll": nll.mean(),
                    "tail_nll": nll[-tail:].mean(),
                    "tokens": len(nll),
                    "protocol": PROTOCOL,
                }
            )
            progress.advance(length, note=f"{method} at {length}")
        return made

    for method in methods:
        rope = RopeChoice(method=method, scale=1.0).make(task.architecture)
        for length in lengths:
            compute = partial(of_one, method, rope.at(length), length)
            rows += task.blocks.rows(f"{method}-{length}", progress, length * len(documents), compute)
    table = pd.DataFrame(rows)
    at_the_end = table[table["length"] == max(lengths)].groupby("method")["tail_nll"].mean()
    return Outcome(table, {f"tail_nll/{method}": float(nll) for method, nll in at_the_end.items()})
