"""Per-token negative log-likelihood of a sequence in one forward pass, without holding all logits at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGIT_CHUNK = 1024  # positions whose logits exist at once: 128 MiB in fp32 for a vocabulary of 32,000


class EvaluationError(ValueError):
    """An evaluation that cannot give a meaningful number; the message says why and what to do."""


@torch.inference_mode()
def token_nll(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """NLL in nats of ids[1:] given what precedes each: float32, shape (len(ids) − 1,).

    The hidden states are those of the caller's autocast; log-softmax and the loss are in fp32.
    Raises EvaluationError if a value is not finite.
    """
    inputs = torch.from_numpy(ids.astype(np.int64))
    hidden = model.model(input_ids=inputs[None, :-1], use_cache=False)[0][0]
    parts = []
    for first in range(0, len(hidden), LOGIT_CHUNK):
        logits = model.lm_head(hidden[first : first + LOGIT_CHUNK]).float()
        targets = inputs[first + 1 : first + 1 + len(logits)]
        parts.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    nll = torch.cat(parts).numpy()
    if not np.isfinite(nll).all():
        raise EvaluationError(
            f"the model's loss is not finite from token {int(np.argmin(np.isfinite(nll)))} on: "
            "its weights or rope are broken"
        )
    return nll


def cumulative_and_bucket_means(nll: np.ndarray, lengths: tuple[int, ...]) -> list[dict[str, float | int]]:
    """For each length N: the mean NLL of positions 1 … N−1 (what the paper's table prints, in nats), and that of
    the targets at positions from the previous length on (which the cumulative mean hides). Sums are in fp64.

    Args:
        nll: NLL of positions 1, 2, …, so nll[i] belongs to position i + 1.
        lengths: ascending.
    """
    total = np.concatenate([[0.0], np.cumsum(nll, dtype=np.float64)])  # total[p] = sum over positions 1 … p
    rows, previous = [], 1
    for length in lengths:
        last = length - 1
        rows.append(
            {
                "length": length,
                "tokens": last,
                "nll": total[last] / last,
                "bucket_start": previous,
                "bucket_nll": (total[last] - total[previous - 1]) / (last - previous + 1),
            }
        )
        previous = length
    return rows
