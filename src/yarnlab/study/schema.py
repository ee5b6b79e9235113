"""The parts of a study as frozen pydantic models: every key is known, typed and bounded; nothing is optional
silently. Text is in `data.py`, training in `training.py`, evaluations in `evaluations.py`; what spans several parts
(names that must exist, lengths that must fit) is in `check.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from yarnlab.rope import METHODS, Rope, make_rope
from yarnlab.study.data import Asset, Corpus, Tokenizer
from yarnlab.study.evaluations import Evaluations
from yarnlab.study.fields import Name, Positive, Section
from yarnlab.study.training import Train


class Architecture(Section):
    """The shape of a model; field names are those of transformers' configs.

    `family` is the config's model_type. `original_context` is the length that the weights were pretrained on.
    """

    family: str = Field(pattern=r"^[a-z0-9_]+$")
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    head_dim: int = Field(ge=4, multiple_of=2)
    original_context: Positive
    rope_theta: float = Field(gt=1)
    tie_word_embeddings: bool


class Pretrain(Section):
    """`initialisation: induction` starts from weights that hold an induction circuit (training/initialisation.py)."""

    architecture: Architecture
    initialisation: Literal["normal", "induction"]
    phases: tuple[Train, ...] = Field(min_length=1)

    @field_validator("architecture")
    @classmethod
    def _llama(cls, architecture: Architecture) -> Architecture:
        if architecture.family != "llama" or not architecture.tie_word_embeddings:
            raise ValueError("models that are pretrained here are of family llama with tied embeddings")
        return architecture


class Published(Section):
    """A checkpoint of the hub; its config.json must agree with `architecture` and `vocab_size`.

    `tokenizer` is the asset with whose tokenizer its text is tokenised, where that is not the checkpoint's own.
    `drop_sliding_window` attends to the whole context although the config says otherwise (Mistral 7B v0.1).
    """

    asset: Name
    tokenizer: Name | None = None
    architecture: Architecture
    vocab_size: Positive
    drop_sliding_window: bool = False


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

    @property
    def options(self) -> dict[str, Any]:
        """The method's own; whether it takes them depends on the model's shape (check.py)."""
        return dict(self.model_extra or {})

    def make(self, architecture: Architecture) -> Rope:
        """The rope for a model of this shape; ValueError names an option that the method does not take."""
        return make_rope(
            self.method,
            scale=self.scale,
            original_context=architecture.original_context,
            head_dim=architecture.head_dim,
            base=architecture.rope_theta,
            **self.options,
        )


class Model(Section):
    """A node of the model tree: pretrained here, published, or made from a parent with a new rope (trained, or not).

    `published` are the names under which the paper's tables list the model that this one stands for.
    """

    pretrain: Pretrain | None = None
    hub: Published | None = None
    parent: Name | None = Field(default=None, alias="from")
    rope: RopeChoice | None = None
    train: Train | None = None
    published: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if [self.pretrain, self.hub, self.parent].count(None) != 2:
            raise ValueError("a model needs exactly one of `pretrain`, `hub` and `from`")
        if self.pretrain is not None and (self.rope is not None or self.train is not None):
            raise ValueError("`rope` and `train` have no effect beside `pretrain`; use its phases")
        if self.hub is not None and self.train is not None:
            raise ValueError("a published model is not trained itself; add a model with `from` and `train`")
        if self.parent is not None and self.rope is None:
            raise ValueError("a model with `from` needs `rope`")
        return self

    @property
    def kind(self) -> Literal["pretrain", "hub", "finetune", "zero-shot"]:
        if self.pretrain is not None:
            return "pretrain"
        if self.hub is not None:
            return "hub"
        return "finetune" if self.train is not None else "zero-shot"

    @property
    def phases(self) -> tuple[Train, ...]:
        if self.pretrain is not None:
            return self.pretrain.phases
        return (self.train,) if self.train is not None else ()


class Claims(Section):
    """How the paper's claims are judged on this study.

    form: `full-scale` compares with the paper's own lengths and numbers, `scale-free` with multiples of L. The others
    name the root that a group of claims is about; a study with one root need not name it.
    """

    form: Literal["scale-free", "full-scale"] = "scale-free"
    ablation: Name | None = None  # methods against each other (the paper's LLaMA 7B)
    extension: Name | None = None  # the long runs (the paper's Llama 2 7B)
    portability: Name | None = None  # another architecture (the paper's Mistral 7B)

    @property
    def roots(self) -> dict[str, str | None]:
        """Group of claims → the root it is about, None where it is not named."""
        return {role: getattr(self, role) for role in ("ablation", "extension", "portability")}


class Study(Section):
    """A whole study. With `replicates` = n, every model exists once for each of n consecutive seeds.

    `notes` are what a reader must know to judge the numbers; the report shows them first.
    """

    study: Name
    title: str
    notes: tuple[str, ...] = ()
    seed: int = Field(ge=0)
    replicates: Positive = 1
    assets: dict[Name, Asset] = Field(default_factory=dict)
    corpora: dict[Name, Corpus]
    tokenizer: Tokenizer | None = None
    models: dict[Name, Model] = Field(min_length=1)
    evaluations: Evaluations
    claims: Claims = Claims()

    def root(self, arm: str) -> str:
        """The arm at the root of an arm's tree: it is pretrained here, or published."""
        while (parent := self.models[arm].parent) is not None:
            arm = parent
        return arm

    def architecture(self, arm: str) -> Architecture:
        """The shape that an arm inherits from its root."""
        root = self.models[self.root(arm)]
        origin = root.pretrain or root.hub
        assert origin is not None
        return origin.architecture

    def vocab_size(self, arm: str) -> int:
        """The vocabulary of an arm's root."""
        published = self.models[self.root(arm)].hub
        if published is not None:
            return published.vocab_size
        assert self.tokenizer is not None
        return self.tokenizer.vocab_size

    def tokenizer_of(self, arm: str) -> str | None:
        """The asset whose tokenizer an arm's text is tokenised with; None: the one that the study trains."""
        published = self.models[self.root(arm)].hub
        return (published.tokenizer or published.asset) if published is not None else None

    def rope(self, arm: str) -> Rope:
        """The rope of an arm; plain RoPE for a root that declares none."""
        choice = self.models[arm].rope or RopeChoice(method="none", scale=1.0)
        return choice.make(self.architecture(arm))

    def corpus_of(self, kind: str, arm: str) -> str:
        """The corpus on which an evaluation of the study reads an arm."""
        corpus: str | dict[str, str] = getattr(self.evaluations, kind).corpus
        return corpus if isinstance(corpus, str) else corpus[self.tokenizer_of(arm) or ""]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.replicates))

    def name(self, arm: str, seed: int) -> str:
        """The name of an arm's model for one seed: the arm's own when there is one seed only."""
        return arm if self.replicates == 1 else f"{arm}-seed{seed}"

    def instances(self) -> dict[str, tuple[str, int]]:
        """Model name → (arm, seed), in the order of the study file."""
        return {self.name(arm, seed): (arm, seed) for arm in self.models for seed in self.seeds}
