"""The same tokens under several contexts: batched windows are single windows, and `all` is what perplexity reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.context import Context
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.nll import TOKENS_PER_BATCH
from yarnlab.evaluation.perplexity import Perplexity, document_nll
from yarnlab.modeling import set_rope, use_fast_attention
from yarnlab.progress import Progress
from yarnlab.rope import make_rope
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError

SETTINGS = {"contexts": [32, 128], "max_length": 512}
WHOLE = SETTINGS["max_length"]


def evaluate(task):
    return Context(**task.settings).evaluate(task)


def single_windows(model, ids: np.ndarray, window: int) -> np.ndarray:
    """NLL of ids[window:], one window at a time and the model's own loss: BOS, then the text, up to the last target;
    each window ends a quarter of its length after the one before and counts for that quarter."""
    values = []
    for end in range(window + window // 4, len(ids) + 1, window // 4):
        inputs = torch.tensor([[ids[0], *ids[end - (window - 1) : end]]])
        assert inputs.shape == (1, window)
        with torch.no_grad():
            logits = model(input_ids=inputs, use_cache=False).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none")
        values += nll[-(window // 4) :].tolist()
    return np.array(values)


@pytest.fixture
def task_of(tiny_task, tiny_model, architecture):
    """Makes a task with the rope in force and the attention as a stage sets them."""

    def make(settings=SETTINGS, *, method="none", model=tiny_model):
        rope = make_rope(method, scale=4, original_context=64, head_dim=architecture.head_dim)
        set_rope(model, rope)
        use_fast_attention(model)
        return tiny_task(settings, rope=rope, model=model)

    return make


def cell(table: pd.DataFrame, document: str, window: int, start: int) -> float:
    (value,) = table.query("document == @document and context == @window and segment_start == @start")["nll"]
    return float(value)


@pytest.mark.parametrize("method", ["none", "pi", "yarn"])
def test_windows_equal_a_loop_over_single_windows(task_of, method):
    """To 1e-5 in fp32: every row of the table is the mean of what the loop gives for its tokens."""
    task = task_of(method=method)
    table = evaluate(task).table
    for i, name in enumerate(task.corpus.names):
        ids = task.corpus.document(i)[:WHOLE].astype(int)
        for window in SETTINGS["contexts"]:
            expected = single_windows(task.model, ids, window)
            assert len(expected) == WHOLE - window
            for start in (32, 64, 128, 256) if window == 32 else (window,):
                mean = expected[start - window : 2 * start - window].mean()
                assert cell(table, name, window, start) == pytest.approx(mean, rel=1e-5)


def test_a_model_may_be_given_some_contexts_alone(task_of):
    """Its rows are those of all contexts without the others', all of the text from the smallest of all on; another
    model has all. What is for other models is in no model's section."""
    whole = evaluate(task_of()).table
    for arm, kept in (("tiny", whole["context"] != 32), ("other", whole["context"] > 0)):
        chosen = SETTINGS | {"models": ["tiny", "other"], "contexts_of": {arm: [128]}}
        task = task_of(chosen)
        pd.testing.assert_frame_equal(evaluate(task).table, whole[kept].reset_index(drop=True))
        own = Context(**task.settings)
        assert own.of_arm(arm).contexts_of == {arm: (128,)} and own.of_arm("third").contexts_of is None


@pytest.mark.parametrize(
    ("chosen", "message"),
    [({"tiny": [64]}, "contexts_of.tiny: 64 is none of `contexts`"), ({"mini": [32]}, "mini is none of `models`")],
)
def test_contexts_of_a_model_are_those_that_there_are(tiny_task, chosen, message):
    with pytest.raises(ValidationError, match=message):
        Context(**tiny_task(SETTINGS | {"contexts_of": chosen}).settings)


def test_all_is_the_nll_that_perplexity_has_of_the_same_tokens(task_of):
    """To 1e-5 in fp32, per token and as means; targets in (a, b] are those between perplexity at a and at b."""
    task = task_of()
    table = evaluate(task).table
    nll = document_nll(task, WHOLE, "fp32", Progress("test", 3, log=None), None)
    settings = {"corpus": "held", "models": ["tiny"], "precision": "fp32", "threads": 1}
    perplexity = Perplexity(**settings, lengths={"start": 32, "stop": WHOLE, "step": 32}).evaluate(task).table
    cumulative = perplexity.set_index(["document", "length"])["nll"]
    for i, name in enumerate(task.corpus.names):
        for start in (32, 64, 128, 256):
            own, end = cell(table, name, WHOLE, start), 2 * start
            assert own == pytest.approx(nll[i, start - 1 : end - 1].mean(dtype=np.float64), rel=1e-5)
            between = cumulative[name, end] * (end - 1) - cumulative[name, start] * (start - 1)
            assert own == pytest.approx(between / start, rel=1e-5)


