"""Checkpoints: stock transformers must see the model that we trained, and a wrong rope must not pass."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from yarnlab.modeling import RopeMismatch, load_model, save_model, set_rope, use_fast_attention
from yarnlab.rope import METHODS, make_rope

VARIANTS = [(name, {}) for name, cls in METHODS.items() if not cls.dynamic] + [("yarn", {"ramp": "rotations"})]

FRESH = """
import json, sys, numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
ids = torch.from_numpy(np.load(sys.argv[1]))
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        np.save(folder + "/theirs.npy", model(ids).logits.numpy())
    assert AutoTokenizer.from_pretrained(folder).bos_token_id == 0
"""


def test_checkpoints_load_in_a_fresh_process_with_stock_transformers(tiny_model, architecture, tiny_data, tmp_path):
    """Every static method, saved and loaded by transformers alone, gives our logits to 1e-4 of their spread."""
    ids = torch.randint(0, 512, (1, 200), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "ids.npy", ids.numpy())
    ours = {}
    for i, (method, options) in enumerate(VARIANTS):
        rope = make_rope(method, scale=4, original_context=64, head_dim=architecture.head_dim, **options)
        set_rope(tiny_model, rope)
        with torch.no_grad():
            ours[i] = tiny_model(ids).logits.numpy()
        save_model(tiny_model, rope, tiny_data / "tokenizer", tmp_path / str(i))
    folders = [str(tmp_path / str(i)) for i in ours]
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "ids.npy"), *folders], check=True)
    for i, logits in ours.items():
        theirs = np.load(tmp_path / str(i) / "theirs.npy")
        assert np.abs(theirs - logits).max() < 1e-4 * logits.std(), VARIANTS[i]
    # The methods really differ, or the comparison would prove nothing.
    assert np.abs(ours[0] - ours[1]).max() > 0.1 * ours[0].std()


def test_the_extended_window_and_original_context_are_in_the_config(tiny_model, architecture, tiny_data, tmp_path):
    rope = make_rope("yarn", scale=4, original_context=64, head_dim=architecture.head_dim)
    save_model(tiny_model, rope, tiny_data / "tokenizer", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["max_position_embeddings"] == 256
    assert config["rope_parameters"]["original_max_position_embeddings"] == 64


@pytest.mark.parametrize(
    ("declared", "options"), [("pi", {}), ("yarn", {"alpha": 3}), ("yarn", {"temperature": {"slope": 0.07}})]
)
def test_a_checkpoint_with_another_rope_is_refused(tiny_model, architecture, tiny_data, tmp_path, declared, options):
    """Method, ramp constants and temperature are each compared after loading."""
    saved = make_rope("yarn", scale=4, original_context=64, head_dim=architecture.head_dim)
    save_model(tiny_model, saved, tiny_data / "tokenizer", tmp_path)
    load_model(tmp_path, saved)
    other = make_rope(declared, scale=4, original_context=64, head_dim=architecture.head_dim, **options)
    with pytest.raises(RopeMismatch, match="declared"):
        load_model(tmp_path, other)


def test_positions_stay_distinct_and_tables_fp32_at_131072():
    """No rounding of positions: 131,072 of them give as many distinct angles in the fastest pair (mod nothing)."""
    from yarnlab.modeling import RotaryEmbedding

    rope = make_rope("none", original_context=4096, head_dim=128)
    positions = torch.arange(131072)[None]
    angles = positions[..., None].float() * rope.inv_freq()
    assert angles[0, :, 0].unique().numel() == 131072
    cos, sin = RotaryEmbedding(rope)(torch.zeros(1, dtype=torch.float32), positions)
    assert cos.dtype == sin.dtype == torch.float32 and cos.shape == (1, 131072, 128)


@pytest.mark.parametrize("method", ["dynamic-pi", "dynamic-ntk", "dynamic-yarn"])
def test_dynamic_ropes_are_stateless_and_identical_within_the_window(tiny_model, architecture, method):
    """A long input leaves no trace in the next short one, which gets plain RoPE's logits bit for bit."""
    plain = make_rope("none", original_context=64, head_dim=architecture.head_dim)
    short, long = torch.randint(0, 512, (1, 64)), torch.randint(0, 512, (1, 200))
    with torch.no_grad():
        set_rope(tiny_model, plain)
        expected, expected_long = tiny_model(short).logits, tiny_model(long).logits
        set_rope(tiny_model, make_rope(method, original_context=64, head_dim=architecture.head_dim))
        assert not torch.allclose(tiny_model(long).logits, expected_long, atol=1e-3)
        assert torch.equal(tiny_model(short).logits, expected)


@pytest.mark.parametrize("length", [1, 63, 64, 700])
def test_blockwise_attention_equals_transformers(tiny_model, length):
    """Logits and gradients of our kernel equal those of torch's in fp32, also across block borders and with GQA."""
    ids = torch.randint(0, 512, (2, length))

    def run(implementation):
        tiny_model.zero_grad()
        tiny_model.set_attn_implementation(implementation)
        logits = tiny_model(ids).logits
        logits.square().mean().backward()
        return logits.detach(), [p.grad.clone() for p in tiny_model.parameters()]

    theirs, their_gradients = run("sdpa")
    ours, our_gradients = run(use_fast_attention(tiny_model))
    assert (ours - theirs).abs().max() < 1e-4 * theirs.std()
    largest = max(gradient.abs().max() for gradient in their_gradients)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert (a - b).abs().max() < 1e-5 * largest
