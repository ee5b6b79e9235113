"""The stages of a study, one function each: open the inputs, do the work, write outputs and manifest.

A stage takes the study's results folder, the name of what it makes, and the section of the study that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from yarnlab.stages.data import fetch_asset, make_corpus, make_tokenizer
from yarnlab.stages.evaluate import evaluate
from yarnlab.stages.layout import Layout
from yarnlab.stages.models import make_model
from yarnlab.study.evaluations import KINDS

__all__ = ["STAGES", "Layout"]

STAGES: dict[str, Callable[..., None]] = {
    "asset": fetch_asset,
    "tokenizer": make_tokenizer,
    "corpus": make_corpus,
    "train": make_model,
    **{kind: partial(evaluate, kind) for kind in KINDS},
}