def test_every_segment_has_its_tokens_under_the_smallest_context_and_the_one_it_doubles(task_of):
    """(32, 64], (64, 128], … (256, 512] with as many tokens as they are long; 128 in (128, 256] alone."""
    table = evaluate(task_of()).table
    assert set(table["protocol"]) == {"same-tokens@1"}
    assert (table["tokens"] == table["segment_end"] - table["segment_start"]).all()
    found = table[table["document"] == table["document"].iloc[0]].groupby("segment_start")["context"].apply(list)
    assert found.to_dict() == {32: [32, WHOLE], 64: [32, WHOLE], 128: [32, 128, WHOLE], 256: [32, WHOLE]}
    assert len(table) == 3 * 9 and not table.duplicated(["document", "segment_start", "context"]).any()


def test_a_model_that_reads_no_further_than_a_window_gains_nothing_from_more(task_of):
    """Two layers that attend to the last 9 tokens each see 17; every window shows 24 and more. The same weights that
    attend to everything do not have these zeros: the test can fail. Other positions alone change nothing."""
    from transformers import MistralConfig, MistralForCausalLM

    changes = {}
    for sliding in (9, None):
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=16, sliding_window=sliding,
        )  # fmt: skip
        model = MistralForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4)
        table = evaluate(task_of(model=model)).table
        cells = table.pivot(index=["document", "segment_start"], columns="context", values="nll")
        changes[sliding] = cells.sub(cells[WHOLE], axis=0).drop(columns=WHOLE).abs()
    assert changes[9].max().max() < 1e-5
    assert changes[None].max().max() > 1e-3


def test_batches_are_bounded_and_change_nothing(task_of, monkeypatch):
    """No input of more tokens than a batch may have, and the numbers are those of one window at a time."""
    task, shapes = task_of({"contexts": [32, 128, 256], "max_length": 1024}), []
    hook = task.model.model.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    monkeypatch.setattr("yarnlab.evaluation.nll.TOKENS_PER_BATCH", 600)
    together = evaluate(task).table
    assert max(rows * (length + 1) for rows, length in shapes if length + 1 < 1024) <= 600
    monkeypatch.setattr("yarnlab.evaluation.nll.TOKENS_PER_BATCH", 1)
    shapes.clear()
    alone = evaluate(task).table
    hook.remove()
    assert {rows for rows, _ in shapes} == {1}
    pd.testing.assert_frame_equal(together, alone, rtol=1e-5)


def test_the_cost_is_that_of_the_passes_that_are_run(task_of, tmp_path):
    """Every forward pass with its length, its targets included, and the largest batch."""
    study = load_study(_study(tmp_path, "models: [base], contexts: [32, 128], max_length: 512, documents: 2"))
    passes = study.evaluations.context.cost(study, "base")
    task, shapes = task_of({**SETTINGS, "documents": 2}), []
    task.model.model.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    evaluate(task)
    counted: dict[int, int] = {}
    for rows, length in shapes:
        counted[length + 1] = counted.get(length + 1, 0) + rows
    assert {length: count for count, length in passes.runs} == counted
    assert passes.at_once == max(rows * (length + 1) for rows, length in shapes) <= TOKENS_PER_BATCH


def test_documents_are_the_first_ones(task_of):
    names = evaluate(task_of({**SETTINGS, "documents": 2})).table["document"].unique().tolist()
    assert names == list(task_of().corpus.names[:2])


def test_the_dashboard_has_the_last_segment_by_context(task_of):
    outcome = evaluate(task_of())
    last = outcome.table[outcome.table["segment_start"] == 256]
    expected = {f"nll_of_last_segment/{c}": own["nll"].mean() for c, own in last.groupby("context")}
    assert outcome.metrics == pytest.approx(expected) and len(expected) == 2


