"""Every RoPE formula against the official code's values, transformers' own tables, and the paper's identities."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yarnlab.rope import METHODS, Dynamic, Head, Temperature, make_rope, options
from yarnlab.study.schema import RopeChoice

LLAMA2 = {"original_context": 4096, "head_dim": 128}
SCALES = (2, 4, 8, 16, 32)
STATIC = [name for name, cls in METHODS.items() if not cls.dynamic]
DYNAMIC = [name for name, cls in METHODS.items() if issubclass(cls, Dynamic)]

# Values of the official LlamaYaRNScaledRotaryEmbedding (jquesnelle/yarn @995db5b), head_dim 128, base 10,000.
OFFICIAL = [
    (
        {"scale": 16, "original_context": 4096},
        1.2772588722,
        {
            0: 1.0,
            20: 0.0562341288,
            21: 0.0469408594,
            30: 0.0085268440,
            33: 0.0046004355,
            40: 0.0008817890,
            45: 0.00015177164,
            46: 8.334509e-05,
            63: 7.217387e-06,
        },
    ),
    (
        {"scale": 32, "original_context": 4096},
        1.3465735903,
        {21: 0.0468823276, 33: 0.0044651283, 45: 0.00010549981, 63: 3.6086935e-06},
    ),
    (
        {"scale": 2, "original_context": 4096},
        1.0693147181,
        {21: 0.0477602780, 33: 0.0064947326, 45: 0.00079957722, 63: 5.7739097e-05},
    ),
    (
        {"scale": 16, "original_context": 2048},
        1.2772588722,
        {20: 0.0477990098, 30: 0.0063342270, 40: 0.00031622784},
    ),
    ({"scale": 8, "original_context": 2048}, 1.2079441542, {20: 0.0483613536, 30: 0.0068009598}),
]


@pytest.mark.parametrize(("shape", "factor", "values"), OFFICIAL)
def test_yarn_has_the_official_values(shape, factor, values):
    """inv_freq and attention factor equal those of the official code, to fp32 rounding of the printed digits."""
    rope = make_rope("yarn", head_dim=128, **shape)
    assert rope.attention_factor == pytest.approx(factor, abs=1e-10)
    inv_freq = rope.inv_freq()
    assert inv_freq.dtype == torch.float32 and inv_freq.shape == (64,)
    for pair, value in values.items():
        assert inv_freq[pair].item() == pytest.approx(value, rel=1e-6)


def test_official_cos_and_sin():
    """cos[5, 0] and sin[5, 0] of the official tables at s = 16 carry the attention factor."""
    rope = make_rope("yarn", scale=16, **LLAMA2)
    angle = 5 * rope.inv_freq()[0]
    assert (angle.cos() * rope.attention_factor).item() == pytest.approx(0.362310052, rel=1e-6)
    assert (angle.sin() * rope.attention_factor).item() == pytest.approx(-1.224794507, rel=1e-6)


@pytest.mark.parametrize(
    ("context", "alpha", "beta", "expected"),
    [(4096, 1, 32, (20, 46)), (2048, 1, 32, (16, 41)), (8192, 2, 128, (16, 46)), (8192, 1, 32, (25, 50))],
)
def test_correction_ranges(context, alpha, beta, expected):
    """The ramp's ends for Llama 2, LLaMA-1, Mistral as coded and Mistral with the paper's constants."""
    rope = make_rope("yarn", scale=8, original_context=context, head_dim=128, alpha=alpha, beta=beta)
    assert rope.correction_range() == expected


def test_correction_range_without_truncation():
    low, high = make_rope("yarn", scale=8, truncate=False, **LLAMA2).correction_range()
    assert (low, high) == (pytest.approx(20.94, abs=0.01), pytest.approx(45.03, abs=0.01))


def test_mistral_temperature():
    """The official Mistral code's slope of 0.07 gives 1.14556 at s = 8 and 1.19408 at s = 16."""
    for scale, factor in ((8, 1.14556), (16, 1.19408)):
        rope = make_rope("yarn", scale=scale, original_context=8192, head_dim=128, temperature={"slope": 0.07})
        assert rope.attention_factor == pytest.approx(factor, abs=1e-5)


