"""The parts of a study as frozen pydantic models: every key is known, typed and bounded; nothing is optional
silently. Evaluations are in `evaluations.py`; what spans several parts (names that must exist, lengths that must fit)
is in `check.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from yarnlab.rope import METHODS, Rope, make_rope
from yarnlab.study.evaluations import Evaluations
from yarnlab.study.fields import Name, Positive, Section, Share


class PythonPackages(Section):
    """Documents are the .py files of installed, pinned, pure-Python distributions, in a fixed order.

    `min_tokens` keeps only documents at least that long; `documents` keeps that many of them, drawn by seed;
    `max_tokens` stops after that many tokens (training text).
    """

    source: Literal["python-packages"]
    packages: tuple[str, ...] = Field(min_length=1)
    min_tokens: Positive | None = None
    documents: Positive | None = None
    max_tokens: Positive | None = None


class Tokenizer(Section):
    """A byte-level BPE trained on a sample of one corpus's documents."""

    train_on: Name
    vocab_size: int = Field(ge=300)
    split_digits: bool
    sample_documents: Positive


class Architecture(Section):
    """The shape of a model that is pretrained here; field names are those of transformers' LlamaConfig.

    `initialisation: induction` starts from weights that hold an induction circuit (training/initialisation.py).
    """

    family: Literal["llama"]
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    head_dim: int = Field(ge=4, multiple_of=2)
    original_context: Positive
    rope_theta: float = Field(gt=1)
    initialisation: Literal["normal", "induction"]


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


class Repeats(Section):
    """Rows of one segment of `min_segment` to `max_segment` tokens, repeated.

    `random` of the segments are noise, the others text.
    """

    share: Share
    min_segment: Positive
    max_segment: Positive
    random: Share


class Rows(Section):
    """What training rows are made of; the rest, up to 1, is plain text."""

    retrieval: Retrieval | None = None
    repeats: Repeats | None = None


class Train(Section):
    """One training phase: a fresh AdamW, linear warm-up, then constant or cosine.

    Each of `processes` computes an equal part of every global batch with `threads` threads. Both are part of the
    study, since they change the order of additions and with it the last bits of the weights.
    """

    name: Name = "train"
    corpus: Name
    rows: Rows
    steps: Positive
    seq_len: Positive
    global_batch: Positive
    micro_batch: Positive
    lr: float = Field(gt=0)
    schedule: Literal["constant", "cosine"]
    final_lr_share: Share = 0.0
    warmup_steps: int = Field(ge=0)
    betas: tuple[float, float]
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    precision: Literal["bf16", "fp32"]
    processes: Positive
    threads: Positive
    checkpoint_minutes: float = Field(gt=0)


class Pretrain(Section):
    architecture: Architecture
    phases: tuple[Train, ...] = Field(min_length=1)


class RopeChoice(Section):
    """A RoPE method with its scale and options; the options are those of the method's class in rope.py."""

    model_config = ConfigDict(frozen=True, extra="allow")

    method: str
    scale: float = Field(ge=1)

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
        return method

    @model_validator(mode="after")
    def _options(self) -> RopeChoice:
        self.make(Architecture.model_construct(head_dim=64, original_context=4096, rope_theta=1e4))
        return self

    def make(self, architecture: Architecture) -> Rope:
        """The rope for a model of this shape; ValueError names an option that the method does not take."""
        return make_rope(
            self.method,
            scale=self.scale,
            original_context=architecture.original_context,
            head_dim=architecture.head_dim,
            base=architecture.rope_theta,
            **(self.model_extra or {}),
        )


class Model(Section):
    """A node of the model tree: pretrained here, or made from a parent with a new rope (and trained, or not)."""

    pretrain: Pretrain | None = None
    parent: Name | None = Field(default=None, alias="from")
    rope: RopeChoice | None = None
    train: Train | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if (self.pretrain is None) == (self.parent is None):
            raise ValueError("a model needs exactly one of `pretrain` and `from`")
        if self.pretrain is not None and (self.rope is not None or self.train is not None):
            raise ValueError("`rope` and `train` have no effect beside `pretrain`; use its phases")
        if self.parent is not None and self.rope is None:
            raise ValueError("a model with `from` needs `rope`")
        return self

    @property
    def kind(self) -> Literal["pretrain", "finetune", "zero-shot"]:
        if self.pretrain is not None:
            return "pretrain"
        return "finetune" if self.train is not None else "zero-shot"

    @property
    def phases(self) -> tuple[Train, ...]:
        if self.pretrain is not None:
            return self.pretrain.phases
        return (self.train,) if self.train is not None else ()


class Study(Section):
    """A whole study. With `replicates` = n, every model exists once for each of n consecutive seeds.

    `notes` are what a reader must know to judge the numbers; the report shows them first.
    """

    study: Name
    title: str
    notes: tuple[str, ...] = ()
    seed: int = Field(ge=0)
    replicates: Positive = 1
    corpora: dict[Name, PythonPackages]
    tokenizer: Tokenizer
    models: dict[Name, Model] = Field(min_length=1)
    evaluations: Evaluations

    def root(self, arm: str) -> Architecture:
        """The architecture that an arm inherits from the pretrained model at the root of its tree."""
        while (parent := self.models[arm].parent) is not None:
            arm = parent
        pretrain = self.models[arm].pretrain
        assert pretrain is not None
        return pretrain.architecture

    def rope(self, arm: str) -> Rope:
        """The rope of an arm; plain RoPE for a pretrained model."""
        choice = self.models[arm].rope or RopeChoice(method="none", scale=1.0)
        return choice.make(self.root(arm))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.replicates))

    def name(self, arm: str, seed: int) -> str:
        """The name of an arm's model for one seed: the arm's own when there is one seed only."""
        return arm if self.replicates == 1 else f"{arm}-seed{seed}"

    def instances(self) -> dict[str, tuple[str, int]]:
        """Model name → (arm, seed), in the order of the study file."""
        return {self.name(arm, seed): (arm, seed) for arm in self.models for seed in self.seeds}
