"""A RoPE method of the user's own: one class with a formula, nothing about checkpoints."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from yarnlab.modeling import check_can_be_saved, load_model, save_model, set_rope
from yarnlab.rope import METHODS, Dynamic, PositionInterpolation, Rope, YaRN, make_rope
from yarnlab.study.options import rope_problem

SHAPE = {"original_context": 64, "head_dim": 16}
FRESH = (
    "import sys, numpy, torch; from transformers import AutoModelForCausalLM as M\n"
    "m = M.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
    "with torch.no_grad(): numpy.save(sys.argv[2], m(torch.arange(200)[None]).logits.numpy())\n"
    "assert not any(name.startswith('yarnlab') for name in sys.modules)"
)


class Halved(Rope):
    """Overrides inv_freq alone: the second half of the pairs interpolated, the first untouched."""

    method = "halved"

    def inv_freq(self):
        pairs = torch.arange(self.head_dim // 2)
        return torch.where(pairs < self.head_dim // 4, 1.0, 1 / self.scale) * super().inv_freq()


@dataclass(frozen=True, kw_only=True)
class Hotter(PositionInterpolation):
    """Keeps its parent's frequencies, with an option of its own for the attention factor."""

    method = "hotter"
    factor: float = 1.2

    @property
    def attention_factor(self):
        return self.factor


class Kept(YaRN):
    """Changes a part of its parent's formula; the parent's stock form would give the parent's frequencies."""

    method = "kept"

    def kept(self):
        return super().kept() ** 2


class Still(Rope):
    """The lower half of the pairs does not rotate at all."""

    method = "still"

    def inv_freq(self):
        return super().inv_freq() * (torch.arange(self.head_dim // 2) < self.head_dim // 4)


OWN = (Halved, Hotter, Kept, Still)


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    for cls in OWN:
        monkeypatch.setitem(METHODS, cls.method, cls)


def saved(method, model, tokenizer, folder) -> np.ndarray:
    """A checkpoint of the model with the method at s = 4; returns our logits."""
    rope = make_rope(method, scale=4, **SHAPE)
    check_can_be_saved(model.config, rope, where="before training")
    set_rope(model, rope)
    with torch.no_grad():
        logits = model(torch.arange(200)[None]).logits.numpy()
    save_model(model, rope, tokenizer, folder)
    return logits


@pytest.mark.parametrize("method", [cls.method for cls in OWN])
def test_stock_transformers_gives_the_same_logits(method, tiny_model, tiny_data, tmp_path):
    """Whatever part of a formula the class overrides, and not those of plain RoPE; it also loads here again."""
    from transformers import AutoModelForCausalLM

    plain = tiny_model(torch.arange(200)[None]).logits.detach().numpy()
    ours = saved(method, tiny_model, tiny_data / "tokenizer", tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        theirs = stock(torch.arange(200)[None]).logits.numpy()
    assert np.abs(theirs - ours).max() < 1e-4 * ours.std()
    assert np.abs(theirs - plain).max() > 1e-2 * ours.std()
    load_model(tmp_path, make_rope(method, scale=4, **SHAPE))


@pytest.mark.slow
def test_it_does_so_in_a_fresh_process(tiny_model, tiny_data, tmp_path):
    ours = saved("halved", tiny_model, tiny_data / "tokenizer", tmp_path)
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path), str(tmp_path / "theirs.npy")], check=True)
    assert np.abs(np.load(tmp_path / "theirs.npy") - ours).max() < 1e-4 * ours.std()


def test_a_method_may_state_its_own_stock_form():
    class Stated(Halved):
        def inv_freq(self):
            return super().inv_freq() / 2

        def to_hf(self):
            return {"rope_type": "mine"}

    assert Stated(**SHAPE).to_hf() == {"rope_type": "mine"}


@pytest.mark.parametrize("wrong", [torch.ones(4), torch.full((8,), torch.nan)])
def test_frequencies_that_are_none_are_named(wrong):
    """Before a checkpoint holds them: the method, what was expected, and what it gave."""

    class Wrong(Rope):
        method = "wrong"

        def inv_freq(self):
            return wrong

    with pytest.raises(ValueError, match="wrong: inv_freq must give 8 finite frequencies"):
        Wrong(**SHAPE).to_hf()


def test_an_own_dynamic_method_has_no_stock_form():
    """Its frequencies follow the input, which no config can say; whatever of its formulas it overrides."""

    class DynamicHalved(Dynamic, Halved):
        method = "dynamic-halved"
        static = Halved

        def inv_freq(self):
            return super().inv_freq()

    with pytest.raises(ValueError, match="no dynamic-halved"):
        DynamicHalved(**SHAPE).to_hf()


@dataclass(frozen=True, kw_only=True)
class Asking(PositionInterpolation):
    """Has an option that must be given, and be a number."""

    method = "asking"
    gain: float

    def __post_init__(self):
        super().__post_init__()
        if self.gain <= 0:
            raise ValueError("gain must be above 0")


@pytest.mark.parametrize(("options", "message"), [({}, "gain"), ({"gain": "big"}, "<="), ({"gain": -1}, "above 0")])
def test_a_mistake_in_an_own_methods_options_is_one_of_the_study(monkeypatch, architecture, options, message):
    monkeypatch.setitem(METHODS, "asking", Asking)
    path, problem = rope_problem(("models", "a", "rope"), "asking", 2.0, options, architecture)
    assert path == ("models", "a", "rope") and message in problem