def test_a_dynamic_rope_is_refused(tmp_path):
    """Where the study is read, with the model's line."""
    file = _study(tmp_path, "models: [base, moving], contexts: [32], max_length: 64")
    text = "models:\n  moving: {from: base, rope: {method: dynamic-yarn, scale: 1}}\n"
    file.write_text(file.read_text() + text)
    with pytest.raises(Exception, match=r"context\.models\.1: moving rescales with the input's length"):
        load_study(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contexts": [32, 96]}, "contexts: 96 is no doubling of the smallest context, 32"),
        ({"contexts": [30]}, "multiple of 4"),
        ({"contexts": [32, 32]}, "32 is listed twice"),
        ({"max_length": 500}, "max_length: 500 is no doubling of the smallest context, 32"),
        ({"max_length": 128}, "max_length 128 must exceed the largest context, 128"),
    ],
)
def test_contexts_and_segments_fit_into_each_other(changes, message):
    shared = {"corpus": "held", "models": ["m"], "precision": "fp32", "threads": 1}
    Context(**shared, **SETTINGS)
    with pytest.raises(ValidationError, match=message):
        Context(**shared, **{**SETTINGS, **changes})


def test_a_short_document_and_broken_weights_are_errors(task_of):
    task = task_of({"contexts": [32], "max_length": 32 << 16})
    with pytest.raises(EvaluationError, match="2097152 are needed"):
        evaluate(task)
    task = task_of()
    with torch.no_grad():
        task.model.model.norm.weight[0] = float("nan")
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(task)


def test_without_the_whole_text_the_windows_are_the_same(task_of):
    """No pass over all that precedes, and no row of it; its FLOPs are not planned either."""
    task = task_of({**SETTINGS, "windows_only": True})
    lengths = []
    task.model.model.embed_tokens.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1] + 1))
    windows = evaluate(task).table
    assert max(lengths) == 128
    whole = evaluate(task_of()).table
    pd.testing.assert_frame_equal(windows, whole[whole["context"] < WHOLE].reset_index(drop=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "sound"),
    [
        ({}, True),
        ({"max_length: 1024": "max_length: 512"}, False),
        ({"methods: [none, yarn]": "methods: [yarn]"}, False),
        ({"precision: fp32, threads: 1, scales": "precision: bf16, threads: 1, scales"}, False),
    ],
)
def test_windows_only_needs_another_evaluations_pass_over_the_same_text(tmp_path, change, sound):
    """Here zero_shot's with plain RoPE; else the study says what is missing, before anything runs."""
    swept = "{corpus: held-out, models: [base], precision: fp32, threads: 1, scales: [8], methods: [none, yarn], "
    swept += "max_length: 1024}"
    for old, new in change.items():
        assert old in swept
        swept = swept.replace(old, new)
    own = "models: [base], contexts: [128, 256], max_length: 1024, windows_only: true"
    file = _study(tmp_path, own, f"  zero_shot: {swept}\n  perplexity: null\n")
    if sound:
        passes = load_study(file).evaluations.context.cost(load_study(file), "base")
        assert {length for _, length in passes.runs} == {128, 256}
    else:
        with pytest.raises(
            StudyError, match=r"windows_only: no `perplexity`.* of base has the lengths 128, 256, 512, 1024"
        ):
            load_study(file)


def test_each_window_begins_with_the_documents_first_token(task_of):
    """Whatever that is: documents begin with BOS, and so do windows."""
    task, firsts = task_of(), set()
    tokens = task.corpus.tokens.copy()
    tokens[list(task.corpus.starts)] = 2
    corpus = TokenisedCorpus(tokens, task.corpus.names, task.corpus.starts, task.corpus.lengths)
    task.model.model.embed_tokens.register_forward_pre_hook(lambda _, args: firsts.update(args[0][:, 0].tolist()))
    evaluate(dataclasses.replace(task, corpus=corpus))
    assert firsts == {2}


def _study(folder, settings: str, others: str = ""):
    """The smoke study with another `context` section, and others."""
    from yarnlab.provenance import project_root

    file = folder / "own.yaml"
    shared = "corpus: held-out, precision: fp32, threads: 1, contexts_of: null"
    file.write_text(
        f"extends: {project_root() / 'config' / 'studies' / 'smoke.yaml'}\nstudy: own\n"
        f"evaluations:\n  context: {{{shared}, {settings}}}\n{others}"
    )
    return file