def theirs(rope) -> tuple[torch.Tensor, float]:
    """What stock transformers computes from to_hf()."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=4 * rope.head_dim,
        num_attention_heads=4,
        max_position_embeddings=rope.context,
        rope_parameters=rope.to_hf(),
    )
    module = LlamaRotaryEmbedding(config)
    return module.inv_freq, module.attention_scaling


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("method_options", [{}, {"truncate": False}, {"alpha": 2, "beta": 128}])
def test_dimension_ramp_is_bit_identical_to_transformers(scale, method_options):
    ours = make_rope("yarn", scale=scale, **LLAMA2, **method_options)
    inv_freq, factor = theirs(ours)
    assert torch.equal(ours.inv_freq(), inv_freq)
    assert factor == ours.attention_factor


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("method", "method_options"),
    [
        ("none", {}),
        ("pi", {}),
        ("ntk-aware", {}),
        ("ntk-by-parts", {}),
        ("temperature", {}),
        ("yarn", {"ramp": "rotations"}),
        ("ntk-by-parts", {"ramp": "rotations", "alpha": 2.0, "beta": 64.0}),
        ("yarn", {"temperature": {"factor": 1.5}}),
    ],
)
def test_every_static_method_has_a_stock_form(method, method_options, scale):
    """transformers' tables from to_hf() equal ours to fp32 rounding (2e-7 relative), the attention factor exactly."""
    ours = make_rope(method, scale=scale, **LLAMA2, **method_options)
    inv_freq, factor = theirs(ours)
    assert ((inv_freq - ours.inv_freq()).abs() / ours.inv_freq()).max() < 2e-7
    assert factor == ours.attention_factor


@pytest.mark.parametrize("method", ["dynamic-pi", "dynamic-yarn"])
def test_methods_without_a_stock_form_say_so(method):
    with pytest.raises(ValueError, match=method):
        make_rope(method, **LLAMA2).to_hf()


# The paper's identities 1-5.


def test_temperature_is_a_scaling_of_the_tables():
    """softmax(q·k/(t√D)) with plain tables = softmax(q·k/√D) with cos and sin times √(1/t) (Eq. 21)."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    rope = make_rope("yarn", scale=16, **LLAMA2)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 64, 128)
    angles = torch.arange(64)[:, None] * rope.inv_freq()
    angles = torch.cat([angles, angles], -1)[None]
    plain_q, plain_k = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    scaled_q, scaled_k = apply_rotary_pos_emb(
        q, k, angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor
    )
    one_over_t = rope.attention_factor**2
    expected = plain_q @ plain_k.transpose(-1, -2) * one_over_t / math.sqrt(128)
    assert (scaled_q @ scaled_k.transpose(-1, -2) / math.sqrt(128) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("scale", "factor"), [(1, 1.0), (2, 1.0693), (4, 1.1386), (8, 1.2079), (16, 1.2773), (32, 1.3466)]
)
def test_temperature_rule(scale, factor):
    """√(1/t) = 0.1 ln s + 1 (Eq. 22), and not 1/t."""
    for method in ("yarn", "temperature"):
        assert make_rope(method, scale=scale, **LLAMA2).attention_factor == pytest.approx(factor, abs=5e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_ntk_aware_keeps_the_highest_and_scales_the_lowest_frequency(scale):
    """h(θ_0) = θ_0 and h(θ_{D/2−1}) = θ_{D/2−1}/s to 1e-6 (Eq. 23-24)."""
    plain, ntk = (make_rope(m, scale=scale, **LLAMA2).inv_freq() for m in ("none", "ntk-aware"))
    assert ntk[0] == plain[0]
    assert ntk[-1].item() == pytest.approx(plain[-1].item() / scale, rel=1e-6)


@given(
    scale=st.floats(1, 128),
    context=st.sampled_from([256, 2048, 4096, 8192]),
    ramp=st.sampled_from(["dimension", "rotations"]),
    truncate=st.booleans(),
    alpha=st.floats(0.5, 4),
    spread=st.floats(2, 64),
)
@settings(deadline=None, max_examples=200)
def test_by_parts_never_extrapolates(scale, context, ramp, truncate, alpha, spread):
    """θ_d/s <= h(θ_d) <= θ_d for every pair, and γ never rises along the pairs; whatever the constants."""
    rope = make_rope(
        "ntk-by-parts",
        scale=scale,
        original_context=context,
        head_dim=128,
        ramp=ramp,
        truncate=truncate,
        alpha=alpha,
        beta=alpha * spread,
    )
    theta, h = make_rope("none", original_context=context, head_dim=128).inv_freq(), rope.inv_freq()
    assert (h <= theta * (1 + 1e-6)).all() and (h >= theta / scale * (1 - 1e-6)).all()
    assert (rope.kept().diff() <= 0).all()


def test_by_parts_is_pi_below_alpha_and_plain_above_beta():
    """With the paper's ramp: r < α interpolated like PI, r > β untouched."""
    rope = make_rope("ntk-by-parts", scale=16, ramp="rotations", **LLAMA2)
    theta = make_rope("none", **LLAMA2).inv_freq()
    rotations = 4096 * theta / (2 * math.pi)
    assert torch.allclose(rope.inv_freq()[rotations < 1], theta[rotations < 1] / 16, rtol=1e-6)
    assert torch.equal(rope.inv_freq()[rotations > 32], theta[rotations > 32])


