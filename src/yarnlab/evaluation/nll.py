"""Per-token negative log-likelihood in one forward pass, without holding all logits at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnlab.evaluation.documents import EvaluationError
from yarnlab.lazy import np, torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOKENS_PER_BATCH = 8192  # of short inputs that are run together; a longer one is a batch by itself
LOGIT_CHUNK = 1024  # positions whose logits exist at once: 128 MiB in fp32 for a vocabulary of 32,000


def token_nll(model: PreTrainedModel, ids: np.ndarray, last: int | None = None) -> np.ndarray:
    """NLL in nats of ids[:, 1:] given what precedes each, or of the `last` tokens of each row: float32, (rows, tokens).

    The hidden states are those of the caller's autocast. Raises EvaluationError if a value is not finite.
    """
    from yarnlab.families.hidden_states import hidden_states

    inputs = torch.from_numpy(ids.astype("int64")).to(model.device)
    count = inputs.shape[1] - 1 if last is None else last
    with torch.inference_mode():
        hidden = hidden_states(model, inputs[:, :-1])[:, -count:]
        nll = target_nll(model, hidden, inputs[:, -count:])
    if not nll.isfinite().all():
        first = int((~nll.isfinite()).any(0).int().argmax())
        raise EvaluationError(
            f"the model's loss is not finite from token {inputs.shape[1] - 1 - count + first} on: "
            "its weights or rope are broken"
        )
    return nll.cpu().numpy()


def rows_together(length: int) -> int:
    """Rows of so many tokens that are run together."""
    return max(1, TOKENS_PER_BATCH // length)


def batched_nll(model: PreTrainedModel, rows: np.ndarray, last: int | None = None) -> np.ndarray:
    """`token_nll` of many short rows, as many at once as run together."""
    size = rows_together(rows.shape[1])
    return np.concatenate([token_nll(model, rows[first : first + size], last) for first in range(0, len(rows), size)])


def target_nll(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """NLL of `targets` (rows, tokens) given the hidden states that predict them: fp32, the same shape.

    Logits exist for LOGIT_CHUNK positions at once; log-softmax and the loss are in fp32.
    """
    from yarnlab.families.logits import logits_of

    # Written into one tensor: a small result that stays between large blocks keeps malloc from using their place again,
    # and the process grows by hundreds of megabytes with each chunk.
    nll = torch.empty(targets.shape, device=targets.device)
    chunks = (part.split(LOGIT_CHUNK) for part in (hidden.flatten(0, 1), targets.flatten(), nll.view(-1)))
    for h, t, out in zip(*chunks, strict=True):
        out.copy_(torch.nn.functional.cross_entropy(logits_of(model, h).float(), t, reduction="none"))
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
