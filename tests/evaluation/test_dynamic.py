"""A dynamic rope at length N must be the static one of scale N/L, and plain RoPE up to L."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.dynamic import Dynamic, prefixes
from yarnlab.modeling import set_rope
from yarnlab.rope import make_rope


def evaluate(task):
    return Dynamic(**task.settings).evaluate(task)


WINDOW = 64
STATIC = {"dynamic-pi": "pi", "dynamic-ntk": "ntk-aware", "dynamic-yarn": "yarn"}
LENGTHS = [40, 64, 65, 200, 512]


@pytest.fixture
def table(tiny_task):
    return evaluate(tiny_task({"methods": ["none", *STATIC], "lengths": LENGTHS, "tail": 16})).table


def loss(model, ids: np.ndarray, tail: int | None = None) -> float:
    """Mean NLL over the targets of `ids`, or the last `tail` of them."""
    inputs = torch.from_numpy(ids.astype(np.int64))[None]
    with torch.no_grad():
        logits = model(input_ids=inputs, use_cache=False).logits[0, :-1]
    nll = torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none")
    return nll[-(tail or len(nll)) :].mean().item()


def stock(model, method: str, scale: float):
    """transformers' own Llama with the same weights and its own static scaling of this method."""
    from transformers import LlamaForCausalLM

    config = type(model.config).from_dict(model.config.to_dict())
    config.rope_parameters = {
        "pi": {"rope_type": "linear", "rope_theta": 10000.0, "factor": scale},
        "ntk-aware": {"rope_type": "default", "rope_theta": 10000.0 * scale ** (16 / 14)},
        "yarn": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": scale,
            "original_max_position_embeddings": WINDOW,
        },
    }[method]
    other = LlamaForCausalLM(config).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_up_to_the_original_context_every_method_is_plain_rope(table):
    """The same bits in every column, at scale 1; beyond it every method differs from plain RoPE."""
    values = table.set_index(["method", "document", "length"])[["scale_in_force", "nll", "tail_nll"]]
    for method in STATIC:
        for length in LENGTHS:
            same = (values.loc[method].xs(length, level="length") == values.loc["none"].xs(length, level="length")).all(
                axis=1
            )
            assert same.all() if length <= WINDOW else not same.any()


@pytest.mark.parametrize("method", STATIC)
def test_at_length_n_it_is_the_static_method_of_scale_n_over_l(tiny_task, tiny_model, architecture, table, method):
    """Against our static rope and transformers' own scaling with the same weights, to 1e-5, whole and tail."""
    corpus = tiny_task({}).corpus
    for length in (200, 512):
        rows = table[(table["method"] == method) & (table["length"] == length)].set_index("document")
        set_rope(tiny_model, make_rope(STATIC[method], scale=length / 64, original_context=64, head_dim=16))
        theirs = stock(tiny_model, STATIC[method], length / 64)
        for i, name in enumerate(corpus.names):
            ids = np.asarray(corpus.document(i)[:length])
            for model in (tiny_model, theirs):
                assert rows.loc[name, "nll"] == pytest.approx(loss(model, ids), rel=1e-5)
                assert rows.loc[name, "tail_nll"] == pytest.approx(loss(model, ids, 16), rel=1e-5)


def test_rows_say_what_was_scored(tiny_task, table):
    """One row for each method, document and length; N − 1 tokens; the scale in force max(1, N/L), 1 for plain RoPE."""
    assert len(table) == 4 * 3 * len(LENGTHS)
    assert list(table)[:4] == ["model", "arm", "seed", "corpus"]
    assert (table["tokens"] == table["length"] - 1).all() and set(table["protocol"]) == {"dynamic@2"}
    for row in table.itertuples():
        assert row.scale_in_force == (1.0 if row.method == "none" else max(1.0, row.length / WINDOW))


def test_the_first_documents_alone(tiny_task, table):
    """Their rows are those of all; more than there are is an error."""
    settings = {"methods": ["none", *STATIC], "lengths": LENGTHS, "tail": 16}
    first = evaluate(tiny_task(settings | {"documents": 2})).table
    kept = table[table["document"].isin(tiny_task({}).corpus.names[:2])].reset_index(drop=True)
    assert first.equals(kept) and first["document"].nunique() == 2
    with pytest.raises(EvaluationError, match="the corpus has 3 documents, 4 are asked for"):
        evaluate(tiny_task(settings | {"documents": 4}))


def test_text_that_does_not_fit_is_an_error(tiny_task):
    """Too short documents, too few of them, and ids of another tokenizer are named."""
    corpus = tiny_task({}).corpus
    with pytest.raises(EvaluationError, match="10000000 are needed"):
        evaluate(tiny_task({"methods": ["none"], "lengths": [10_000_000], "tail": 1}))
    with pytest.raises(EvaluationError, match="has 3 documents, 4 are asked for"):
        prefixes(corpus, 100, 4, 512)
    with pytest.raises(EvaluationError, match="tokenised for another model"):
        prefixes(corpus, 100, 3, 20)


def test_truncation_is_plain_rope_on_bos_and_the_last_tokens(tiny_task, tiny_model, table):
    """What the base gives for the tail with the last L tokens alone, the same for every method."""
    corpus = tiny_task({}).corpus
    set_rope(tiny_model, make_rope("none", scale=1.0, original_context=64, head_dim=16))
    for length in LENGTHS:
        for i, name in enumerate(corpus.names):
            ids = np.asarray(corpus.document(i)[:length])
            cut = ids if length <= WINDOW else np.concatenate([ids[:1], ids[length - WINDOW + 1 :]])
            rows = table[(table["document"] == name) & (table["length"] == length)]
            assert rows["truncated_nll"].to_numpy() == pytest.approx(loss(tiny_model, cut, 16), rel=1e-5)
