"""The parts of a study as frozen pydantic models: every key is known, typed and bounded; nothing is optional
silently. Text is in `data.py`, training in `training.py`, evaluations in `evaluations.py`; what spans several parts
(names that must exist, lengths that must fit) is in `check.py`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from yarnlab.rope import METHODS, Head, Rope
from yarnlab.study.data import Asset, Corpus, Tokenizer
from yarnlab.study.evaluations import Evaluations
from yarnlab.study.fields import ConfigModel, Form, Name, Positive
from yarnlab.study.training import Train


class Architecture(ConfigModel):
    """The shape of a model; field names are those of transformers' configs."""

    family: str = Field(pattern=r"^[a-z0-9_]+$")
    """The config's model_type, such as llama."""
    hidden_size: Positive
    """Width of the residual stream."""
    intermediate_size: Positive
    """Width of the MLP."""
    num_hidden_layers: Positive
    """Layers."""
    num_attention_heads: Positive
    """Query heads of a layer."""
    num_key_value_heads: Positive
    """Key and value heads of a layer; must divide the query heads."""
    head_dim: int = Field(ge=4, multiple_of=2)
    """Width of a head."""
    original_context: Positive
    """L: the length in tokens that the weights were pretrained on."""
    rope_theta: float = Field(gt=1)
    """The base b of the rotary frequencies."""
    alpha: float = Field(default=Head.alpha, gt=0)
    """α: pairs that turn less often than this within the original context are interpolated in full (paper §3.2). It
    suits the family; methods with a ramp take it unless their own options say otherwise."""
    beta: float = Field(default=Head.beta, gt=0)
    """β: pairs that turn more often than this within the original context keep their frequency; as `alpha`."""
    tie_word_embeddings: bool
    """Whether input and output embeddings are the same weights."""
    partial_rotary_factor: float | None = Field(default=None, gt=0, le=1)
    """The share of a head's dimensions that turn, where it is not all of them (GLM, Phi, StableLM)."""

    @model_validator(mode="after")
    def _ramp(self) -> Architecture:
        if self.alpha >= self.beta:
            raise ValueError(f"alpha must be below beta, got {self.alpha:g} and {self.beta:g}")
        return self

    @model_validator(mode="after")
    def _turns(self) -> Architecture:
        if self.rotary_dim < 4 or self.rotary_dim % 2:
            raise ValueError(
                f"head_dim x partial_rotary_factor must be an even number of 4 or more, got {self.rotary_dim}"
            )
        return self

    @property
    def rotary_dim(self) -> int:
        """D: the dimensions of a head that turn, as transformers counts them."""
        return int(self.head_dim * (self.partial_rotary_factor or 1.0))

    @property
    def head(self) -> Head:
        """What ropes are made for."""
        return Head(self.original_context, self.rotary_dim, self.rope_theta, self.alpha, self.beta)


class Pretrain(ConfigModel):
    """A model that is trained here from the start."""

    architecture: Architecture
    """Its shape; of family llama, with tied embeddings."""
    phases: tuple[Train, ...] = Field(min_length=1)
    """Training phases, one after the other."""

    @field_validator("architecture")
    @classmethod
    def _llama(cls, architecture: Architecture) -> Architecture:
        if architecture.family != "llama" or not architecture.tie_word_embeddings:
            raise ValueError("models that are pretrained here are of family llama with tied embeddings")
        return architecture


class Published(ConfigModel):
    """A checkpoint that is given; its config.json must agree with `architecture` and `vocab_size`."""

    asset: Name
    """The checkpoint."""
    tokenizer: Name | None = None
    """The asset with whose tokenizer its text is tokenised, where that is not the checkpoint's own."""
    architecture: Architecture | None = None
    """Its shape. What is left out is taken from config.json, as `yarnlab new` or `yarnlab lock` has recorded it in
    config/architectures.lock.yaml; with a record, some of its keys may be given alone, such as `alpha`."""
    vocab_size: Positive | None = None
    """Rows of its embedding, likewise."""
    drop_sliding_window: bool = False
    """Attend to the whole context although the config says otherwise (Mistral 7B v0.1)."""
    ignored_config: tuple[str, ...] = ()
    """Keys of config.json to leave out: those that mean nothing to the stock class, and dropout, to have none."""


