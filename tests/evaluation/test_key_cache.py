"""The parallel passes must score what decoding token by token would have scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from decoding import logits_of_every_step

from yarnlab.evaluation import key_cache
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.key_cache import KeyCache, recomputed_nll
from yarnlab.evaluation.nll import token_nll
from yarnlab.families import hidden_states
from yarnlab.generation import CACHES
from yarnlab.modeling import create_model, set_rope, use_fast_attention
from yarnlab.rope import make_rope


def evaluate(task):
    return KeyCache(**task.settings).evaluate(task)


SETTINGS = {"methods": ["dynamic-pi", "dynamic-yarn"], "length": 150, "documents": 2}


def decoded_nll(model, rope, ids: np.ndarray, cache: str) -> np.ndarray:
    """NLL of ids[1:] by decoding token by token with a key cache."""
    inputs = torch.from_numpy(ids.astype(np.int64))[None]
    logits = logits_of_every_step(model, rope, inputs[:, :-1], cache)[0]
    return torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none").numpy()


def rope_for(method: str):
    return make_rope(method, original_context=64, head_dim=16)


def test_the_table_is_what_decoding_gives(tiny_task, tiny_model, monkeypatch):
    """Each cache's mean NLL in each bucket of L tokens, from two documents in one batch or one by one, from layers
    that take the sequence whole or piece by piece, to 1e-5."""
    task = tiny_task(SETTINGS)
    use_fast_attention(tiny_model)
    ids = np.asarray(task.corpus.document(1)[:150])
    decoded = {
        (method, cache): decoded_nll(tiny_model, rope_for(method), ids, cache)
        for method in SETTINGS["methods"]
        for cache in CACHES
    }
    for batch, piece in ((100, hidden_states.PIECE), (8192, hidden_states.PIECE), (8192, 64)):
        monkeypatch.setattr(key_cache, "TOKENS_PER_BATCH", batch)
        monkeypatch.setattr(hidden_states, "PIECE", piece)
        table = evaluate(task).table
        assert len(table) == 2 * 3 * 2 * 3 and set(table["protocol"]) == {"key-cache@1"}
        buckets = sorted(set(zip(table["bucket_start"], table["bucket_end"], strict=True)))
        assert buckets == [(1, 64), (64, 128), (128, 150)]
        second = table[table["document"] == task.corpus.names[1]].set_index(["method", "cache"])
        for key, nll in decoded.items():
            for row in second.loc[[key]].itertuples():
                assert row.nll == pytest.approx(nll[row.bucket_start - 1 : row.bucket_end - 1].mean(), rel=1e-5)


def test_some_documents_are_not_recomputed(tiny_task, monkeypatch):
    """The others' numbers are those of all, also where a batch ends between them."""
    whole = evaluate(tiny_task(SETTINGS | {"documents": 3})).table
    for batch in (100, 300, 8192):
        monkeypatch.setattr(key_cache, "TOKENS_PER_BATCH", batch)
        part = evaluate(tiny_task(SETTINGS | {"documents": 3, "recomputed": 2})).table
        kept = whole[(whole["cache"] != "recomputed") | (whole["document"] != whole["document"].unique()[2])]
        pd.testing.assert_frame_equal(part, kept.reset_index(drop=True), rtol=1e-5)
    with pytest.raises(ValueError, match="recomputed: 4 is more than `documents`, 3"):
        KeyCache(**tiny_task(SETTINGS | {"documents": 3, "recomputed": 4}).settings)


def test_caches_agree_up_to_the_original_context_and_differ_beyond(tiny_task):
    table = evaluate(tiny_task(SETTINGS)).table
    cells = table.pivot(index=["method", "document", "bucket_start"], columns="cache", values="nll")
    within = cells.index.get_level_values("bucket_start") < 64
    spread = cells.max(axis=1) - cells.min(axis=1)
    assert (spread[within] < 1e-5).all() and (spread[~within] > 1e-3).all()


def test_the_cost_of_the_wrong_cache_is_over_the_tokens_beyond_the_window(tiny_task):
    """The dashboard's number: mean over documents and buckets beyond L of post-rope less pre-rope."""
    outcome = evaluate(tiny_task(SETTINGS | {"length": 193}))
    mean = outcome.table[outcome.table["bucket_start"] >= 64].groupby(["method", "cache"])["nll"].mean()
    for method in SETTINGS["methods"]:
        cost = mean[method, "post-rope"] - mean[method, "pre-rope"]
        assert outcome.metrics[f"wrong_cache/{method}"] == pytest.approx(cost)


def test_recomputation_scores_the_tokens_since_the_last_length(tiny_task, tiny_model):
    """With step 1 each token is the last target of an ordinary pass over what precedes it; with step 20 each block is
    the end of a pass at the block's length. Up to L all is plain RoPE."""
    ids = np.asarray(tiny_task({}).corpus.document(0)[:130]).astype(np.int64)
    rope = rope_for("dynamic-yarn")
    each, blocks = (recomputed_nll(tiny_model, rope, ids[None], step)[0] for step in (1, 20))
    set_rope(tiny_model, rope)
    for position in (1, 64, 65, 66, 100, 129):
        assert each[position - 1] == pytest.approx(token_nll(tiny_model, ids[None, : position + 1])[0, -1], rel=1e-4)
    for first, last in ((65, 84), (85, 104), (105, 124), (125, 129)):
        assert blocks[first - 1 : last] == pytest.approx(
            token_nll(tiny_model, ids[None, : last + 1])[0, first - 1 :], rel=1e-4
        )
    assert np.array_equal(each[:64], blocks[:64]) and not np.allclose(each[64:], blocks[64:], atol=1e-3)


def test_a_sliding_window_is_refused_before_anything_is_computed(tiny_task, architecture):
    """Where it hides a key; a window of as many tokens as are read hides none, and the caches are what they were."""
    mistral = architecture.model_copy(update={"family": "mistral"})
    model = create_model(mistral, vocab_size=512, seed=0).eval()
    tables = []
    for window in (None, 149):
        model.config.sliding_window = window
        tables.append(evaluate(tiny_task(SETTINGS, model=model)).table)
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)
    model.config.sliding_window = 148
    with pytest.raises(
        EvaluationError, match=r"last 148 tokens .*`drop_sliding_window: true` .*`length` of 149 at most"
    ):
        evaluate(tiny_task(SETTINGS, model=model))


def test_errors_name_the_cause(tiny_task, tiny_model):
    """Documents that do not exist, broken weights."""
    with pytest.raises(EvaluationError, match="has 3 documents, 9 are asked for"):
        evaluate(tiny_task(SETTINGS | {"documents": 9}))
    with torch.no_grad():
        tiny_model.model.norm.weight[0] = float("nan")
    with pytest.raises(EvaluationError, match="not finite"):
        token_nll(tiny_model, np.ones((1, 10), np.int64))
