"""The pruned last layer must give what the whole forward pass gives."""

from __future__ import annotations

import pytest
import torch

from yarnlab.evaluation.last_tokens import last_logits
from yarnlab.modeling import autocast, create_model, set_rope, use_fast_attention
from yarnlab.rope import METHODS, make_rope

LENGTH = 200


@pytest.fixture(params=[1, 2, 4], ids=lambda heads: f"{heads}-kv-heads")
def model(request, architecture):
    """Three layers and four heads, with one, two or four heads of keys and values; a clearly non-uniform attention."""
    shape = architecture.model_copy(
        update={"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": request.param}
    )
    model = create_model(shape, vocab_size=128, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture
def ids():
    return torch.randint(0, 128, (2, LENGTH), generator=torch.Generator().manual_seed(0))


def whole(model, ids, count):
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits[:, -count:].float()


def attend(model, implementation):
    if implementation == "blockwise":
        use_fast_attention(model)
    else:
        model.set_attn_implementation(implementation)


@pytest.mark.parametrize("implementation", ["blockwise", "sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_whole_forward_pass(model, ids, method, implementation):
    """Every method, any sharing of keys between heads, each attention: equal to 1e-5 of the largest logit in fp32."""
    options = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if method == "longrope" else {}
    set_rope(model, make_rope(method, scale=4.0, original_context=64, head_dim=16, **options))
    attend(model, implementation)
    for count in (1, 6):
        expected = whole(model, ids, count)
        assert (last_logits(model, ids, count) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_one_layer_and_all_positions(architecture, ids):
    """With a single layer, and when every position is wanted, nothing is left out."""
    model = create_model(architecture.model_copy(update={"num_hidden_layers": 1}), vocab_size=128, seed=1).eval()
    attend(model, "sdpa")
    torch.testing.assert_close(last_logits(model, ids, LENGTH), whole(model, ids, LENGTH), rtol=0, atol=1e-5)


def test_under_autocast_it_is_as_near_to_fp32_as_the_whole_pass(model, ids):
    """bf16: the deviation from the fp32 logits is that of the whole pass, within a factor of two."""
    attend(model, "sdpa")
    exact = whole(model, ids, 6)
    with autocast("bf16"):
        pruned, plain = last_logits(model, ids, 6), whole(model, ids, 6)
    assert pruned.dtype == torch.float32
    assert 0 < (pruned - exact).abs().mean() <= 2 * (plain - exact).abs().mean()


def test_computes_the_last_layer_for_the_last_positions_only(model, ids):
    """The last layer's queries and MLP see `count` positions, those below see all."""
    seen = {}
    for index, layer in enumerate(model.model.layers):
        for name, part in (("mlp", layer.mlp), ("q", layer.self_attn.q_proj), ("k", layer.self_attn.k_proj)):
            key = (index, name)
            part.register_forward_hook(lambda _, args, __, key=key: seen.update({key: args[0].shape[1]}))
    last_logits(model, ids, 6)
    assert seen == {(i, n): 6 if i == 2 and n != "k" else LENGTH for i in range(3) for n in ("mlp", "q", "k")}


@pytest.mark.parametrize("count", [0, LENGTH + 1])
def test_refuses_positions_that_do_not_exist(model, ids, count):
    """A slice would silently give all positions or none."""
    with pytest.raises(ValueError, match=f"1 to {LENGTH}"):
        last_logits(model, ids, count)


def relative(family, **changes):
    """A tiny model of another family, its biases not zero; grouped heads, a head of its own for the output."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        tie_word_embeddings=False,
        **changes,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 5)
    return model


@pytest.mark.parametrize(
    ("family", "changes", "pruned"),
    [
        ("mistral", {"sliding_window": None}, True),
        ("mistral", {"sliding_window": 50}, False),
        ("qwen2", {}, True),
        ("qwen3", {}, False),
        ("phi3", {"pad_token_id": 0}, False),
    ],
)
def test_other_families_give_what_their_whole_pass_gives(ids, family, changes, pruned):
    """Pruned where the layers are Llama's (Qwen2's projections have biases), whole where they do more."""
    model = relative(family, **changes)
    expected, rows = whole(model, ids, 6), []
    model.model.layers[-1].mlp.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[1]))
    torch.testing.assert_close(last_logits(model, ids, 6), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert rows == [6 if pruned else LENGTH]
