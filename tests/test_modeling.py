"""Checkpoints: stock transformers must see the model that we trained, and a wrong rope must not pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from yarnlab import attention
from yarnlab.attention import AttentionError, causal_tail
from yarnlab.families.rotary import RotaryEmbedding
from yarnlab.modeling import (
    RopeMismatch,
    check_active_rope,
    load_model,
    save_model,
    set_rope,
    use_fast_attention,
)
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


def saved_with_every_method(model, head_dim: int, tokenizer: Path, folder: Path, ids: torch.Tensor) -> list[np.ndarray]:
    """Our logits under every static method; a checkpoint for each in folder/0, 1, …"""
    ours = []
    for i, (method, options) in enumerate(VARIANTS):
        rope = make_rope(method, scale=4, original_context=64, head_dim=head_dim, **options)
        set_rope(model, rope)
        with torch.no_grad():
            ours.append(model(ids).logits.numpy())
        save_model(model, rope, tokenizer, folder / str(i))
    # The methods really differ, or a comparison would prove nothing.
    assert np.abs(ours[0] - ours[1]).max() > 0.1 * ours[0].std()
    return ours


def test_stock_transformers_computes_the_same_from_our_checkpoints(tiny_model, architecture, tiny_data, tmp_path):
    """Every static method, saved and loaded by transformers alone, gives our logits to 1e-4 of their spread. No rope
    type of ours is in their configs, so another process finds what this one does."""
    from transformers import AutoModelForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    registered = ROPE_INIT_FUNCTIONS.items()
    stocks = {"default", *(name for name, f in registered if f.__module__ == "transformers.modeling_rope_utils")}
    ids = torch.randint(0, 512, (1, 200), generator=torch.Generator().manual_seed(0))
    ours = saved_with_every_method(tiny_model, architecture.head_dim, tiny_data / "tokenizer", tmp_path, ids)
    for i, logits in enumerate(ours):
        stock = AutoModelForCausalLM.from_pretrained(tmp_path / str(i), dtype=torch.float32)
        assert stock.config.rope_parameters["rope_type"] in stocks
        with torch.no_grad():
            assert np.abs(stock(ids).logits.numpy() - logits).max() < 1e-4 * logits.std(), VARIANTS[i]


@pytest.mark.slow
def test_checkpoints_load_in_a_fresh_process_with_stock_transformers(tiny_model, architecture, tiny_data, tmp_path):
    """The same, with nothing of ours imported, and the tokenizer."""
    ids = torch.randint(0, 512, (1, 200), generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "ids.npy", ids.numpy())
    ours = saved_with_every_method(tiny_model, architecture.head_dim, tiny_data / "tokenizer", tmp_path, ids)
    folders = [str(tmp_path / str(i)) for i in range(len(ours))]
    subprocess.run([sys.executable, "-c", FRESH, str(tmp_path / "ids.npy"), *folders], check=True)
    for i, logits in enumerate(ours):
        theirs = np.load(tmp_path / str(i) / "theirs.npy")
        assert np.abs(theirs - logits).max() < 1e-4 * logits.std(), VARIANTS[i]


def test_given_weights_are_written_in_their_own_dtype(tiny_model, architecture, tiny_data, tmp_path, monkeypatch):
    """Whole weights of a model that is sharded itself: bf16 in several files, loaded by transformers as bf16."""
    from transformers import AutoModelForCausalLM

    rope = make_rope("yarn", scale=4, original_context=64, head_dim=architecture.head_dim)
    tensors = {name: p.detach().bfloat16() for name, p in tiny_model.named_parameters()}
    monkeypatch.setattr("yarnlab.modeling.SHARD_SIZE", "40KB")
    files = save_model(tiny_model, rope, tiny_data / "tokenizer", tmp_path, tensors=tensors)
    assert sum(file.suffix == ".safetensors" for file in files) > 1
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert stock.dtype == torch.bfloat16
    for name, parameter in stock.named_parameters():
        assert torch.equal(parameter, tensors[name]), name


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


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (5, 12), (1, 9), (600, 1300)])
def test_the_last_positions_attend_to_all_before_them(queries, keys):
    """Forward and gradients equal torch's attention with the mask written out; keys have fewer heads than queries."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, queries, 8, generator=generator, requires_grad=True)
    k, v = (torch.randn(2, 2, keys, 8, generator=generator, requires_grad=True) for _ in range(2))
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    found = []
    for out in (
        causal_tail(q, k, v, 0.3),
        torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3, enable_gqa=True),
    ):
        gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
        found.append((out, *gradients))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_attention_without_masks_refuses_what_it_would_leave_out(tiny_model):
    """Padding and a key cache end in an error that says what to use; a mask that hides nothing is no mask."""
    use_fast_attention(tiny_model)
    ids = torch.arange(20)[None]
    padded = torch.ones(1, 20, dtype=torch.int64)
    with torch.no_grad():
        expected = tiny_model(ids).logits
        assert torch.equal(tiny_model(ids, attention_mask=padded).logits, expected)
        padded[0, 0] = 0
        with pytest.raises(AttentionError, match="YARNLAB_ATTENTION=sdpa"):
            tiny_model(ids, attention_mask=padded)
        cache = tiny_model(ids, use_cache=True).past_key_values
        with pytest.raises(AttentionError, match="1 queries to 21 keys"):
            tiny_model(ids[:, :1], past_key_values=cache)


