"""The entropy of known attention, of transformers' own weights, and what must hold of a temperature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from yarnlab.evaluation import entropy
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.entropy import Entropy, attention_entropy, head_means, recording_attention
from yarnlab.modeling import set_rope, use_fast_attention
from yarnlab.rope import make_rope


def evaluate(task):
    return Entropy(**task.settings).evaluate(task)


IDS = np.random.default_rng(0).integers(3, 512, 200)
SETTINGS = {"methods": ["ntk-by-parts", "yarn"], "scales": [2, 8], "length": 64}


def test_several_texts_of_a_document_are_their_mean(tiny_task):
    """Three texts of 64 tokens, each BOS and the 63 that follow the text before it; of the first two documents."""
    task = tiny_task(SETTINGS | {"texts": 3, "documents": 2})
    table = evaluate(task).table
    assert list(table["document"].unique()) == list(task.corpus.names[:2]) and len(table) == 5 * 2 * 2 * 2
    ids = task.corpus.document(1)[:-1].astype(int)
    set_rope(task.model, task.make_rope("yarn", 8))
    each = [attention_entropy(task.model, np.array([ids[0], *ids[1 + k : 64 + k]])) for k in (0, 63, 126)]
    rows = table[(table["document"] == task.corpus.names[1]) & (table["method"] == "yarn") & (table["scale"] == 8)]
    assert list(rows["entropy"]) == pytest.approx(np.mean(each, axis=(0, 3)).ravel().tolist(), rel=1e-6)


def test_uniform_attention(tiny_model):
    """Queries of zero see i + 1 keys alike: entropy ln(i + 1) everywhere, normalised 1."""
    for layer in tiny_model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
    found = attention_entropy(tiny_model, IDS)
    assert found.shape == (2, 2, 200)
    assert found == pytest.approx(np.broadcast_to(np.log(np.arange(1, 201)), found.shape), abs=1e-5)
    for row in head_means(found):
        assert row["normalised_entropy"] == pytest.approx(1, abs=1e-5)
        assert row["entropy"] == pytest.approx(math.lgamma(201) / 200, abs=1e-5)  # the mean of ln 1 … ln 200


def test_one_huge_logit():
    """Each query's logits lead by 50 at its last key: no entropy, and the output is that key's value."""
    key = torch.arange(40.0)[None, None, :, None] * torch.tensor([1.0, 0, 0, 0])
    query = torch.ones(1, 2, 40, 4) * 50
    value = torch.randn(1, 1, 40, 4)
    record: list[torch.Tensor] = []
    out, _ = recording_attention(None, query, key, value, None, record=record, scaling=1.0)
    assert record[0].shape == (2, 40) and record[0].max() < 1e-6
    assert torch.allclose(out, value.transpose(1, 2).expand(1, 40, 2, 4))


def test_a_choice_of_two_by_hand():
    """Logits 0 and ln 3 are weights ¼ and ¾: entropy ln 4 − ¾ ln 3."""
    key = torch.tensor([0.0, math.log(3)])[None, None, :, None]
    record: list[torch.Tensor] = []
    recording_attention(None, torch.ones(1, 1, 2, 1), key, key, None, record=record, scaling=1.0)
    assert record[0][0].tolist() == pytest.approx([0.0, math.log(4) - 0.75 * math.log(3)], abs=1e-6)


@pytest.mark.parametrize("scores", [2**22, 2 * 200 * 7])
def test_weights_are_those_of_transformers(tiny_model, monkeypatch, scores):
    """In one block or in blocks of seven queries: the entropy of what the eager implementation returns, to 1e-4, in
    both layers and with shared key heads."""
    monkeypatch.setattr(entropy, "CACHED", scores)
    set_rope(tiny_model, make_rope("yarn", scale=4, original_context=64, head_dim=16))
    found = attention_entropy(tiny_model, IDS)
    tiny_model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = tiny_model(input_ids=torch.from_numpy(IDS)[None], output_attentions=True).attentions
    expected = torch.stack([torch.special.entr(w[0]).sum(-1) for w in weights]).numpy()
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize("scale", [2, 8, 32])
def test_a_temperature_lowers_the_entropy_of_every_query(tiny_model, scale):
    """Same frequencies, factor above 1: in the first layer, whose input is the same, no query's entropy rises and
    the mean falls."""
    ropes = [make_rope(m, scale=scale, original_context=64, head_dim=16) for m in ("ntk-by-parts", "yarn")]
    found = []
    for rope in ropes:
        set_rope(tiny_model, rope)
        found.append(attention_entropy(tiny_model, IDS)[0])
    assert (found[1] <= found[0] + 1e-5).all()
    assert found[1].mean() < found[0].mean() - 1e-3


def test_autocast_does_not_touch_the_scores():
    """The same inputs give the same entropy under bf16 autocast, bit for bit."""
    q, k, v = torch.randn(3, 1, 2, 50, 16, generator=torch.Generator().manual_seed(0))
    plain: list[torch.Tensor] = []
    cast: list[torch.Tensor] = []
    recording_attention(None, q, k, v, None, record=plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        recording_attention(None, q, k, v, None, record=cast)
    assert torch.equal(plain[0], cast[0])


def test_the_models_own_attention_is_put_back(tiny_model):
    """After a pass, and after one that failed."""
    usual = use_fast_attention(tiny_model)
    attention_entropy(tiny_model, IDS)
    assert tiny_model.config._attn_implementation == usual
    with pytest.raises(IndexError):
        attention_entropy(tiny_model, np.array([1, 100_000]))
    assert tiny_model.config._attn_implementation == usual


@pytest.mark.parametrize(
    ("queries", "keys", "more"),
    [
        ((2, 2, 8, 4), (2, 2, 8, 4), {}),
        ((1, 2, 1, 4), (1, 2, 8, 4), {}),
        ((1, 2, 8, 4),) * 2 + ({"sliding_window": 4},),
    ],
)
def test_what_it_cannot_see_whole_is_refused(queries, keys, more):
    """A batch, a cache, a window shorter than the sequence."""
    q, k = torch.zeros(queries), torch.zeros(keys)
    with pytest.raises(EvaluationError, match="one whole, unpadded sequence"):
        recording_attention(None, q, k, k, None, record=[], **more)


def test_the_evaluation(tiny_task, tiny_model):
    """Plain RoPE comes first and once, then every method and scale, for each document, layer and head."""
    task = tiny_task({**SETTINGS, "methods": ["none", "ntk-by-parts", "yarn"]})
    outcome = evaluate(task)
    table = outcome.table
    assert len(table) == (1 + 2 * 2) * 3 * 2 * 2 and set(table["protocol"]) == {"attention-entropy@2"}
    assert list(table)[:4] == ["model", "arm", "seed", "corpus"]
    assert (table["method"][0], table["scale"][0]) == ("none", 1.0) and (table["method"] == "none").sum() == 12
    set_rope(tiny_model, make_rope("yarn", scale=8, original_context=64, head_dim=16))
    expected = attention_entropy(tiny_model, task.corpus.document(1)[:64])
    rows = table.query("method == 'yarn' and scale == 8").set_index(["document", "layer", "head"])
    at = rows.loc[(task.corpus.names[1], 1, 0)]
    assert at["entropy"] == pytest.approx(expected[1, 0].mean(), abs=1e-6) and at["length"] == 64
    assert outcome.metrics["entropy/yarn/8"] == pytest.approx(rows["entropy"].mean())


def test_broken_weights_are_an_error(tiny_task, tiny_model):
    with torch.no_grad():
        tiny_model.model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
    with pytest.raises(EvaluationError, match="attention of none at scale 1 is not finite"):
        evaluate(tiny_task(SETTINGS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 6_400_000, "scales": [100_000]}, "6400000 are needed"),
    ],
)
def test_lengths_that_cannot_be_are_errors(tiny_task, settings, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(tiny_task({**SETTINGS, **settings}))


def test_a_corpus_of_another_vocabulary_is_an_error(tiny_task, tiny_model):
    tiny_model.config.vocab_size = 100
    with pytest.raises(EvaluationError, match="tokenised for another model"):
        evaluate(tiny_task(SETTINGS))
