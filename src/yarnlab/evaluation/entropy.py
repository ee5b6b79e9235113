"""attention-entropy@2: how spread out the attention is, by layer and head, under each method and scale.

The paper explains its temperature by the entropy of the attention, which interpolation is said to raise (§3.4), and
does not measure it. Here each query's weights are seen inside the attention itself, block by block, so that no
seq_len² matrix of a whole layer has to exist.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from yarnlab.evaluation.base import STATIC, Cell, Evaluation, Outcome, Passes, Rows, Task
from yarnlab.evaluation.documents import EvaluationError, prefixes, texts_of
from yarnlab.lazy import np, torch
from yarnlab.study.fields import Distinct, KeyPath, Positive, Problem, Scales

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

NAME = "yarnlab_entropy"
SCORES = 2**26  # attention scores that exist at once on a GPU: 256 MiB in fp32
CACHED = 2**22  # on a CPU: 16 MiB, which a cache holds; four times as fast as 2**26


class Entropy(Evaluation):
    """Mean entropy of the attention weights by layer and head within the original context, by method and scale."""

    kind = "entropy"
    order = 9
    PROTOCOL = "attention-entropy@2"
    SWEEPS = "methods"
    COLUMNS = "corpus method scale document layer head length entropy normalised_entropy"

    methods: Annotated[Distinct[str], STATIC]
    """Static methods that take the place of the model's own; plain RoPE is always measured."""
    scales: Scales
    """Scales at which each method is run."""
    length: int = Field(ge=2)
    """Tokens of a text, BOS included, within the original context."""
    texts: Positive = 1
    """Texts that are read of each document, one after another from its beginning: the first tokens of files are of a
    kind of their own."""
    documents: Positive | None = None
    """How many of the corpus's documents are read, from the first on; without it all of them."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("texts",) if self.texts > 1 else ("length",), self._read

    def check(self, study: Study, arm: str) -> Iterator[Problem]:
        window = study.architecture(arm).original_context
        if self.length > window:
            yield ("length",), f"{self.length} is longer than the original context of {arm}, {window} tokens"

    def cost(self, study: Study, arm: str) -> Passes:
        heads = study.architecture(arm).num_attention_heads
        runs = self.documents_read(study, arm) * self.texts * len(self._cells())
        scores = min(SCORES, heads * self.length**2) * 4 * 3  # scores, their softmax, p·ln p
        return Passes([(runs, self.length)], self.length, 0, scores=float(scores))

    def evaluate(self, task: Task) -> Outcome:
        """One row per method, scale, document, layer and head: the mean over the document's texts. Plain RoPE at scale
        1 comes first, as the reference.

        The forward pass is in the declared precision; scores, softmax and entropy are always in fp32.

        Raises EvaluationError if `length` exceeds a document, or an entropy is not finite.
        """
        documents = prefixes(task.corpus, self._read, self.documents, task.model.config.vocab_size)
        texts = list(zip(task.corpus.names[: len(documents)], documents, strict=True))
        cells = [
            Cell(f"{method}-{scale:g}-{i}", 1, partial(self._rows, task, method, scale, *text))
            for method, scale in self._cells()
            for i, text in enumerate(texts)
        ]
        table = task.table(cells, "document")
        means = table.groupby(["method", "scale"], sort=False, as_index=False)["entropy"].mean()
        named = {f"entropy/{row.method}/{row.scale:g}": float(row.entropy) for row in means.itertuples()}
        return Outcome(table, named)

    def _rows(self, task: Task, method: str, scale: float, name: str, ids: np.ndarray, progress: Progress) -> Rows:
        """One row per layer and head."""
        from yarnlab.modeling import autocast, set_rope

        set_rope(task.model, task.make_rope(method, scale))
        with autocast(self.precision):
            texts = [attention_entropy(task.model, text) for text in texts_of(ids, self.length)]
        entropy = np.mean(texts, axis=0)
        if not np.isfinite(entropy).all():
            raise EvaluationError(f"attention of {method} at scale {scale:g} is not finite: the weights are broken")
        progress.advance(note=f"{method}, {name}")
        labels = task.labels(corpus=self.corpus, method=method, scale=scale, document=name)
        return [{**labels, **row, "protocol": self.PROTOCOL} for row in head_means(entropy)]

    @property
    def _read(self) -> int:
        """Tokens that are read of each document, BOS included."""
        return 1 + self.texts * (self.length - 1)

    def _cells(self) -> list[tuple[str, float]]:
        """(method, scale) of every run."""
        methods = [method for method in self.methods if method != "none"]
        return [("none", 1.0), *((method, scale) for method in methods for scale in self.scales)]


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


def attention_entropy(model: PreTrainedModel, ids: np.ndarray) -> np.ndarray:
    """Entropy in nats of the attention weights of every query: float32, (layers, heads, len(ids)).

    The model's attention implementation is exchanged for the pass and put back, whatever happens.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    from yarnlab.families.parts import decoder

    AttentionInterface.register(NAME, recording_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    inputs = torch.from_numpy(ids.astype("int64")).to(model.device)
    record: list[Tensor] = []
    usual = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        with torch.inference_mode():
            decoder(model)(input_ids=inputs[None], use_cache=False, record=record)
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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
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
    if softcap is not None or s_aux is not None:
        raise EvaluationError(f"{NAME} knows no attention sinks and no soft-capped scores")
    if attention_mask is not None or batch != 1 or key.shape[2] != length or 0 < (sliding_window or 0) < length:
        raise EvaluationError(f"{NAME} attends causally over one whole, unpadded sequence without a sliding window")
    groups = heads // key.shape[1]
    entropy = torch.empty(heads, length, device=query.device)
    out = torch.empty(length, heads, value.shape[-1], dtype=query.dtype, device=query.device)
    block = max(1, (CACHED if query.device.type == "cpu" else SCORES) // (heads * length))
    with torch.autocast(query.device.type, enabled=False):  # it would turn the scores into bf16
        q = query[0].float() * (scaling or dim**-0.5)
        k, v = (t[0].float().repeat_interleave(groups, 0) for t in (key, value))
        for first in range(0, length, block):
            last = min(length, first + block)
            scores = q[:, first:last] @ k[:, :last].transpose(1, 2)
            future = torch.ones(last - first, last - first, dtype=torch.bool, device=q.device).triu(1)
            scores[..., first:].masked_fill_(future, -torch.inf)
            p = scores.softmax(-1)
            entropy[:, first:last] = torch.special.entr(p).sum(-1)
            out[first:last] = (p @ v[:, :last]).transpose(0, 1)
    record.append(entropy)
    return out[None], None