def mistral(window: int | None):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=window, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def test_a_sliding_window_is_honoured_or_refused():
    """A window that hides tokens takes attention with masks; our kernel refuses it, and ignores one that hides none."""
    ids = torch.arange(100)[None]
    model, wide = mistral(32), mistral(100)
    assert use_fast_attention(model) == use_fast_attention(model, length=33) == "sdpa"
    assert use_fast_attention(model, length=32) == use_fast_attention(mistral(None)) == attention.MEASURED
    with torch.no_grad():
        with pytest.raises(AttentionError, match="no sliding window of 32 in a sequence of 100 tokens"):
            model(ids)
        assert use_fast_attention(wide, length=100) == attention.MEASURED
        ours = wide(ids).logits
        wide.set_attn_implementation("eager")
        assert torch.allclose(ours, wide(ids).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("installed", "capability", "window", "half", "expected"),
    [
        ({"flash_attn_interface", "flash_attn"}, (9, 0), None, True, "flash_attention_3"),
        ({"flash_attn_interface", "flash_attn"}, (9, 0), None, False, attention.FUSED),
        ({"flash_attn_interface", "flash_attn"}, (8, 0), None, True, attention.FUSED),
        (set(), (9, 0), None, True, attention.FUSED),
        ({"flash_attn"}, (8, 0), 4096, True, "flash_attention_2"),
        ({"flash_attn"}, (8, 0), 4096, False, "sdpa"),
        ({"flash_attn"}, (8, 0), 8192, True, attention.FUSED),
    ],
)
def test_gpus_take_the_fastest_kernel_that_is_installed(monkeypatch, installed, capability, window, half, expected):
    """By what is installed, the GPU's generation, the numbers computed in and a window below 8,192 tokens."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    config = SimpleNamespace(sliding_window=window)
    model = SimpleNamespace(config=config, _supports_sdpa=True, device=torch.device("cuda"), dtype=torch.float32)
    assert attention.choose(model, length=8192, half=half, environment={}) == expected
    assert attention.choose(model, length=8192, half=half, environment={attention.VARIABLE: "eager"}) == "eager"


class Rounded(RotaryEmbedding):
    """What a cast of the whole model to bf16 would do."""

    def angles(self, rope, position_ids):
        return super().angles(rope, position_ids.bfloat16()).bfloat16()


def test_a_model_that_can_not_tell_positions_apart_is_refused(tiny_model, architecture):
    """The tables in force are computed and compared: another method, another scale, rounding to bf16; casting the model
    changes nothing, since its rotary module holds no numbers."""
    rope = make_rope("yarn", scale=4, original_context=64, head_dim=architecture.head_dim)
    with pytest.raises(RopeMismatch, match="here: the model's rotary embedding"):
        check_active_rope(tiny_model, rope, 256, where="here")
    set_rope(tiny_model, rope)
    check_active_rope(tiny_model.to(torch.bfloat16), rope, 256, where="here")
    with pytest.raises(RopeMismatch, match="not the declared yarn"):
        check_active_rope(tiny_model, make_rope("yarn", scale=8, original_context=64, head_dim=16), 256, where="here")
    tiny_model.model.rotary_emb = Rounded(rope)
    with pytest.raises(RopeMismatch, match=r"angles in force \(torch.bfloat16\)"):
        check_active_rope(tiny_model, rope, 1024, where="here")


def test_a_dynamic_rope_is_checked_at_the_length(tiny_model, architecture):
    rope = make_rope("dynamic-yarn", original_context=64, head_dim=architecture.head_dim)
    set_rope(tiny_model, rope)
    check_active_rope(tiny_model, rope, 200, where="here")