class RopeChoice(ConfigModel):
    """A RoPE method with its scale; further keys are the options of the method's class in rope.py."""

    model_config = ConfigDict(extra="allow")

    method: str
    """The name of a method, such as yarn."""
    scale: float = Field(ge=1)
    """s: the context becomes s·L tokens."""

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
        return architecture.head.make_rope(self.method, self.scale, **self.options)


class Model(ConfigModel):
    """A node of the model tree, with exactly one of `pretrain`, `hub` and `from`."""

    pretrain: Pretrain | None = None
    """A root that is trained here."""
    hub: Published | None = None
    """A root whose weights are given: published, or in a folder."""
    parent: Name | None = Field(default=None, alias="from")
    """The model whose weights it starts from."""
    rope: RopeChoice | None = None
    """Its rope; a root without one has plain RoPE."""
    train: Train | None = None
    """How it is fine-tuned; without it the parent's weights are used as they are."""
    published: tuple[str, ...] = ()
    """The names under which the paper's tables list the model that this one stands for."""
    control_of: Name | None = None
    """The root that this root is the control of: both are of one GGUF file, and this one's asset has `requantise`. Gaps
    between methods on the two are set beside each other, and a gap that moves by more than its interval is named."""

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


class Claims(ConfigModel):
    """What is judged on this study, and on which roots; a study with one root need not name it."""

    form: Form = "extension"
    """`extension` asks of the model that is extended whether that worked (config/extension.yaml). The other two judge
    the paper's claims (config/claims.yaml): `full-scale` by the paper's own lengths and numbers, `scale-free` by
    multiples of L."""
    published: bool = False
    """The study stands for the paper: its printed tables are made too, with this study's numbers beside them."""
    ablation: Name | None = None
    """The root of the claims that set methods against each other (the paper's LLaMA 7B)."""
    extension: Name | None = None
    """The root of the claims about the long runs (the paper's Llama 2 7B); the model that is extended."""
    portability: Name | None = None
    """The root of the claim about another architecture (the paper's Mistral 7B)."""

    @model_validator(mode="after")
    def _of_paper(self) -> Claims:
        if self.published and self.form == "extension":
            raise ValueError(
                "`published` sets the paper's tables beside ours: it needs `form` scale-free or full-scale"
            )
        return self

    @property
    def bases(self) -> dict[str, str | None]:
        """Group of claims → the root it is about, None where it is not named."""
        return {base: getattr(self, base) for base in ("ablation", "extension", "portability")}


class Study(ConfigModel):
    """A whole study: what is trained and evaluated, on which text."""

    study: Name
    """The name of the file, without .yaml, and of the folder of results."""
    title: str
    """What the report is titled."""
    notes: tuple[str, ...] = ()
    """What a reader must know to judge the numbers; the report shows them first."""
    seed: int = Field(ge=0)
    """The first seed; data, evaluations and the first replicate draw from it."""
    replicates: Positive = 1
    """How many consecutive seeds there are. A model that is trained here, or starts from one that is, exists once for
    each; published weights, also under another rope, exist once."""
    assets: dict[Name, Asset] = Field(default_factory=dict)
    """What is taken from the hub or from a folder, by name."""
    corpora: dict[Name, Corpus]
    """Text for training and evaluation, by name."""
    tokenizer: Tokenizer | None = None
    """The study's own tokenizer, for models that are pretrained here."""
    models: dict[Name, Model] = Field(min_length=1)
    """The model tree, by name."""
    evaluations: Evaluations
    """What is measured, on which models."""
    claims: Claims = Claims()
    """What is judged, and how."""

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
        assert origin.architecture is not None  # architectures.py
        return origin.architecture

    def vocab_size(self, arm: str) -> int:
        """The vocabulary of an arm's root."""
        published = self.models[self.root(arm)].hub
        if published is not None:
            assert published.vocab_size is not None  # architectures.py
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

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm's models: the study's, or the first alone where no weights are trained here."""
        here: str | None = arm
        while here is not None:
            if self.models[here].phases:
                return self.seeds
            here = self.models[here].parent
        return self.seeds[:1]

    def name(self, arm: str, seed: int) -> str:
        """The name of an arm's model for one seed of the study: the arm's own when it has one model only."""
        return arm if len(self.seeds_of(arm)) == 1 else f"{arm}-seed{seed}"

    def instances(self) -> dict[str, tuple[str, int]]:
        """Model name → (arm, seed), in the order of the study file."""
        return {self.name(arm, seed): (arm, seed) for arm in self.models for seed in self.seeds_of(arm)}
