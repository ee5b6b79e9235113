"""The sweep must change the temperature and nothing else, and its formula's row must be YaRN itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.perplexity import document_nll
from yarnlab.evaluation.temperature import Temperature, factors_at, segment_means, tempered
from yarnlab.families.rotary import RotaryEmbedding
from yarnlab.modeling import RopeMismatch, check_rope, set_rope
from yarnlab.progress import Progress
from yarnlab.rope import make_rope


def evaluate(task):
    return Temperature(**task.settings).evaluate(task)


METHODS = ("ntk-by-parts", "pi", "ntk-aware")
SETTINGS = {
    "method": "ntk-by-parts",
    "scales": [2, 8],
    "factors": {"start": 1.0, "stop": 1.5, "step": 0.25},
    "segments": 4,
    "documents": 2,
    "max_length": 256,
}


def rope_of(method: str, scale: float = 4, **options):
    return make_rope(method, scale=scale, original_context=64, head_dim=16, **options)


def test_a_tempered_ramp_is_yarn():
    """NTK-by-parts with factor x has the tables of YaRN with that factor, bit for bit."""
    x, positions = torch.zeros(1), torch.arange(256)[None]
    ours = RotaryEmbedding(tempered(rope_of("ntk-by-parts"), 1.3))(x, positions)
    yarn = RotaryEmbedding(rope_of("yarn", temperature={"factor": 1.3}))(x, positions)
    assert all(torch.equal(a, b) for a, b in zip(ours, yarn, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_factor_scales_the_logits_by_its_square(tiny_model, method):
    """The model with factor x gives what the untempered one gives after its queries are multiplied by x² (Eq. 21)."""
    ids = torch.arange(3, 203)[None]
    set_rope(tiny_model, tempered(rope_of(method), 1.3))
    with torch.no_grad():
        hot = tiny_model(input_ids=ids).logits
        set_rope(tiny_model, rope_of(method))
        plain = tiny_model(input_ids=ids).logits
        for layer in tiny_model.model.layers:
            layer.self_attn.q_proj.weight *= 1.3**2
        expected = tiny_model(input_ids=ids).logits
    assert torch.allclose(hot, expected, rtol=1e-4, atol=1e-4)
    assert (hot - plain).abs().max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_stock_transformers_can_have_it_too(tiny_model, method):
    """to_hf gives a config from which transformers builds the same frequencies and factor."""
    rope = tempered(rope_of(method), 1.3)
    tiny_model.config.rope_parameters = rope.to_hf()
    check_rope(tiny_model, rope, where="test")
    with pytest.raises(RopeMismatch, match="attention factor"):
        check_rope(tiny_model, tempered(rope_of(method), 1.2), where="test")


def test_formula_and_reading():
    """Beside the grid: √(1/t) = 0.1 ln s + 1 (1.27726 at s = 16) and its square root."""
    *grid, formula, reading = factors_at(16, (1.0, 1.1))
    assert grid == [("grid", 1.0), ("grid", 1.1)]
    assert formula == ("formula", pytest.approx(1.2772588722))
    assert reading == ("reading", pytest.approx(math.sqrt(1.2772588722)))


def test_segments_by_hand():
    """Nine tokens in three parts: the first has the targets of positions 1 and 2, the others three each."""
    rows = segment_means(np.arange(1, 9, dtype=np.float32), 3)
    assert [(r["segment"], r["start"], r["tokens"], r["nll"]) for r in rows] == [
        (0, 1, 2, 1.5),
        (1, 3, 3, 4.0),
        (2, 6, 3, 7.0),
    ]


@pytest.mark.parametrize("segments", [1, 3, 7, 8])
def test_segments_hold_every_token_once(segments):
    """Weighted by their tokens, the parts give the whole document's mean, however the length divides."""
    nll = np.random.default_rng(0).exponential(size=1023).astype(np.float32)
    rows = segment_means(nll, segments)
    assert sum(r["tokens"] for r in rows) == 1023 and len(rows) == segments
    assert sum(r["tokens"] * r["nll"] for r in rows) / 1023 == pytest.approx(nll.mean(dtype=np.float64))


def test_the_sweep(tiny_task, tiny_model):
    """Every scale, factor, document and segment once; s·L tokens, `max_length` at most; the formula's NLL is YaRN's,
    the grid's at 1 is NTK-by-parts'."""
    task = tiny_task(SETTINGS)
    table = evaluate(task).table
    assert len(table) == 2 * 5 * 2 * 4
    assert list(table)[:4] == ["model", "arm", "seed", "corpus"] and set(table["protocol"]) == {"temperature@1"}
    cell = ["scale", "kind", "factor", "document"]
    tokens = table.groupby(cell)["tokens"].sum()
    assert set(tokens[2.0]) == {127} and set(tokens[8.0]) == {255}
    sums = table.assign(total=table["nll"] * table["tokens"]).groupby(cell)["total"].sum() / tokens
    for scale, length in ((2.0, 128), (8.0, 256)):
        for kind, method in (("formula", "yarn"), ("grid", "ntk-by-parts")):
            rope = rope_of(method, scale)
            set_rope(tiny_model, rope)
            nll = document_nll(task, length, "fp32", Progress("test", 2, log=None), 2)
            factor = rope.attention_factor
            found = [sums[scale, kind, factor, name] for name in task.corpus.names[:2]]
            assert found == pytest.approx(nll.mean(1, dtype=np.float64), rel=1e-6)


def test_the_best_factor_is_reported(tiny_task):
    """The metric of each scale is the grid's factor of lowest mean NLL, found here by hand from the table."""
    outcome = evaluate(tiny_task({**SETTINGS, "method": "pi"}))
    grid = outcome.table[outcome.table["kind"] == "grid"]
    for scale in (2, 8):
        means = {f: grid[(grid["scale"] == scale) & (grid["factor"] == f)]["nll"].mean() for f in (1.0, 1.25, 1.5)}
        assert outcome.metrics[f"best_factor/{scale}"] == min(means, key=means.__getitem__)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": 4}, "has 3 documents, 4 are asked for"),
        ({"max_length": 10_000_000, "scales": [100_000]}, "6400000 are needed"),
    ],
)
def test_impossible_settings_are_errors(tiny_task, change, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(tiny_task({**SETTINGS, **change}))
