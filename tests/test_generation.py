"""A key cache must not change what is computed, except where the module says that it does."""

from __future__ import annotations

import pytest
import torch
from decoding import generate, logits_of_every_step

from yarnlab.generation import key_cache
from yarnlab.modeling import create_model, set_rope, use_fast_attention
from yarnlab.rope import make_rope

DYNAMIC = ("dynamic-pi", "dynamic-ntk", "dynamic-yarn")
WINDOW, LENGTH = 64, 150
NEAR = 3e-4  # rounding of fp32 in logits of about 10, by whichever order of additions the machine has


def rope_for(method: str, scale: float = 1.0):
    return make_rope(method, scale=scale, original_context=WINDOW, head_dim=16)


def model_with(architecture, layers: int):
    model = create_model(architecture.model_copy(update={"num_hidden_layers": layers}), vocab_size=512, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 512, (2, LENGTH), generator=torch.Generator().manual_seed(3))


def rotated(x: torch.Tensor, position: torch.Tensor, rope) -> torch.Tensor:
    """Each pair (d, d + D/2) of x, (…, n, D), turned by position·θ_d and stretched by the attention factor."""
    angle = position[:, None] * rope.inv_freq()
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return rope.attention_factor * torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


@torch.no_grad()
def row_by_row(model, rope, ids: torch.Tensor) -> torch.Tensor:
    """Row-wise recomputation as defined, from the model's weights, one document and one row after the other."""
    documents = []
    for tokens in ids:
        x = model.model.embed_tokens(tokens)
        for layer in model.model.layers:
            attention, y = layer.self_attn, layer.input_layernorm(x)
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            q, k, v = (projection(y).view(len(y), -1, 16).transpose(0, 1) for projection in projections)
            k, v = (z.expand(q.shape[0], -1, -1) for z in (k, v))  # one key head for all query heads
            rows = []
            for i in range(len(tokens)):
                at, positions = rope.at(i + 1), torch.arange(i + 1).float()
                query = rotated(q[:, i : i + 1], positions[i:], at)
                scores = query @ rotated(k[:, : i + 1], positions, at).transpose(1, 2) / 16**0.5
                rows.append((scores.softmax(-1) @ v[:, : i + 1]).flatten())
            x = x + attention.o_proj(torch.stack(rows))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        documents.append(model.lm_head(model.model.norm(x)))
    return torch.stack(documents)


