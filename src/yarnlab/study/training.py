"""How a model is trained: its rows, who computes them, one phase."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from yarnlab.study.fields import ConfigModel, Name, Positive, Share

KEY_NAMES = 32  # that corpus/passkey.py has for keys in training rows
# Of a phase (as pydantic's include and exclude): how it is computed, not what. None of it makes a model out of date.
EXECUTION: dict[str, Any] = {"checkpoint_minutes": True, "parallel": {"threads", "activation_checkpointing"}}
Weight = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Retrieval(ConfigModel):
    """Rows of text that hide keys and ask for each."""

    share: Share
    """The share of such rows."""
    min_keys: Positive
    """Keys of a row, at least."""
    max_keys: Positive
    """Keys of a row, at most; fewer where not so many fit."""
    asked: Literal["together", "apart"]
    """`together` puts all questions behind one another, at the row's end or, in two rows of five, anywhere before it; a
    row's only key has no name, as in the evaluation, and is asked for twice. `apart` puts every question somewhere
    behind its key; one key has no name and is asked for at the row's end."""
    answer_weight: float = Field(gt=0)
    """How many times an answer's tokens count in the loss."""

    @property
    def most_keys(self) -> int:
        """How many keys a row can hold; of those asked apart, one needs no name."""
        return KEY_NAMES + (self.asked == "apart")


class Repeats(ConfigModel):
    """Rows of one segment, repeated."""

    share: Share
    """The share of such rows."""
    min_segment: Positive
    """Tokens of a segment, at least."""
    max_segment: Positive
    """Tokens of a segment, at most."""
    random: Share
    """The share of segments that are noise; the others are text."""


class Rows(ConfigModel):
    """What training rows are made of; the rest, up to 1, is plain text."""

    text: Literal["spans", "blocks"] = "spans"
    """`spans` cuts rows anywhere, BOS in place of a row's first token; `blocks` takes the corpus's documents or blocks
    as they are, in an order drawn by seed, each once before any twice, cut to seq_len."""
    attention_within: Literal["document"] | None = None
    """`document` keeps attention within the documents of a row of text: they are computed as if each stood alone. By
    default a token attends to all of the row before it. Needs attention with masks: slower, and memory of seq_len²."""
    retrieval: Retrieval | None = None
    """Rows that hide keys; each is one document."""
    repeats: Repeats | None = None
    """Rows that repeat a segment; each is one document."""


class Parallel(ConfigModel):
    """Who computes one phase: processes with equal parts of every batch.

    It is part of the study, since it changes the order of additions and with it the last bits of the weights.
    """

    nodes: Positive = 1
    """Machines."""
    processes: Positive
    """Processes of each node, one for each GPU."""
    threads: Positive
    """CPU threads of each process."""
    sharding: Literal["replicate", "fsdp"]
    """`replicate` keeps the whole model in every process; `fsdp` shards weights, gradients and AdamW's moments
    (FSDP2)."""
    context: Positive = 1
    """How many processes share one sequence, where a row does not fit into one device's memory."""
    activation_checkpointing: Literal["none", "selective", "full", "offload"]
    """What the backward pass recomputes of each layer: all of it (`full`), all but attention (`selective`), or all from
    inputs that are kept in host memory (`offload`)."""

    @property
    def world(self) -> int:
        """Processes of all nodes."""
        return self.nodes * self.processes

    @property
    def replicas(self) -> int:
        """Parts that a global batch is cut into: processes that share a sequence work on the same part."""
        return self.world // self.context

    @model_validator(mode="after")
    def _divides(self) -> Parallel:
        if self.world % self.context:
            raise ValueError(f"context {self.context} must divide nodes x processes, {self.world}")
        return self


class Train(ConfigModel):
    """One training phase, with an AdamW of its own.

    `loss` and `parallel` change the order of additions and with it the last bits of the weights: a finished model that
    was made with others is made again, an unfinished training goes on with them. EXECUTION does neither.
    """

    name: Name = "train"
    """What logs and figures call the phase."""
    corpus: Name | Annotated[dict[Name, Weight], Field(min_length=1)]
    """The corpus of training text, or several, each with its weight: a row is of one of them, drawn by seed with the
    weight's share of their sum. What the shares came to is in the model's manifest (`facts.mixture`)."""
    rows: Rows
    """What its rows are made of."""
    steps: Positive
    """Optimizer steps."""
    seq_len: Positive
    """Tokens of a row."""
    global_batch: Positive
    """Rows of a step, over all processes."""
    micro_batch: Positive
    """Rows that a process computes at once."""
    lr: float = Field(gt=0)
    """The learning rate after warm-up."""
    schedule: Literal["constant", "cosine", "linear"]
    """How the learning rate falls after warm-up: not at all, as a cosine or as a line."""
    final_lr_share: Share = 0.0
    """What the learning rate ends at, as a share of `lr`."""
    warmup_steps: int = Field(ge=0)
    """Steps over which the learning rate rises linearly to `lr`."""
    betas: tuple[Decay, Decay]
    """AdamW's β₁ and β₂."""
    weight_decay: float = Field(ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(gt=0)
    """The norm to which larger gradients are scaled down."""
    precision: Literal["auto", "bf16", "fp32", "pure-bf16"]
    """`bf16` computes in bf16 with fp32 weights, `pure-bf16` also keeps the weights in bf16, as the official run did;
    `auto` is the faster of bf16 and fp32: on GPUs bf16 where they have it, on a CPU as was measured."""
    loss: Literal["auto", "torch", "liger"] = "auto"
    """The cross-entropy's kernel; `auto` is Liger's on GPUs where it is installed."""
    parallel: Parallel
    """Who computes it."""
    checkpoint_minutes: float = Field(gt=0)
    """Time between two checkpoints."""

    @property
    def shares(self) -> dict[str, float]:
        """Corpus → the share of the rows that are to be of it, by name; they add up to 1."""
        weights = {self.corpus: 1.0} if isinstance(self.corpus, str) else self.corpus
        return {name: weights[name] / sum(weights.values()) for name in sorted(weights)}
