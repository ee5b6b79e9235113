"""Variants of the ramp must differ in the frequencies alone and be measured as all other perplexities are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.ramp import Ramp, lengths_within
from yarnlab.evaluation.zero_shot import ZeroShot


def evaluate(task):
    return Ramp(**task.settings).evaluate(task)


SETTINGS = {
    "method": "yarn",
    "variants": {"official": {}, "paper": {"ramp": "rotations"}, "exact": {"truncate": False}, "wide": {"alpha": 0.25}},
    "scales": [2, 8],
    "documents": 2,
    "max_length": 512,
}


@pytest.mark.parametrize(
    ("scale", "max_length", "expected"),
    [
        (1, 8192, (256,)),
        (8, 8192, (256, 512, 1024, 2048)),
        (3, 8192, (256, 512, 768)),
        (32, 4096, (256, 512, 1024, 2048, 4096)),
        (32, 3000, (256, 512, 1024, 2048, 3000)),
    ],
)
def test_lengths_double_to_the_end_of_the_extended_context(scale, max_length, expected):
    assert lengths_within(256, scale, max_length) == expected


def test_the_variant_without_options_is_the_method_itself(tiny_task):
    """Its numbers are those of the zero-shot evaluation of YaRN at the same scale, document and length."""
    ramp = evaluate(tiny_task(SETTINGS)).table
    task = tiny_task({"methods": ["yarn"], "scales": [2, 8], "max_length": 512})
    plain = ZeroShot(**task.settings).evaluate(task).table
    merged = ramp[ramp["variant"] == "official"].merge(plain, on=["scale", "document", "length"])
    assert len(merged) == 2 * (2 + 4)
    assert merged["nll_x"].to_numpy() == pytest.approx(merged["nll_y"].to_numpy(), rel=1e-6)
    assert merged["bucket_nll_x"].to_numpy() == pytest.approx(merged["bucket_nll_y"].to_numpy(), rel=1e-5)


def test_the_variant_without_options_has_the_familys_borders(tiny_task):
    """So has every rope that an evaluation puts in place of a model's own."""
    task = tiny_task({**SETTINGS, "variants": {"official": {}, "own": {"alpha": 0.25, "beta": 4}}})
    family = replace(task, architecture=task.architecture.model_copy(update={"alpha": 0.25, "beta": 4.0}))
    nll = evaluate(family).table.groupby(["variant", "scale", "document", "length"])["nll"].first()
    assert (nll["official"] == nll["own"]).all()
    assert not (nll["official"] == evaluate(task).table.groupby(nll.index.names)["nll"].first()["official"]).all()


def test_every_variant_is_another_model(tiny_task):
    """At one length no two variants give the same NLL: each option reaches the model."""
    outcome = evaluate(tiny_task(SETTINGS))
    table = outcome.table
    assert len(table) == 4 * 2 * (2 + 4) and set(table["protocol"]) == {"truncated-prefix@1"}
    assert list(table)[:8] == ["model", "arm", "seed", "corpus", "variant", "method", "scale", "document"]
    at = table[(table["scale"] == 8) & (table["length"] == 512)].groupby("variant", sort=False)["nll"].mean()
    assert len(at) == 4 and at.sort_values().diff().min() > 1e-5
    assert outcome.metrics["nll/paper/8"] == pytest.approx(at["paper"], rel=1e-6)


def test_documents_that_are_not_there_are_an_error(tiny_task):
    with pytest.raises(EvaluationError, match="the corpus has 3 documents, 4 are asked for"):
        evaluate(tiny_task({**SETTINGS, "documents": 4}))
