"""Decoding with a key cache under a rope that changes with the length.

Dynamic scaling rotates *every* key anew whenever the input grows past the original context L (paper §3.3), so a cache
must hold keys as they were before the rotation. Four computations are told apart here. Row i is the computation that
predicts token i + 1 from tokens 0 … i; its length is i + 1.

- `pre-rope` decoding: keys are cached unrotated; each step rotates its query and all keys by the rope at its length.
- Row-wise recomputation: one pass without a cache in which row i rotates its query and all its keys by the rope at
  length i + 1. It is `pre-rope` decoding in another order of additions.
- One-scale recomputation: an ordinary forward pass for each length, every row under the rope at that length. With one
  layer its last row is that of `pre-rope` decoding. With more layers it is not, beyond L: a cache, whatever it holds,
  keeps what deeper layers derived from earlier rows, and these were computed under the ropes then in force.
- `post-rope` decoding: keys are cached rotated, as transformers and the official code do
  (modeling_llama_together_yarn.py:520-535). Old keys keep their old rope: the wrong cache.

Up to L, and for a static rope at any length, all four are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from yarnlab.attention import masked
from yarnlab.families.parts import UnsupportedModel, decoder
from yarnlab.families.rotary import Form, RotaryEmbedding
from yarnlab.modeling import set_rope

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.rope import Rope

CACHES = ("pre-rope", "post-rope")
NAME = "yarnlab_rotate_late"


@contextmanager
def key_cache(model: PreTrainedModel, rope: Rope, cache: str = "pre-rope", *, row_wise: bool = False) -> Iterator[None]:
    """Within the block `model` uses `rope`, and every cache of its keys is of the kind `cache`.

    A forward pass puts its tokens under one rope, that of the length it reaches: a prompt read in one pass is all at
    its own length, each step after it at the next. With `row_wise`, row i is under the rope at length i + 1, so that
    one pass over a sequence gives what decoding it token by token gives.

    Works for decoders with `model.rotary_emb` and transformers' attention interface (Llama and its kin), also through
    transformers' `generate`. Sequences must be unpadded. The model's rope and attention are put back at the end.

    Raises ValueError for an unknown cache and, in a forward pass, for padding or a sliding window shorter than the
    input.
    """
    if cache not in CACHES:
        raise ValueError(f"cache must be one of {', '.join(CACHES)}, got {cache!r}")
    base = decoder(model)
    rotary, attention = base.rotary_emb, model.config._attn_implementation
    set_rope(model, rope)
    if cache == "pre-rope":
        _check_can_rotate_late(model, rope)
        base.rotary_emb = _Unrotated()
        for layer in base.layers:
            layer.self_attn.late_rope, layer.self_attn.row_wise = rope, row_wise
    elif row_wise:
        base.rotary_emb = _RowWise(rope, base.rotary_emb.form)
    model.set_attn_implementation(_register() if cache == "pre-rope" else masked(model))
    try:
        yield
    finally:
        base.rotary_emb = rotary
        model.set_attn_implementation(attention)


def _check_can_rotate_late(model: PreTrainedModel, rope: Rope) -> None:
    """UnsupportedModel unless attention rotates whole heads as Llama's does, and does nothing else to the scores."""
    attention = decoder(model).layers[0].self_attn
    whole = getattr(attention, "head_dim", None) == rope.head_dim
    form: Form = decoder(model).rotary_emb.form
    if not whole or form.columns is not None or form.as_complex or form.others or not model._supports_sdpa:
        raise UnsupportedModel(
            f"a cache of unrotated keys is not known for family {model.config.model_type}: it rotates otherwise than "
            "Llama's whole heads, or changes the scores of its attention"
        )


class _Unrotated(nn.Module):
    """cos 1 and sin 0: transformers hands queries and keys on, and caches keys, as they were projected."""

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, position_ids.shape[1], 1)  # a position each: families/hidden_states.py takes pieces of them
        return x.new_ones(shape), x.new_zeros(shape)


class _RowWise(RotaryEmbedding):
    """Position i under the rope at length i + 1: what a cache of rotated keys holds after decoding token by token."""

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        rows = position_ids.split(1, dim=1)
        tables: list[Any] = [super(_RowWise, self).forward(x, row, layer_type) for row in rows]  # pairs: checked before
        cos, sin = (torch.cat(table, dim=1) for table in zip(*tables, strict=True))
        return cos, sin


def _attend_and_rotate(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface for unrotated queries (the last ones of the sequence) and keys (all of it).

    (batch, heads, n, head_dim) each → (batch, queries, heads, head_dim). Rows under the same rope go together; under
    a dynamic rope beyond L each row rotates all its keys: O(seq_len² · head_dim), as costly as the attention itself.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    seen = key.shape[2]
    first = seen - query.shape[2]
    if attention_mask is not None or dropout or (sliding_window is not None and sliding_window < seen):
        raise ValueError(f"{NAME} attends causally to the whole input, without mask, dropout or sliding window")
    rope: Any = module.late_rope
    queries, keys, value = _as_complex(query), _as_complex(key), value.to(query.dtype)
    parts = []
    for at, group in groupby(range(first, seen), lambda row: rope.at(row + 1 if module.row_wise else seen)):
        rows = list(group)
        start, stop = rows[0], rows[-1] + 1
        turns = _turns(at, stop, key.device)
        q = _as_real(queries[:, :, start - first : stop - first] * turns[start:], query.dtype)
        k = _as_real(keys[:, :, :stop] * turns, query.dtype)
        # transformers' function is causal by itself when there are as many queries as keys.
        partial = 1 < len(rows) < stop
        mask = torch.ones(len(rows), stop, dtype=torch.bool, device=key.device).tril(start) if partial else None
        with torch.autocast(key.device.type, enabled=False):  # a lone query is several times slower in bf16 on a CPU
            parts.append(sdpa_attention_forward(module, q, k, value[:, :, :stop], mask, scaling=scaling)[0])
    return torch.cat(parts, dim=1), None


def _turns(rope: Rope, length: int, device: torch.device) -> Tensor:
    """√(1/t)·e^(iθ_d m) for positions m < length: complex, (length, head_dim // 2) (paper Eq. 3 and 21)."""
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None] * rope.inv_freq().to(device)
    return torch.polar(torch.full_like(angles, rope.attention_factor), angles)


def _as_complex(x: Tensor) -> Tensor:
    """Pair d of a head as one complex number: (…, head_dim) → (…, head_dim // 2), halves as Llama pairs them."""
    real, imaginary = x.float().chunk(2, dim=-1)
    return torch.complex(real, imaginary)


def _as_real(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Back to head_dim numbers, pairs side by side: another order, the same for queries and keys, so no matter."""
    return torch.view_as_real(x).flatten(-2).to(dtype)


def _no_mask(attention_mask: Tensor | None = None, **_: Any) -> None:
    if attention_mask is not None and not attention_mask.all():
        raise ValueError(f"{NAME} takes unpadded sequences only: decode sequences of different lengths one by one")


def _register() -> str:
    """Make the attention known to transformers under `NAME`; returns the name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attend_and_rotate)
    AttentionMaskInterface.register(NAME, _no_mask)
    return NAME
