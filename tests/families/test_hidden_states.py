"""A pass by pieces of the sequence must give what the model's own pass gives, and hold no more than a piece."""

from __future__ import annotations

import pytest
import torch

from yarnlab.families import hidden_states as module
from yarnlab.families.hidden_states import hidden_states
from yarnlab.families.parts import decoder
from yarnlab.modeling import autocast, create_model, set_rope, use_fast_attention
from yarnlab.rope import make_rope

LENGTH, PIECE = 700, 96  # neither a multiple of the other


@pytest.fixture
def model(architecture):
    shape = architecture.model_copy(update={"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2})
    model = create_model(shape, vocab_size=128, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    use_fast_attention(model)
    return model


@pytest.fixture
def ids():
    return torch.randint(0, 128, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["none", "yarn", "dynamic-yarn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equals_the_models_own_pass(model, ids, method, precision, monkeypatch):
    """Also for a rope that depends on the length, which is that of the sequence and not of a piece."""
    monkeypatch.setattr(module, "PIECE", PIECE)
    set_rope(model, make_rope(method, scale=4.0, original_context=64, head_dim=16))
    with torch.inference_mode(), autocast(precision):
        own = decoder(model)(input_ids=ids, use_cache=False)[0]
        found = hidden_states(model, ids)
    assert found.dtype == own.dtype
    torch.testing.assert_close(found, own, rtol=0, atol=2e-6 if precision == "fp32" else 2e-2)


def test_what_is_done_token_by_token_sees_a_piece_at_a_time(model, ids, monkeypatch):
    """Two rows share the piece; attention's inputs are whole."""
    monkeypatch.setattr(module, "PIECE", PIECE)
    seen = {}
    for layer in model.model.layers:
        for part in (layer.mlp, layer.self_attn.q_proj, layer.self_attn.o_proj, layer.input_layernorm):
            part.register_forward_hook(lambda part, args, _: seen.setdefault(part, []).append(args[0].shape[1]))
    with torch.inference_mode():
        hidden_states(model, ids)
    assert len(seen) == 12
    assert all(max(sizes) == PIECE // 2 and sum(sizes) == LENGTH for sizes in seen.values())
