"""How a model is trained: its rows, who computes them, one phase."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from yarnlab.study.fields import Name, Positive, Section, Share

KEY_NAMES = 32  # that corpus/passkey.py has for keys in training rows
# Of a phase (as pydantic's include and exclude): how it is computed, not what. None of it makes a model out of date.
EXECUTION: dict[str, Any] = {"checkpoint_minutes": True, "parallel": {"threads", "activation_checkpointing"}}
Decay = Annotated[float, Field(ge=0, lt=1)]


class Retrieval(Section):
    """Rows of text that hide `min_keys` to `max_keys` keys and ask for each; answers weigh `answer_weight` times.

    `asked: together` puts all questions behind one another, at the row's end or, in two rows of five, anywhere before
    it; a row's only key has no name, as in the evaluation, and is asked for twice. `asked: apart` puts every question
    somewhere behind its key; one key has no name and is asked for at the row's end.
    """

    share: Share
    min_keys: Positive
    max_keys: Positive
    asked: Literal["together", "apart"]
    answer_weight: float = Field(gt=0)

    @property
    def most_keys(self) -> int:
        """How many keys a row can hold; of those asked apart, one needs no name."""
        return KEY_NAMES + (self.asked == "apart")


class Repeats(Section):
    """Rows of one segment of `min_segment` to `max_segment` tokens, repeated.

    `random` of the segments are noise, the others text.
    """

    share: Share
    min_segment: Positive
    max_segment: Positive
    random: Share


class Rows(Section):
    """What training rows are made of; the rest, up to 1, is plain text.

    `text: spans` cuts rows anywhere; `blocks` takes the corpus's documents or blocks as they are, in an order drawn by
    seed, each once before any twice, cut to seq_len.
    """

    text: Literal["spans", "blocks"] = "spans"
    retrieval: Retrieval | None = None
    repeats: Repeats | None = None


class Parallel(Section):
    """Who computes one phase: `nodes` × `processes` processes of `threads` threads, equal parts of every batch each.

    `sharding: replicate` keeps the whole model in every process; `fsdp` shards weights, gradients and AdamW's moments
    (FSDP2). `context` processes share one sequence where a row does not fit into one device's memory.
    `activation_checkpointing` recomputes each layer in the backward pass: all of it (`full`), all but attention
    (`selective`), or all from inputs that are kept in host memory (`offload`).
    """

    nodes: Positive = 1
    processes: Positive
    threads: Positive
    sharding: Literal["replicate", "fsdp"]
    context: Positive = 1
    activation_checkpointing: Literal["none", "selective", "full", "offload"]

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


class Train(Section):
    """One training phase: a fresh AdamW, linear warm-up, then a constant rate, a cosine or a line down.

    `precision`: `bf16` computes in bf16 with fp32 weights, `pure-bf16` also keeps the weights in bf16, as the
    official run did; `auto` is bf16 where the machine multiplies it and fp32 elsewhere (precision.py). `loss` is the
    cross-entropy's kernel; `auto` is Liger's on GPUs where it is installed (training/loss.py). `loss` and `parallel`
    change the order of additions and with it the last bits of the weights: a finished model that was made with others
    is made again, an unfinished training goes on with them. EXECUTION does neither.
    """

    name: Name = "train"
    corpus: Name
    rows: Rows
    steps: Positive
    seq_len: Positive
    global_batch: Positive
    micro_batch: Positive
    lr: float = Field(gt=0)
    schedule: Literal["constant", "cosine", "linear"]
    final_lr_share: Share = 0.0
    warmup_steps: int = Field(ge=0)
    betas: tuple[Decay, Decay]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    precision: Literal["auto", "bf16", "fp32", "pure-bf16"]
    loss: Literal["auto", "torch", "liger"] = "auto"
    parallel: Parallel
    checkpoint_minutes: float = Field(gt=0)