def test_paper_and_code_ramps_differ_as_documented():
    """max |Δγ| = 0.367 at pair 30, and h differs up to 3.04 times at s = 16 (pair 38)."""
    code, paper = (make_rope("yarn", scale=16, ramp=ramp, **LLAMA2) for ramp in ("dimension", "rotations"))
    difference = (code.kept() - paper.kept()).abs()
    assert (int(difference.argmax()), difference.max().item()) == (30, pytest.approx(0.367, abs=1e-3))
    ratio = code.inv_freq() / paper.inv_freq()
    assert (int(ratio.argmax()), ratio.max().item()) == (38, pytest.approx(3.04, abs=0.01))


@pytest.mark.parametrize("method", DYNAMIC)
def test_dynamic_scaling_is_the_identity_within_the_window(method):
    """For l <= L the tables are plain RoPE's, bit for bit (identity 5)."""
    rope, plain = make_rope(method, scale=8, **LLAMA2), make_rope("none", **LLAMA2)
    for length in (1, 2048, 4096):
        assert torch.equal(rope.at(length).inv_freq(), plain.inv_freq())
        assert rope.at(length).attention_factor == 1.0


@pytest.mark.parametrize(
    ("method", "static"), [("dynamic-pi", "pi"), ("dynamic-ntk", "ntk-aware"), ("dynamic-yarn", "yarn")]
)
def test_dynamic_scaling_beyond_the_window_is_static_at_that_scale(method, static):
    """For l > L it is the static method with s = l/L, and a later, shorter input is not affected by it."""
    rope = make_rope(method, **LLAMA2)
    beyond = rope.at(4096 * 4)
    expected = make_rope(static, scale=4, **LLAMA2)
    assert torch.equal(beyond.inv_freq(), expected.inv_freq())
    assert beyond.attention_factor == expected.attention_factor
    assert rope.at(100).attention_factor == 1.0


