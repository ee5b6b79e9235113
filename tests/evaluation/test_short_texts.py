"""Texts from all over a document are what perplexity reads when it is given each of them by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from yarnlab.evaluation.documents import EvaluationError, texts_of
from yarnlab.evaluation.short_texts import ShortTexts
from yarnlab.modeling import set_rope, use_fast_attention
from yarnlab.rope import make_rope

SETTINGS = {"lengths": [32, 64], "max_tokens": 400, "documents": 2}


def evaluate(task):
    return ShortTexts(**task.settings).evaluate(task)


def single_texts(model, ids: np.ndarray, length: int, read: int) -> list[np.ndarray]:
    """NLL of the first `read` − 1 targets of each text by the model's own loss: BOS, then the next `length` − 1 tokens."""
    found, start = [], 1
    while start + length - 1 <= len(ids):
        inputs = torch.tensor([[ids[0], *ids[start : start + length - 1]]])
        with torch.no_grad():
            logits = model(input_ids=inputs[:, :read], use_cache=False).logits[0, :-1]
        found.append(torch.nn.functional.cross_entropy(logits, inputs[0, 1:read], reduction="none").numpy())
        start += length - 1
    return found


@pytest.mark.parametrize("method", ["none", "yarn"])
def test_rows_equal_a_loop_over_single_texts(tiny_task, tiny_model, architecture, method, monkeypatch):
    """To 1e-5 in fp32, in one batch and in batches of two texts; the text of 32 tokens is read by itself."""
    rope = make_rope(method, scale=4, original_context=64, head_dim=architecture.head_dim)
    set_rope(tiny_model, rope)
    use_fast_attention(tiny_model)
    task = tiny_task(SETTINGS, rope=rope, model=tiny_model)
    for batch in (8192, 128):
        monkeypatch.setattr("yarnlab.evaluation.nll.TOKENS_PER_BATCH", batch)
        table = evaluate(task).table.set_index(["document", "length"])
        assert len(table) == 4 and set(table["texts"]) == {399 // 63} and set(table["protocol"]) == {"short-texts@1"}
        for i, name in enumerate(task.corpus.names[:2]):
            ids = task.corpus.document(i)[:400].astype(int)
            for length in (32, 64):
                expected = np.concatenate(single_texts(task.model, ids, 64, length)).mean()
                assert table.loc[(name, length), "nll"] == pytest.approx(expected, rel=1e-5)


def test_every_token_is_in_one_text_and_bos_begins_each():
    texts = texts_of(np.array([7, *range(100, 111)]), 4)
    assert texts.tolist() == [[7, 100, 101, 102], [7, 103, 104, 105], [7, 106, 107, 108]]


def test_without_a_number_of_documents_all_are_read(tiny_task):
    table = evaluate(tiny_task({"lengths": [64], "max_tokens": 64})).table
    assert table["document"].tolist() == list(tiny_task({}).corpus.names) and set(table["texts"]) == {1}


def test_a_text_that_does_not_fit_and_a_rope_that_rescales_are_refused(tiny_task, architecture):
    with pytest.raises(ValidationError, match="less than one text of 64 tokens"):
        ShortTexts(**tiny_task(SETTINGS | {"max_tokens": 63}).settings)
    rope = make_rope("dynamic-yarn", original_context=64, head_dim=architecture.head_dim)
    with pytest.raises(EvaluationError, match="one pass can't give several `lengths`"):
        evaluate(tiny_task(SETTINGS, rope=rope))


def test_the_cost_is_the_texts_of_all_documents(tiny_task):
    settings = ShortTexts(**tiny_task(SETTINGS).settings)

    class Study:
        pass

    assert settings.cost(Study(), "tiny").runs == [(2 * 6, 64)]
