"""attention-entropy@1: how spread out the attention is, by layer and head, under each method and scale.

The paper explains its temperature by the entropy of the attention, which interpolation is said to raise (§3.4), and
does not measure it. Here each query's weights are seen inside the attention itself, block by block, so that no
seq_len² matrix of a whole layer has to exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from yarnlab.evaluation.documents import EvaluationError, prefixes
from yarnlab.evaluation.task import Outcome, Task
from yarnlab.modeling import autocast, set_rope
from yarnlab.study.schema import RopeChoice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROTOCOL = "attention-entropy@1"
NAME = "yarnlab_entropy"
SCORES = 2**26  # attention scores that exist at once: 256 MiB in fp32


def evaluate(task: Task) -> Outcome:
    """One row per method, scale, document, layer and head. Plain RoPE at scale 1 comes first, as the reference.

    The forward pass is in the declared precision; scores, softmax and entropy are always in fp32. The reference leaves
    its own context where `length` exceeds it, which is allowed: then it is a reference no more.

    Raises EvaluationError if `length` exceeds a scale's context or a document, or an entropy is not finite.
    """
    import pandas as pd

    settings = task.settings
    cells = [("none", 1.0)]
    cells += [
        (method, float(scale)) for method in settings["methods"] if method != "none" for scale in settings["scales"]
    ]
    documents = prefixes(task.corpus, _checked_length(task), None, task.model.config.vocab_size)
    progress = task.progress(len(cells) * len(documents), "document")
    columns = {key: task.columns[key] for key in ("model", "arm", "seed")} | {"corpus": settings["corpus"]}
    rows, metrics = [], {}
    for method, scale in cells:
        set_rope(task.model, RopeChoice(method=method, scale=scale).make(task.architecture))
        means = []
        for name, ids in zip(task.corpus.names, documents, strict=True):
            with autocast(settings["precision"]):
                entropy = attention_entropy(task.model, ids)
            if not np.isfinite(entropy).all():
                raise EvaluationError(f"attention of {method} at scale {scale:g} is not finite: the weights are broken")
            labels = {**columns, "method": method, "scale": scale, "document": name}
            rows += [{**labels, **row, "protocol": PROTOCOL} for row in head_means(entropy)]
            means.append(float(entropy.mean(dtype=np.float64)))
            progress.advance(note=name)
        metrics[f"entropy/{method}/{scale:g}"] = float(np.mean(means))
    return Outcome(pd.DataFrame(rows), metrics)


def head_means(entropy: np.ndarray) -> list[dict[str, float | int]]:
    """Means over query positions for each layer and head.

    Args:
        entropy: as from `attention_entropy`. Position i sees i + 1 keys, so its entropy is at most ln(i + 1);
            `normalised_entropy` is the mean of entropy / ln(i + 1) over i >= 1, 1 for uniform attention.
    """
    layers, heads, length = entropy.shape
    exact = entropy.astype(np.float64)
    mean = exact.mean(-1)
    normalised = (exact[..., 1:] / np.log(np.arange(2, length + 1))).mean(-1)
    return [
        {
            "layer": layer,
            "head": head,
            "length": length,
            "entropy": float(mean[layer, head]),
            "normalised_entropy": float(normalised[layer, head]),
        }
        for layer in range(layers)
        for head in range(heads)
    ]


@torch.inference_mode()
def attention_entropy(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Entropy in nats of the attention weights of every query: float32, (layers, heads, len(ids)).

    The model's attention implementation is exchanged for the pass and put back, whatever happens.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, recording_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    inputs = torch.from_numpy(ids.astype(np.int64)).to(model.device)
    record: list[Tensor] = []
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        model.model(input_ids=inputs[None], use_cache=False, record=record)
    finally:
        model.set_attn_implementation(usual)
    return torch.stack(record).cpu().numpy()


def recording_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    record: list[Tensor],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of one whole sequence, in transformers' interface; appends its entropies to `record`.

    Args:
        query, key, value: (1, heads, seq_len, head_dim), rotated; fewer key and value heads are shared in groups.
        record: gets one (heads, seq_len) float32 tensor per layer, in the order in which layers run.

    Returns (1, seq_len, heads, head_dim) in the query's dtype. Raises EvaluationError for a mask, a batch, a cache, or
    a sliding window that the sequence exceeds: the visible keys would not be all those before a query.
    """
    batch, heads, length, dim = query.shape
    if attention_mask is not None or batch != 1 or key.shape[2] != length or 0 < (sliding_window or 0) < length:
        raise EvaluationError(f"{NAME} attends causally over one whole, unpadded sequence without a sliding window")
    groups = heads // key.shape[1]
    entropy = torch.empty(heads, length, device=query.device)
    out = torch.empty(length, heads, dim, dtype=query.dtype, device=query.device)
    block = max(1, SCORES // (heads * length))
    with torch.autocast(query.device.type, enabled=False):  # it would turn the scores into bf16
        q = query[0].float() * (scaling or dim**-0.5)
        k, v = (t[0].float().repeat_interleave(groups, 0) for t in (key, value))
        for first in range(0, length, block):
            last = min(length, first + block)
            scores = q[:, first:last] @ k[:, :last].transpose(1, 2)
            future = torch.ones(last - first, last, dtype=torch.bool, device=q.device).triu(first + 1)
            p = scores.masked_fill_(future, -torch.inf).softmax(-1)
            entropy[:, first:last] = torch.special.entr(p).sum(-1)
            out[first:last] = (p @ v[:, :last]).transpose(0, 1)
    record.append(entropy)
    return out[None], None


def _checked_length(task: Task) -> int:
    """The declared length; EvaluationError if it is beyond the smallest scale's context."""
    length: int = task.settings["length"]
    context = round(min(task.settings["scales"]) * task.architecture.original_context)
    if length > context:
        raise EvaluationError(
            f"entropy at {length} tokens is asked for, the smallest scale's context has {context}: "
            "lower `length` or leave that scale out"
        )
    return length
