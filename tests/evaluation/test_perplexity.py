"""One pass over a prefix must give what the official loop gives length by length."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.nll import cumulative_and_bucket_means, token_nll
from yarnlab.evaluation.partial_results import PartialResults
from yarnlab.evaluation.perplexity import Perplexity, document_nll, document_rows, perplexity_rows
from yarnlab.evaluation.side_by_side import side_by_side
from yarnlab.evaluation.zero_shot import ZeroShot, grid_lengths
from yarnlab.families.rotary import RotaryEmbedding
from yarnlab.modeling import set_rope
from yarnlab.progress import Progress
from yarnlab.rope import make_rope

LENGTHS = (64, 128, 200, 512)


def official(model, ids: np.ndarray, length: int) -> float:
    """The official loop for one document and one N (eval/perplexity.py with --truncate): BOS and N − 1 tokens, one
    window, targets of all but the first position, mean over tokens."""
    window = torch.from_numpy(ids[:length].astype(np.int64))[None]
    with torch.no_grad():
        return model(input_ids=window, labels=window.clone(), use_cache=False).loss.item()


@pytest.fixture
def corpus(tiny_data):
    return TokenisedCorpus.open(tiny_data / "held")


def nll_of(model, corpus, longest: int, documents: int | None = None) -> np.ndarray:
    progress = Progress("test", 3, log=None)
    task = SimpleNamespace(model=model, corpus=corpus, side_by_side=side_by_side, partial_results=PartialResults())
    return document_nll(task, longest, "fp32", progress, documents)


@pytest.mark.parametrize("method", ["none", "pi", "ntk-aware", "ntk-by-parts", "temperature", "yarn"])
def test_one_pass_equals_the_official_loop(tiny_model, architecture, corpus, method):
    """To 1e-5 in fp32, for every length and document, with every static method."""
    rope = make_rope(method, scale=8, original_context=64, head_dim=architecture.head_dim)
    set_rope(tiny_model, rope)
    nll = nll_of(tiny_model, corpus, 512)
    table = pd.DataFrame(perplexity_rows(nll, corpus.names, LENGTHS, {"model": "tiny"}))
    assert len(table) == 3 * len(LENGTHS) and set(table["protocol"]) == {"truncated-prefix@1"}
    for row in table.itertuples():
        document = corpus.document(corpus.names.index(row.document))
        assert row.nll == pytest.approx(official(tiny_model, document, row.length), rel=1e-5)
        assert row.tokens == row.length - 1


@pytest.mark.parametrize("method", ["dynamic-pi", "dynamic-ntk", "dynamic-yarn"])
def test_dynamic_methods_fail_the_prefix_property(tiny_model, architecture, corpus, method):
    """Their value at a short length is not a prefix of a longer pass: the equivalence above can fail. So studies with
    such a model are refused (tests/study/test_load.py)."""
    rope = make_rope(method, original_context=64, head_dim=architecture.head_dim)
    tiny_model.model.rotary_emb = RotaryEmbedding(rope)
    ids = np.asarray(corpus.document(0)[:512])
    nll = token_nll(tiny_model, ids[None])[0]
    assert abs(nll[:127].mean() - official(tiny_model, ids, 128)) > 1e-3


def test_cumulative_and_bucket_means_by_hand():
    """Positions 1 … 5 with NLL 1, 2, 3, 4, 5: at N = 3 the mean of 1, 2; at N = 6 that of all; the bucket that of 3, 4, 5."""
    first, second = cumulative_and_bucket_means(np.array([1, 2, 3, 4, 5], np.float32), (3, 6))
    assert (first["nll"], first["tokens"], first["bucket_start"], first["bucket_nll"]) == (1.5, 2, 1, 1.5)
    assert (second["nll"], second["tokens"], second["bucket_start"], second["bucket_nll"]) == (3.0, 5, 3, 4.0)


def test_a_model_with_broken_weights_is_an_error(tiny_model, corpus):
    with torch.no_grad():
        tiny_model.model.norm.weight[0] = float("nan")
    with pytest.raises(EvaluationError, match="not finite from token 0 on"):
        token_nll(tiny_model, np.asarray(corpus.document(0)[:100])[None])


def test_documents_shorter_than_asked_are_an_error(tiny_model, corpus):
    with pytest.raises(EvaluationError, match="tokens with BOS, 10000000 are needed"):
        nll_of(tiny_model, corpus, 10_000_000)


def test_one_document_under_another_rope_is_its_row_of_all(tiny_model, architecture, corpus):
    """`zero_shot` and `ramp` compute document by document what `perplexity` gives for all."""
    rope = architecture.head.make_rope("yarn", 2.0)
    task = SimpleNamespace(model=tiny_model, corpus=corpus)
    args = (rope, task, "fp32", (32, 64), {"method": "yarn"})
    set_rope(tiny_model, rope)
    nll = nll_of(tiny_model, corpus, 64, 2)
    together = pd.DataFrame(perplexity_rows(nll, corpus.names[:2], (32, 64), {"method": "yarn"}))
    apart = [row for i in (0, 1) for row in document_rows(*args, i, Progress("test", 1, log=None))]
    pd.testing.assert_frame_equal(pd.DataFrame(apart), together, rtol=1e-6)


def test_a_corpus_of_another_vocabulary_is_an_error(tiny_model, corpus):
    tiny_model.config.vocab_size = 100
    with pytest.raises(EvaluationError, match="tokenised for another model"):
        nll_of(tiny_model, corpus, 64)


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (2, (256, 512)),
        (16, (256, 512, 1024, 2048, 4096)),
        (32, (256, 512, 1024, 2048, 4096, 8192)),
        (64, (256, 512, 1024, 2048, 4096, 8192)),
    ],
)
def test_zero_shot_lengths_reach_the_extended_context(scale, expected):
    assert grid_lengths(256, scale, 8192) == expected


def test_the_first_documents_alone_are_read_where_a_number_is_asked_for(tiny_task):
    """Their rows and their losses are those of the whole corpus."""
    tasks = [
        tiny_task({"lengths": {"start": 64, "stop": 128, "step": 64}, **asked}) for asked in ({}, {"documents": 2})
    ]
    whole, first = (Perplexity(**task.settings).evaluate(task) for task in tasks)
    names = whole.table["document"].unique()[:2]
    expected = whole.table[whole.table["document"].isin(names)].reset_index(drop=True)
    pd.testing.assert_frame_equal(first.table, expected)
    assert len(first.nll) == 2 and np.array_equal(first.nll, whole.nll[:2])


def test_zero_shot_reads_the_first_documents(tiny_task):
    """Their rows are those of all documents; more than there are is an error."""
    settings = {"methods": ["none", "yarn"], "scales": [2], "max_length": 128}
    whole = ZeroShot(**tiny_task(settings).settings).evaluate(task := tiny_task(settings)).table
    first = ZeroShot(**tiny_task(settings | {"documents": 2}).settings).evaluate(task).table
    kept = whole[whole["document"].isin(task.corpus.names[:2])].reset_index(drop=True)
    assert first.equals(kept) and first["document"].nunique() == 2
    with pytest.raises(EvaluationError, match="the corpus has 3 documents, 4 are asked for"):
        ZeroShot(**tiny_task(settings | {"documents": 4}).settings).evaluate(task)
