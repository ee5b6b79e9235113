"""Methods that only published parents bring, llama3 and longrope: golden tables, and stock transformers' own."""

from __future__ import annotations

import math

import pytest
import torch

from yarnlab.rope import make_rope

SHAPE = {"original_context": 8192, "head_dim": 128, "base": 500000.0}


def stock(block: dict, *, length: int | None = None, head_dim: int = 128):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=dict(block),
        max_position_embeddings=131072,
    )  # fmt: skip
    return ROPE_INIT_FUNCTIONS[block["rope_type"]](config, "cpu", seq_len=length)


# transformers 5.23's tables of Llama 3.1 (s = 8) and 3.2 (s = 32): pair → inv_freq.
LLAMA3: dict[int, dict[int, float]] = {
    8: {
        0: 1.0, 20: 0.0165604409, 28: 0.00321144611, 29: 0.00216657063, 31: 0.00085675146, 33: 0.00031269365,
        35: 9.55621217e-05, 36: 7.78465546e-05, 63: 3.06892588e-07,
    },
    32: {
        0: 1.0, 20: 0.0165604409, 28: 0.00321144611, 29: 0.00211840682, 31: 0.000762541255, 33: 0.00022276341,
        35: 2.38905304e-05, 36: 1.94616387e-05, 63: 7.67231469e-08,
    },
}  # fmt: skip


@pytest.mark.parametrize("scale", LLAMA3)
def test_llama3_has_the_golden_values(scale):
    inv_freq = make_rope("llama3", scale=scale, **SHAPE).inv_freq()
    assert {pair: inv_freq[pair].item() for pair in LLAMA3[scale]} == pytest.approx(LLAMA3[scale], rel=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 4.0), (2.0, 32.0)])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_llama3_is_stocks(low, high, head_dim):
    bounds = {"low_freq_factor": low, "high_freq_factor": high}
    rope = make_rope("llama3", scale=8, original_context=8192, head_dim=head_dim, base=5e5, **bounds)
    inv_freq, factor = stock(rope.to_hf(), head_dim=head_dim)
    torch.testing.assert_close(rope.inv_freq(), inv_freq, rtol=1e-6, atol=0)
    assert factor == rope.attention_factor == 1.0


@pytest.mark.parametrize("temperature", [None, {"factor": 1.25}])
def test_longrope_is_stocks_on_both_sides_of_its_context(temperature):
    short, long = [1.0 + 0.01 * i for i in range(64)], [1.0 + i for i in range(64)]
    options = {"short_factor": short, "long_factor": long, "temperature": temperature}
    rope = make_rope("longrope", scale=32, original_context=4096, head_dim=128, **options)
    for length in (100, 4096, 4097, 100_000):
        inv_freq, factor = stock(rope.to_hf(), length=length)
        torch.testing.assert_close(rope.at(length).inv_freq(), inv_freq, rtol=1e-6, atol=0)
        assert rope.at(length).attention_factor == pytest.approx(factor, rel=1e-12)
    if temperature is None:  # Phi-3's published value for 128k from 4k
        assert rope.attention_factor == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))
        assert rope.attention_factor == pytest.approx(1.190238, abs=1e-6)


def test_llama3s_context_is_what_it_serves():
    """Llama 3.1 and 3.2 divide low frequencies by 8 and by 32, and both serve 131,072 tokens."""
    served = [make_rope("llama3", scale=s, **SHAPE, max_position_embeddings=131_072).context for s in (8, 32)]
    assert served == [131_072, 131_072]
    assert make_rope("llama3", scale=8, **SHAPE).context == 8 * SHAPE["original_context"]


@pytest.mark.parametrize(
    ("method", "options", "word"),
    [
        ("llama3", {"low_freq_factor": 4.0}, "low_freq_factor"),
        ("llama3", {"max_position_embeddings": 100}, "max_position_embeddings"),
        ("llama3", {"max_position_embeddings": 131072.0}, "max_position_embeddings"),
        ("longrope", {}, "short_factor"),
        ("longrope", {"short_factor": [1.0] * 64, "long_factor": [1.0] * 3}, "long_factor"),
        ("longrope", {"short_factor": [1.0] * 64, "long_factor": [0.0] * 64}, "above 0"),
    ],
)
def test_wrong_options_are_named(method, options, word):
    with pytest.raises(ValueError, match=word):
        make_rope(method, scale=8, **SHAPE, **options)