@torch.no_grad()
def one_pass(model, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


def at_each_length(model, rope, ids: torch.Tensor) -> torch.Tensor:
    """One-scale recomputation: the last row of an ordinary pass over the first 1, 2, … tokens."""
    set_rope(model, rope)
    return torch.stack([one_pass(model, ids[:, :n])[:, -1] for n in range(1, ids.shape[1] + 1)], dim=1)


def parallel(model, rope, ids: torch.Tensor, cache: str) -> torch.Tensor:
    with key_cache(model, rope, cache, row_wise=True):
        return one_pass(model, ids)


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_cache_before_rotation_equals_row_wise_recomputation(tiny_model, ids, method):
    """Decoded token by token, and in one parallel pass: to NEAR on logits of spread > 1, at every length to 2.3 L,
    with two layers, grouped heads and two documents."""
    rope = rope_for(method)
    expected = row_by_row(tiny_model, rope, ids)
    assert expected.std() > 1
    assert (logits_of_every_step(tiny_model, rope, ids) - expected).abs().max() < NEAR
    assert (parallel(tiny_model, rope, ids, "pre-rope") - expected).abs().max() < NEAR


@pytest.mark.parametrize("method", DYNAMIC)
def test_with_one_layer_it_equals_an_ordinary_pass_at_every_length(architecture, ids, method):
    """There nothing but keys and values of the embeddings is cached. With two layers it differs beyond L, and there
    alone: the hidden states below the second layer were made at earlier scales."""
    rope, ids = rope_for(method), ids[:1, :100]
    shallow, deep = (model_with(architecture, layers) for layers in (1, 2))
    for model in (shallow, deep):
        use_fast_attention(model)
    difference = [
        (logits_of_every_step(model, rope, ids) - at_each_length(model, rope, ids)).abs().amax((0, 2))
        for model in (shallow, deep)
    ]
    assert difference[0].max() < NEAR
    assert difference[1][:WINDOW].max() < NEAR < 1e-2 < difference[1][WINDOW + 10 :].min()


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_cache_after_rotation_is_what_transformers_does_and_wrong_beyond_the_window(tiny_model, ids, method):
    """Stock decoding with rotated keys equals our one parallel pass; it equals the right cache up to L only."""
    rope = rope_for(method)
    right = logits_of_every_step(tiny_model, rope, ids)
    set_rope(tiny_model, rope)
    tiny_model.set_attn_implementation("sdpa")
    past, stock = None, []
    with torch.no_grad():
        for token in ids.split(1, dim=1):
            out = tiny_model(input_ids=token, past_key_values=past, use_cache=True)
            past = out.past_key_values
            stock.append(out.logits)
    stock = torch.cat(stock, dim=1)
    assert (logits_of_every_step(tiny_model, rope, ids, "post-rope") - stock).abs().max() < NEAR
    assert (parallel(tiny_model, rope, ids, "post-rope") - stock).abs().max() < NEAR
    cost = (stock - right).abs().amax((0, 2))
    assert cost[:WINDOW].max() < NEAR < 1e-2 < cost[WINDOW + 10 :].min()


@pytest.mark.parametrize("cache", ["pre-rope", "post-rope"])
@pytest.mark.parametrize("method", ["none", "pi", "yarn"])
def test_a_static_rope_may_be_cached_either_way(tiny_model, ids, method, cache):
    """Both caches, with a prompt read at once or not, equal one ordinary pass."""
    rope = rope_for(method, scale=4)
    set_rope(tiny_model, rope)
    expected = one_pass(tiny_model, ids)
    for prompt in (1, 100):
        assert (logits_of_every_step(tiny_model, rope, ids, cache, prompt=prompt) - expected).abs().max() < NEAR


def test_a_prompt_is_at_its_own_length(tiny_model, ids):
    """Read in one pass, 100 tokens are all under the rope at 100 as in an ordinary pass; later chunks see all before
    them and nothing after."""
    rope = rope_for("dynamic-yarn")
    set_rope(tiny_model, rope)
    expected = one_pass(tiny_model, ids[:, :100])
    assert (logits_of_every_step(tiny_model, rope, ids, prompt=100)[:, :100] - expected).abs().max() < NEAR
    static = rope_for("yarn", scale=4)
    set_rope(tiny_model, static)
    whole = one_pass(tiny_model, ids)
    with key_cache(tiny_model, static), torch.no_grad():
        first = tiny_model(input_ids=ids[:, :40], use_cache=True)
        second = tiny_model(input_ids=ids[:, 40:], past_key_values=first.past_key_values, use_cache=True)
    assert (torch.cat([first.logits, second.logits], 1) - whole).abs().max() < NEAR


def test_generation_continues_as_recomputation_does(tiny_model, ids):
    """From a prompt within L to twice L: each new token is the first choice of row-wise recomputation, and the wrong
    cache chooses others."""
    rope, prompt = rope_for("dynamic-yarn"), ids[:, :50]
    new = generate(tiny_model, rope, prompt, 78)
    assert new.shape == (2, 78)
    whole = torch.cat([prompt, new], dim=1)
    assert torch.equal(row_by_row(tiny_model, rope, whole)[:, 49:-1].argmax(-1), new)
    assert not torch.equal(generate(tiny_model, rope, prompt, 78, "post-rope"), new)


def test_generation_takes_transformers_options(tiny_model, ids):
    rope = rope_for("dynamic-yarn")
    stop = int(generate(tiny_model, rope, ids[:1, :50], 5)[0, 2])
    stopped = generate(tiny_model, rope, ids[:1, :50], 5, eos_token_id=stop)
    assert stopped.shape[1] <= 3 and stopped[0, -1] == stop


def test_the_model_is_as_before_afterwards(tiny_model, ids):
    """Rope, attention and so logits: also when the block fails, and with another rope in the block before."""
    set_rope(tiny_model, rope_for("yarn", scale=4))
    use_fast_attention(tiny_model)
    before = one_pass(tiny_model, ids)
    logits_of_every_step(tiny_model, rope_for("dynamic-pi"), ids[:, :70])
    with pytest.raises(RuntimeError, match="stop"), key_cache(tiny_model, rope_for("dynamic-ntk")):
        raise RuntimeError("stop")
    assert torch.equal(one_pass(tiny_model, ids), before)


def test_what_it_cannot_do_is_refused(tiny_model, ids):
    rope = rope_for("dynamic-yarn")
    with pytest.raises(ValueError, match="pre-rope, post-rope, got 'late'"), key_cache(tiny_model, rope, "late"):
        pass
    padded = torch.ones_like(ids)
    padded[0, :5] = 0
    with key_cache(tiny_model, rope), pytest.raises(ValueError, match="unpadded"):
        tiny_model(input_ids=ids, attention_mask=padded)
    for layer in tiny_model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: (args, kwargs | {"sliding_window": 32}), with_kwargs=True
        )
    with key_cache(tiny_model, rope), pytest.raises(ValueError, match="sliding window"):
        tiny_model(input_ids=ids)