@pytest.mark.parametrize("method", STATIC)
def test_static_methods_do_not_depend_on_the_length(method):
    rope = make_rope(method, scale=4, **LLAMA2)
    assert rope.at(10) is rope and rope.at(10**6) is rope


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "yarm"}, "unknown RoPE method 'yarm'; known: none"),
        ({"method": "yarn", "scale": 0.5}, "scale must be a number >= 1, got 0.5"),
        ({"method": "yarn", "scale": True}, "scale must be a number"),
        ({"method": "pi", "scale": 2, "beta": 16}, "beta has no effect with method pi"),
        ({"method": "yarn", "scale": 2, "alpha": 40}, "0 < alpha < beta"),
        ({"method": "yarn", "scale": 2, "ramp": "radial"}, "ramp must be one of dimension, rotations"),
        ({"method": "yarn", "scale": 2, "temperature": {"slope": 0.1, "factor": 1.2}}, "exactly one of"),
        ({"method": "yarn", "scale": 2, "temperature": {"slop": 0.1}}, "temperature must be"),
        ({"method": "yarn", "scale": 2, "head_dim": 63}, "head_dim must be an even number"),
        ({"method": "yarn", "scale": 2, "base": 1}, "base must be a number > 1"),
        (
            {"method": "yarn", "scale": 2, "original_context": 4096.0},
            "original_context must be a whole number",
        ),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make_rope(**{**LLAMA2, **arguments})


def test_options_are_those_of_the_class():
    assert options("pi") == ()
    assert options("dynamic-yarn") == options("yarn") == ("temperature", "ramp", "truncate", "alpha", "beta")


def test_ropes_are_values():
    """Equal settings make equal, hashable ropes, however the temperature was written."""
    one = make_rope("yarn", scale=2, temperature={"slope": 0.1}, **LLAMA2)
    assert one == make_rope("yarn", scale=2, temperature=Temperature(slope=0.1), **LLAMA2)
    assert hash(one) == hash(make_rope("yarn", scale=2, **LLAMA2))


def test_ntk_aware_with_a_given_base():
    """The official 8k run sets the base to 20,000 (train.sh:51), a little less than b·s^(D/(D−2)) for s = 2."""
    given = make_rope("ntk-aware", scale=2, original_context=4096, head_dim=128, theta=20000.0)
    assert torch.equal(given.inv_freq(), make_rope("none", original_context=4096, head_dim=128, base=2e4).inv_freq())
    assert given.to_hf() == {"rope_type": "default", "rope_theta": 20000.0}
    rule = make_rope("ntk-aware", scale=2, original_context=4096, head_dim=128)
    assert rule.changed_base == pytest.approx(20221, abs=1)
    with pytest.raises(ValueError, match="larger base"):
        make_rope("ntk-aware", scale=2, original_context=4096, head_dim=128, theta=5000.0)
    with pytest.raises(ValueError, match="larger base"):
        make_rope("dynamic-ntk", scale=2, original_context=4096, head_dim=128, theta=2e4)


@pytest.mark.parametrize(
    ("method", "own", "expected"),
    [
        ("yarn", {}, (2, 8)),
        ("ntk-by-parts", {"alpha": 0.5}, (0.5, 8)),
        ("yarn", {"alpha": 1, "beta": 32}, (1, 32)),
        ("dynamic-yarn", {}, (2, 8)),
    ],
)
def test_a_ramp_is_the_familys_unless_an_option_says_otherwise(method, own, expected):
    rope = Head(original_context=256, head_dim=32, alpha=2, beta=8).make_rope(method, 4, **own)
    assert (rope.alpha, rope.beta) == expected
    fixed = rope.at(1024)
    assert (fixed.alpha, fixed.beta) == expected


def test_a_head_that_turns_in_part_has_the_familys_ramp_too(architecture):
    shape = architecture.model_copy(update={"partial_rotary_factor": 0.5, "alpha": 2.0, "beta": 8.0})
    rope = RopeChoice(method="yarn", scale=4).make(shape)
    assert (rope.head_dim, rope.alpha, rope.beta) == (8, 2, 8) and rope == shape.head.make_rope("yarn", 4)


def test_a_method_without_a_ramp_takes_nothing_of_the_family():
    head = Head(original_context=256, head_dim=32, rope_theta=5e5, alpha=2, beta=8)
    assert head.make_rope("pi", 4) == make_rope("pi", scale=4, original_context=256, head_dim=32, base=5e5)
    with pytest.raises(ValueError, match="beta has no effect with method pi"):
        head.make_rope("pi", 4, beta=16)
