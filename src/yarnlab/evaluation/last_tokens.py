"""Logits of a sequence's last positions, without those of any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnlab.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def last_logits(model: PreTrainedModel, ids: Tensor, count: int) -> Tensor:
    """Logits of the last `count` positions: fp32, (batch, count, vocab), on the device of `ids`, with the caller's
    autocast.

    Args:
        model: a causal model, as for `hidden_states`.
        ids: (batch, seq_len) token ids, without padding, on any device.

    Raises ValueError for a `count` that isn't within 1 … seq_len.
    """
    from yarnlab.families.hidden_states import hidden_states
    from yarnlab.families.logits import logits_of

    if not 1 <= count <= ids.shape[1]:
        raise ValueError(f"count must be 1 to {ids.shape[1]}, the sequence's length, got {count}")
    with torch.inference_mode():
        return logits_of(model, hidden_states(model, ids.to(model.device), count)).float().to(ids.device)
