"""Logits of a sequence's last positions without computing what no one reads.

Earlier positions reach the last ones through keys and values alone. So the last decoder layer needs keys and values of
every position, but queries, output projection and MLP of the last few only; norm and lm_head likewise. For a model of
n layers this saves up to 1/n of the forward pass, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yarnlab.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2")  # whose layers do what `_last_layer` does, and no more


def last_logits(model: PreTrainedModel, ids: Tensor, count: int) -> Tensor:
    """Logits of the last `count` positions: fp32, (batch, count, vocab), on the device of `ids`, with the caller's
    autocast.

    Models of other families, or with a sliding window, run all of their last layer; their head sees `count` positions.

    Args:
        model: a causal model; the layers below the last run with the attention chosen for it.
        ids: (batch, seq_len) token ids, without padding, on any device.

    Raises ValueError for a `count` that isn't within 1 … seq_len.
    """
    from yarnlab.families.logits import logits_of
    from yarnlab.families.parts import decoder

    if not 1 <= count <= ids.shape[1]:
        raise ValueError(f"count must be 1 to {ids.shape[1]}, the sequence's length, got {count}")
    inputs = ids.to(model.device)
    with torch.inference_mode():
        if _is_prunable(model.config):
            hidden = _pruned(model.model, inputs, count)
        else:
            hidden = decoder(model)(input_ids=inputs, use_cache=False)[0][:, -count:]
        return logits_of(model, hidden).float().to(ids.device)


def _is_prunable(config: Any) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    full = kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None
    return config.model_type in FAMILIES and full


def _pruned(decoder: Any, ids: Tensor, count: int) -> Tensor:
    """Final hidden states of the last `count` positions, (batch, count, hidden_size)."""
    from transformers.masking_utils import create_causal_mask

    hidden = decoder.embed_tokens(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    rotation = decoder.rotary_emb(hidden, position_ids=positions)
    mask = create_causal_mask(
        config=decoder.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None, position_ids=positions
    )
    for layer in decoder.layers[:-1]:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotation)
    return decoder.norm(_last_layer(decoder.layers[-1], hidden, rotation, count))


def _last_layer(layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor], count: int) -> Tensor:
    """The layer's output at the last `count` positions, (batch, count, hidden_size)."""
    residual, normed = hidden[:, -count:], layer.input_layernorm(hidden)
    residual = residual + _last_attention(layer.self_attn, normed, rotation, count)
    return residual + layer.mlp(layer.post_attention_layernorm(residual))


def _last_attention(attention: Any, normed: Tensor, rotation: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Attention of the last `count` queries to the keys of all positions, (batch, count, hidden_size)."""
    cos, sin = (table[:, None] for table in rotation)  # one for all heads
    query = _rotate(
        _heads(attention.q_proj(normed[:, -count:]), attention.head_dim), cos[:, :, -count:], sin[:, :, -count:]
    )
    key = _rotate(_heads(attention.k_proj(normed), attention.head_dim), cos, sin)
    value = _heads(attention.v_proj(normed), attention.head_dim)
    length = normed.shape[1]
    seen = torch.ones(count, length, dtype=torch.bool, device=normed.device).tril(length - count)
    # Repeated, since CUDA's fused kernels take either a mask or shared heads, and the plain one would compute in fp32.
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=attention.scaling)
    return attention.o_proj(out.transpose(1, 2).flatten(2))


def _heads(projected: Tensor, head_dim: int) -> Tensor:
    """(batch, seq_len, heads·head_dim) → (batch, heads, seq_len, head_dim)."""
    return projected.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    from transformers.models.llama.modeling_llama import rotate_half

    return x * cos + rotate_half(x) * sin
