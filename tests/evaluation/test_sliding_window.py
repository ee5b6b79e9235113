"""Batched windows with logits only where scored must give what the official loop gives window by window."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation import sliding_window
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.nll import LOGIT_CHUNK
from yarnlab.evaluation.sliding_window import TOKENS_PER_BATCH, SlidingWindow, document_means, pooled_nll
from yarnlab.modeling import set_rope, use_fast_attention
from yarnlab.rope import METHODS, Dynamic, make_rope


def evaluate(task):
    return SlidingWindow(**task.settings).evaluate(task)


BOS, EOS = 0, 1
STATIC = [name for name, rope in METHODS.items() if not rope.dynamic]
DYNAMIC = [name for name, rope in METHODS.items() if issubclass(rope, Dynamic)]


def official(model, ids: np.ndarray, window: int, stride: int, *, last_token: bool = True) -> list[tuple[float, int]]:
    """(mean NLL, tokens scored) of each window of one document, by the official loop: one window at a time, targets
    before the scored ones masked, the model's own loss. `ids` has no BOS.

    last_token=False leaves out each window's last input token, whose output nobody reads.
    """
    values, scored_to, begin = [], 0, 0
    while scored_to < len(ids):
        end = min(begin + window - 1, len(ids))
        inputs = torch.tensor([[BOS, *ids[begin:end].tolist()]])
        fresh = end - scored_to
        with torch.no_grad():
            if last_token:
                labels = inputs.clone()
                labels[:, :-fresh] = -100
                loss = model(input_ids=inputs, labels=labels, use_cache=False).loss
            else:
                logits = model(input_ids=inputs[:, :-1], use_cache=False).logits[0, -fresh:]
                loss = torch.nn.functional.cross_entropy(logits, inputs[0, -fresh:])
        values.append((loss.item(), fresh))
        scored_to, begin = end, begin + stride
    return values


def corpus_of(*lengths: int) -> TokenisedCorpus:
    """Documents of random ids between BOS and EOS, of so many tokens without those two."""
    random = np.random.default_rng(0)
    documents = [np.array([BOS, *random.integers(4, 512, n), EOS], np.uint16) for n in lengths]
    names = tuple(f"document-{i}" for i in range(len(lengths)))
    sizes = [len(d) for d in documents]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return TokenisedCorpus(np.concatenate(documents), names, tuple(starts), tuple(sizes))


@pytest.fixture
def task_of(tiny_task, tiny_model, architecture):
    """Makes a task over documents of given lengths, the rope in force and the attention as a stage sets them."""

    def make(lengths, window, stride, *, method="none", **settings):
        rope = make_rope(method, scale=4, original_context=64, head_dim=architecture.head_dim)
        set_rope(tiny_model, rope)
        use_fast_attention(tiny_model)
        task = tiny_task({"window": window, "stride": stride, **settings}, rope=rope)
        return dataclasses.replace(task, corpus=corpus_of(*lengths))

    return make


def expect_official(task, table: pd.DataFrame, **options) -> list[float]:
    """The relative difference of every window's NLL from the official loop's, with torch's own attention; the number
    of windows and of scored tokens must be equal."""
    task.model.set_attn_implementation("sdpa")
    window, stride = task.settings["window"], task.settings["stride"]
    differences = []
    for i, name in enumerate(task.corpus.names):
        rows = table[table["document"] == name]
        expected = official(task.model, task.corpus.document(i)[1:-1], window, stride, **options)
        assert rows["tokens"].tolist() == [fresh for _, fresh in expected]
        differences += [abs(own / nll - 1) for own, (nll, _) in zip(rows["nll"], expected, strict=True)]
    return differences


@pytest.mark.parametrize("method", STATIC)
@pytest.mark.parametrize(("window", "stride"), [(96, 32), (70, 9), (33, 32), (40, 1)])
def test_windows_equal_the_official_loop(task_of, method, window, stride):
    """To 1e-5 in fp32, for every static method and window, in documents of one token, of less than a window, of
    window − 1, window and window + 1 tokens, and of several windows that end evenly and unevenly."""
    full = window - 1  # document tokens beside BOS
    lengths = (1, full // 2, full, window, window + 1, full + 3 * stride, full + 3 * stride + stride // 2 + 1)
    task = task_of(lengths, window, stride, method=method)
    table = evaluate(task).table
    assert max(expect_official(task, table)) < 1e-5
    assert list(table)[:6] == [*task.columns, "corpus"]
    assert set(table["protocol"]) == {"sliding-window@1"}


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_dynamic_rope_is_that_of_the_windows_length(task_of, method):
    """Beyond the original context a window's last token, which no target needs, still counts for its length: with it
    the official loop is matched, without it the same loop gives other numbers."""
    task = task_of((50, 99, 150, 177), 100, 25, method=method)
    table = evaluate(task).table
    assert max(expect_official(task, table)) < 1e-5
    assert max(expect_official(task, table, last_token=False)) > 1e-4


@pytest.mark.parametrize(("window", "stride"), [(64, 16), (50, 7), (9, 8)])
def test_every_token_is_scored_once(task_of, window, stride):
    """The windows of a document follow each other without gap or overlap from its first token to its last; none but
    the first scores more than `stride`."""
    lengths = (5, window - 1, 200, 333)
    table = evaluate(task_of(lengths, window, stride)).table
    for name, length in zip(table["document"].unique(), lengths, strict=True):
        rows = table[table["document"] == name]
        assert rows["window_index"].tolist() == list(range(len(rows)))
        assert rows["start"].tolist() == [0, *rows["tokens"].cumsum().tolist()[:-1]]
        assert rows["tokens"].sum() == length
        assert rows["tokens"].iloc[0] == min(window - 1, length) and (rows["tokens"].iloc[1:] <= stride).all()


def test_documents_are_cut_to_max_tokens(task_of):
    """`max_tokens` document tokens are read, BOS not counted; the first windows are those of the whole document, and
    without `max_tokens` the documents are read whole."""
    whole = evaluate(task_of((40, 300), 64, 16)).table
    cut = evaluate(task_of((40, 300), 64, 16, max_tokens=63 + 2 * 16)).table
    assert cut.groupby("document")["tokens"].sum().tolist() == [40, 95]
    assert whole.groupby("document")["tokens"].sum().tolist() == [40, 300]
    pd.testing.assert_frame_equal(cut, whole.iloc[: len(cut)], rtol=1e-5)


def test_batches_are_bounded_and_change_nothing(task_of, monkeypatch):
    """No input of more tokens than a batch may have, fewer forward passes than windows, and the numbers are those of
    one window at a time."""
    task = task_of((700, 700, 900), 128, 16)
    shapes = []
    hook = task.model.model.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    together = evaluate(task).table
    assert max(rows * length for rows, length in shapes) <= TOKENS_PER_BATCH
    assert len(shapes) < len(together) / 5 and sum(rows for rows, _ in shapes) == len(together)
    shapes.clear()
    monkeypatch.setattr(sliding_window, "TOKENS_PER_BATCH", 1)
    alone = evaluate(task).table
    hook.remove()
    assert [rows for rows, _ in shapes] == [1] * len(alone)
    pd.testing.assert_frame_equal(together, alone, rtol=1e-5)


def test_logits_exist_in_chunks_and_only_where_scored(task_of):
    """A window of several chunks never has all its logits at once, and no position that isn't scored has any."""
    task = task_of((2 * LOGIT_CHUNK + 600, 50), 2 * LOGIT_CHUNK + 500, 200)
    positions = []
    task.model.lm_head.register_forward_hook(
        lambda module, inputs, logits: positions.append(logits.numel() // logits.shape[-1])
    )
    table = evaluate(task).table
    assert max(positions) == LOGIT_CHUNK
    assert sum(positions) == table["tokens"].sum() == 2 * LOGIT_CHUNK + 650


def test_precision_is_the_settings(task_of):
    """bf16 gives numbers of its own that lie near those of fp32."""
    precise = evaluate(task_of((150,), 64, 16, precision="fp32")).table["nll"]
    rounded = evaluate(task_of((150,), 64, 16, precision="bf16")).table["nll"]
    assert 0 < (rounded / precise - 1).abs().max() < 0.02


def test_pooled_and_document_means_by_hand():
    """Pooled: each window once, over all documents. By document: each token once. Models and corpora stay apart."""
    table = pd.DataFrame(
        {
            "model": ["a", "a", "a", "b"],
            "corpus": ["held"] * 4,
            "document": ["x", "x", "y", "x"],
            "tokens": [9, 1, 4, 5],
            "nll": [1.0, 3.0, 5.0, 7.0],
        }
    )
    assert pooled_nll(table).to_dict() == {("a", "held"): 3.0, ("b", "held"): 7.0}
    by_document = document_means(table).to_dict()
    assert by_document == {("a", "held", "x"): 1.2, ("a", "held", "y"): 5.0, ("b", "held", "x"): 7.0}


def test_the_means_of_an_evaluation_are_the_official_ones(task_of):
    """The pooled value is the mean of the official loop's window losses over all documents; a document's mean is that
    of all its tokens; the dashboard shows both."""
    task = task_of((30, 200, 260), 64, 16)
    outcome = evaluate(task)
    task.model.set_attn_implementation("sdpa")
    windows = [official(task.model, task.corpus.document(i)[1:-1], 64, 16) for i in range(3)]
    pooled = np.mean([nll for document in windows for nll, _ in document])
    documents = [sum(nll * n for nll, n in document) / sum(n for _, n in document) for document in windows]
    assert pooled_nll(outcome.table).tolist() == pytest.approx([pooled], rel=1e-5)
    assert document_means(outcome.table).tolist() == pytest.approx(documents, rel=1e-5)
    expected = {"nll/windows": pooled, "nll/documents": np.mean(documents)}
    assert outcome.metrics == pytest.approx(expected, rel=1e-5)


def test_an_empty_document_is_an_error(task_of):
    with pytest.raises(EvaluationError, match="document-1 has no tokens to score"):
        evaluate(task_of((50, 0, 50), 64, 16))


def test_a_corpus_without_documents_is_an_error(task_of):
    task = task_of((50,), 64, 16)
    empty = TokenisedCorpus(np.array([], np.uint16), (), (), ())
    with pytest.raises(EvaluationError, match="the corpus has no documents"):
        evaluate(dataclasses.replace(task, corpus=empty))


def test_a_corpus_of_another_vocabulary_is_an_error(task_of):
    task = task_of((50,), 64, 16)
    task.model.config.vocab_size = 100
    with pytest.raises(EvaluationError, match="tokenised for another model"):
        evaluate(task)


def test_a_loss_that_is_not_finite_names_document_and_window(task_of):
    """One token's embedding is broken; it occurs in one document's second window alone."""
    task = task_of((100, 110, 100), 64, 32)
    tokens = task.corpus.tokens.copy()
    tokens[tokens == 500] = 499
    broken = task.corpus.starts[1] + 1 + 80
    tokens[broken] = 500
    embedding = task.model.model.embed_tokens.weight
    task.model.lm_head.weight = torch.nn.Parameter(embedding.detach().clone())
    with torch.no_grad():
        embedding[500] = float("nan")
    with pytest.raises(EvaluationError, match=r"document-1: .* not finite in the window that begins at token 32:"):
        evaluate(dataclasses.replace(task, corpus=dataclasses.replace(task.corpus, tokens=tokens)))
