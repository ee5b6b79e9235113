"""Token by token under a key cache: what the library's passes over whole sequences must agree with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yarnlab.generation import key_cache
from yarnlab.rope import Rope

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def generate(
    model: PreTrainedModel, rope: Rope, ids: Tensor, new_tokens: int, cache: str = "pre-rope", **options: Any
) -> Tensor:
    """Continue `ids` (batch, prompt length) greedily; returns the new tokens alone, (batch, new_tokens) or fewer if
    all ended with the model's EOS.

    options: transformers' `generate`'s own, such as do_sample or eos_token_id.
    """
    decoder: Any = model
    ids = ids.to(model.device)
    with key_cache(model, rope, cache):
        out = decoder.generate(
            ids,
            **{"attention_mask": torch.ones_like(ids), "pad_token_id": model.config.eos_token_id, "do_sample": False}
            | options,
            max_new_tokens=new_tokens,
            use_cache=True,
        )
    return out[:, ids.shape[1] :]


@torch.inference_mode()
def logits_of_every_step(
    model: PreTrainedModel, rope: Rope, ids: Tensor, cache: str = "pre-rope", *, prompt: int = 1
) -> Tensor:
    """Decode with the tokens given: the first `prompt` in one pass, the others one by one.

    Decoding in its plainest form: the row-wise pass of the `key_cache` evaluation is held against it, and both caches
    against recomputation.

    Args:
        ids: (batch, seq_len) token ids.

    Returns the logits that follow each token: (batch, seq_len, vocabulary), in the dtype of the forward pass.
    """
    past, parts = None, []
    with key_cache(model, rope, cache):
        for chunk in ids.to(model.device).split([prompt] + [1] * (ids.shape[1] - prompt), dim=1):
            out = model(input_ids=chunk, past_key_values=past, use_cache=True)
            past = out.past_key_values
            parts.append(out.logits)
    return torch.cat(parts, dim=1)
