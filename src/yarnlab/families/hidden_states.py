"""Hidden states of a whole sequence, without computing what no one reads or holding what no one needs at once.

What a layer does token by token (norms, projections, rotation, MLP) is done on CPUs for a piece of the sequence at a
time: at 16,384 tokens each step of it would go through 40 to 100 MB otherwise, which no cache holds, and memory that is
touched for the first time costs more than the arithmetic. Attention alone sees all positions, so the numbers are those
of the whole pass.

Earlier positions reach the last ones through keys and values alone. So where only the last positions are asked for,
the last layer needs keys and values of every position, but queries, output projection and MLP of those few; for a model
of n layers this saves up to 1/n of the pass, exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from yarnlab.families.parts import decoder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FAMILIES = ("llama", "mistral", "qwen2")  # whose layers do what `_projected` and `_finish` do, and no more
PIECE = 1024  # tokens on a CPU, all rows of a batch together; 512 to 2,048 are within 2 % of each other


def hidden_states(model: PreTrainedModel, ids: Tensor, count: int | None = None) -> Tensor:
    """Final hidden states of the last `count` positions (None: all), after the final norm: (batch, count, hidden_size).

    To be called in inference mode; the caller's autocast holds. Models of other families than FAMILIES, or with a
    sliding window, run as their own code has it.

    Args:
        model: a causal model; layers run with the attention chosen for it.
        ids: (batch, seq_len) token ids, without padding, on the model's device.
    """
    count = ids.shape[1] if count is None else count
    if not _is_known(model.config):
        last: Tensor = decoder(model)(input_ids=ids, use_cache=False)[0][:, -count:]
        return last
    return _of_layers(decoder(model), ids, count)


def _is_known(config: Any) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    full = kinds == {"full_attention"} and getattr(config, "sliding_window", None) is None
    return config.model_type in FAMILIES and full


def _of_layers(decoder: Any, ids: Tensor, count: int) -> Tensor:
    import torch
    from transformers.masking_utils import create_causal_mask

    hidden = decoder.embed_tokens(ids)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    rotation = decoder.rotary_emb(hidden, position_ids=positions)
    mask = create_causal_mask(
        config=decoder.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None, position_ids=positions
    )
    pruned = count < ids.shape[1]
    for layer in decoder.layers[:-1] if pruned else decoder.layers:
        attended = _attend(layer.self_attn, _projected(layer, hidden, rotation), mask)
        for piece in _pieces(hidden):
            _finish(layer, hidden[:, piece], attended[:, piece])
    if pruned:
        attended = _attend_last(decoder.layers[-1], hidden, rotation, count)
        hidden = hidden[:, -count:]
        _finish(decoder.layers[-1], hidden, attended)
    return decoder.norm(hidden)


def _pieces(hidden: Tensor) -> list[slice]:
    """Parts of the sequence that are worked on at a time: all of it on a GPU."""
    length = hidden.shape[1]
    size = max(1, PIECE // len(hidden)) if hidden.device.type == "cpu" else length
    return [slice(first, first + size) for first in range(0, length, size)]


def _projected(layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Rotated queries and keys, and values, of all positions: (batch, heads, seq_len, head_dim) each."""
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    attention, (cos, sin) = layer.self_attn, rotation
    parts = []
    for piece in _pieces(hidden):
        normed = layer.input_layernorm(hidden[:, piece])
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (_heads(projection(normed), attention.head_dim) for projection in projections)
        parts.append((*apply_rotary_pos_emb(query, key, cos[:, piece], sin[:, piece]), value))
    return [torch.cat(part, 2) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)]


def _attend(attention: Any, projected: list[Tensor], mask: Any) -> Tensor:
    """The model's attention over the whole sequence, (batch, seq_len, hidden_size) before its output projection."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.llama.modeling_llama import eager_attention_forward

    name = attention.config._attn_implementation
    kernel = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
    out: Tensor = kernel(attention, *projected, mask, dropout=0.0, scaling=attention.scaling)[0]
    return out.flatten(2)


def _attend_last(layer: Any, hidden: Tensor, rotation: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Attention of the last `count` queries to the keys of all positions, (batch, count, hidden_size)."""
    import torch

    attention, (cos, sin) = layer.self_attn, (table[:, None] for table in rotation)  # one for all heads
    normed = layer.input_layernorm(hidden)
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
    return out.transpose(1, 2).flatten(2)


def _finish(layer: Any, hidden: Tensor, attended: Tensor) -> None:
    """The rest of a layer after attention, added to `hidden`, (batch, positions, hidden_size), in its place."""
    hidden += layer.self_attn.o_proj(attended)
    hidden += layer.mlp(layer.post_attention_layernorm(hidden))


def _heads(projected: Tensor, head_dim: int) -> Tensor:
    """(batch, seq_len, heads·head_dim) → (batch, heads, seq_len, head_dim)."""
    return projected.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    from transformers.models.llama.modeling_llama import rotate_half

    return x * cos + rotate_half(x) * sin
