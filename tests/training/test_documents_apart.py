"""Attention that keeps to the documents of a row: each is computed as if it stood alone, or the training is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import phase

from yarnlab.attention import AttentionError, choose
from yarnlab.families.parity import check_documents_apart
from yarnlab.families.parts import UnsupportedModel
from yarnlab.study.check import find_problems
from yarnlab.study.load import load_study
from yarnlab.study.schema import RopeChoice
from yarnlab.study.training import Repeats, Rows
from yarnlab.training.objective import Objective
from yarnlab.training.rows import RowSource

APART = {"attention_within": "document"}


def corpus(bos: int, eos: int, count: int = 40, length: int = 30) -> SimpleNamespace:
    """Documents of ids from 10 on, between BOS and EOS, all of the same length."""
    one = np.concatenate([[bos], 10 + np.arange(length - 2), [eos]])
    tokens = np.tile(one, count).astype(np.uint16)
    return SimpleNamespace(
        tokens=tokens,
        names=tuple(map(str, range(count // 4))),
        bos=bos,
        eos=eos,
        document=lambda i: tokens[4 * i * length : 4 * (i + 1) * length],
    )


@pytest.mark.parametrize(("bos", "eos"), [(1, 2), (2, 2)])
@pytest.mark.parametrize("text", ["spans", "blocks"])
def test_positions_begin_anew_with_each_document(bos, eos, text):
    """Where the row begins and with each BOS, also for a tokenizer whose only special token is EOS: of two in a row
    the second begins the next document. The ids are those that are attended to whole."""
    given = phase(rows=Rows(text=text, **APART), seq_len=100)
    batch = RowSource(corpus(bos, eos), None, given, (0,)).batch(0)
    whole = RowSource(corpus(bos, eos), None, phase(rows=Rows(text=text), seq_len=100), (0,)).batch(0)
    assert whole.positions is None and (whole.ids == batch.ids).all()
    assert batch.positions.shape == (4, 100) and (batch.positions[:, 0] == 0).all()
    for ids, positions in zip(batch.ids[:, :-1], batch.positions, strict=True):
        assert ((np.diff(positions) == 1) | (positions[1:] == 0)).all()
        begins = np.flatnonzero(positions == 0)[1:]
        assert 3 <= len(begins) <= 4 and (ids[begins] == bos).all()
        assert (ids[begins[begins > 1] - 1] == eos).all()  # a row's first id is BOS, whatever stood there
        inside = ids >= 10  # what an id of text says of its place, where its document began in this row
        known = np.arange(100) >= begins[0]
        assert (positions[inside & known] == ids[inside & known] - 9).all()


def test_rows_that_repeat_a_segment_are_one_document():
    """Else nothing could be copied from before a border within the segment."""
    repeats = Repeats(share=1.0, min_segment=60, max_segment=60, random=0.0)
    batch = RowSource(corpus(1, 2), None, phase(rows=Rows(repeats=repeats, **APART), seq_len=200), (0,)).batch(0)
    assert (batch.ids == 1).any() and (batch.positions == np.arange(200)).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_document_is_computed_as_if_it_stood_alone(tiny_model, attention):
    """Its losses, and the gradient of the row: that of its documents together."""
    tiny_model.set_attn_implementation(attention)
    objective = Objective(tiny_model, "fp32", "torch")
    ids = torch.randint(1, 512, (2, 81), generator=torch.Generator().manual_seed(0))
    places = torch.stack([torch.cat([torch.arange(n), torch.arange(80 - n)]) for n in (30, 50)])
    total, nll = objective(ids[:, :-1], ids[:, 1:], torch.ones(2, 80), places)
    total.backward()
    found = {name: p.grad.clone() for name, p in tiny_model.named_parameters()}
    tiny_model.zero_grad()
    alone = []
    for row, border in zip(ids, (30, 50), strict=True):
        for part in (slice(0, border), slice(border, 80)):
            one, losses = objective(row[:-1][None, part], row[1:][None, part], torch.ones(1, part.stop - part.start))
            one.backward()
            alone.append(losses.flatten())
    torch.testing.assert_close(nll.flatten(), torch.cat(alone), atol=1e-5, rtol=1e-5)
    for name, parameter in tiny_model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-4, rtol=1e-4)
    whole = objective(ids[:, :-1], ids[:, 1:], torch.ones(2, 80))[1].view(2, 80)
    assert float((whole - nll.view(2, 80))[0, 31:].detach().abs().max()) > 1e-2  # so the borders do something


def test_a_kernel_without_masks_is_refused(tiny_model):
    assert choose(tiny_model, within_documents=True, environment={}) == "sdpa"
    assert choose(tiny_model, within_documents=True, environment={"YARNLAB_ATTENTION": "eager"}) == "eager"
    for name in ("yarnlab_blockwise", "flash_attention_2"):
        with pytest.raises(AttentionError, match=f"attention {name} can't keep to the documents of a row"):
            choose(tiny_model, within_documents=True, environment={"YARNLAB_ATTENTION": name})


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "falcon_h1"])
def test_a_family_is_tried_before_it_is_trained(family):
    """Windows count within a document; a state that runs through the row is no attention, and is refused."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[family]()
    if family != "falcon_h1":
        check_documents_apart(config)
        return
    with pytest.raises(UnsupportedModel, match=r"family falcon_h1 can't keep attention within the documents of a row"):
        check_documents_apart(config)


@pytest.mark.parametrize(
    ("context", "rope", "message"),
    [
        (2, {"method": "yarn"}, "processes that share a sequence attend to all of it"),
        (
            1,
            {"method": "longrope", "short_factor": [1.0] * 32, "long_factor": [4.0] * 32},
            "longrope takes its factors",
        ),
        (1, {"method": "yarn"}, None),
    ],
)
def test_what_cannot_keep_documents_apart_is_named_before_anything_runs(context, rope, message):
    study, arm = load_study(Path(__file__).parents[2] / "config" / "studies" / "smoke.yaml"), "yarn-s16"
    train = study.models[arm].train
    parallel = train.parallel.model_copy(update={"processes": 2, "context": context})
    rows = train.rows.model_copy(update=APART)
    changes = {
        "train": train.model_copy(update={"rows": rows, "parallel": parallel}),
        "rope": RopeChoice.model_validate({**rope, "scale": 4.0}),
    }
    models = study.models | {arm: study.models[arm].model_copy(update=changes)}
    found = dict(find_problems(study.model_copy(update={"models": models})))
    problem = found.get(("models", arm, "train", "rows", "attention_within"))
    assert problem is None if message is None else problem.startswith(message)
