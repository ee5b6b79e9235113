"""What every evaluation is given and what it gives back.

Each kind of evaluation is one module here with a function `evaluate(task) -> Outcome`, and a section of the same name
in the study (study/evaluations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.evaluation.blocks import Blocks

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from transformers import PreTrainedModel

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.progress import Progress
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Architecture


@dataclass(frozen=True)
class Task:
    """One evaluation of one model.

    settings: the evaluation's section of the study, without its list of models.
    seed: the evaluation's own, equal for all models, so that they are asked the same.
    columns: model, arm, method, scale, seed: what every row of the table begins with.
    model: fp32 weights, evaluation mode, `rope` in force, the device's fastest exact attention chosen.
    tokenizer: the tokenizer's folder.
    progress: makes a Progress from (total, unit).
    blocks: keeps what is computed, for an attempt that follows one that ended early.
    """

    settings: dict[str, Any]
    seed: int
    columns: dict[str, Any]
    architecture: Architecture
    corpus: TokenisedCorpus
    model: PreTrainedModel
    rope: Rope
    tokenizer: Path
    progress: Callable[[int, str], Progress]
    blocks: Blocks = field(default_factory=Blocks)


@dataclass(frozen=True)
class Outcome:
    """A tidy table, one row per measured value, and what else is kept.

    metrics: a few numbers for the dashboard.
    nll: per-token NLL in nats, float32, (documents, tokens), where curves and bootstraps need it.
    extra: further tables by name, kept beside the first.
    """

    table: pd.DataFrame
    metrics: dict[str, float] = field(default_factory=dict)
    nll: np.ndarray | None = None
    extra: dict[str, pd.DataFrame] = field(default_factory=dict)
