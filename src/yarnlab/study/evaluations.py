"""A study's evaluations: one section each, named like the module of `yarnlab.evaluation` that runs it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from yarnlab.rope import METHODS
from yarnlab.study.fields import Distinct, FactorGrid, LengthGrid, Name, Positive, Scales, Section

# Words of a prompt without filler, BOS included: of corpus/passkey.py with its answer, and of the official one.
PASSKEY_WORDS, OFFICIAL_WORDS = 32, 48
# Of held-out-code: tokens kept free for what joins an example to the next, and those that a question takes at least.
JOINT, LEAST_QUESTION = 4, 16


def _static_methods(methods: tuple[str, ...]) -> tuple[str, ...]:
    for method in methods:
        if method not in METHODS or METHODS[method].dynamic:
            known = ", ".join(name for name, rope in METHODS.items() if not rope.dynamic)
            raise ValueError(f"{method!r} is not a static method; known: {known}")
    return methods


class Evaluation(Section):
    """What every evaluation declares: its text, its models, how it computes.

    `corpus` names one corpus, or one for each tokenizer (an asset) of the models. `precision: auto` is bf16 where the
    machine multiplies it and fp32 elsewhere (precision.py).
    """

    corpus: Name | dict[Name, Name]
    models: tuple[Name, ...] = Field(min_length=1)
    precision: Literal["auto", "bf16", "fp32"]
    threads: Positive

    @property
    def corpora(self) -> dict[str | None, str]:
        """Tokenizer → corpus; None stands for every tokenizer."""
        return {None: self.corpus} if isinstance(self.corpus, str) else dict(self.corpus.items())

    @property
    def longest(self) -> tuple[str, int]:
        """(key, tokens): the key that decides how many tokens of a document are needed at least."""
        raise NotImplementedError

    @property
    def reads_corpus(self) -> bool:
        """Whether its text comes from `corpus`; else from the protocol itself or from datasets of its own."""
        return True


class Perplexity(Evaluation):
    """truncated-prefix@1: one pass over each document gives every length (paper's Proof-pile protocol)."""

    lengths: LengthGrid

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", self.lengths.stop


class ZeroShot(Evaluation):
    """Methods × scales on models as they are, without fine-tuning, at L, 2L, 4L, … up to s·L or `max_length` tokens."""

    methods: Distinct[str]
    scales: Scales
    max_length: Positive

    _static = field_validator("methods")(_static_methods)

    @property
    def longest(self) -> tuple[str, int]:
        return "max_length", self.max_length


def _room_for(words: int) -> AfterValidator:
    """Lengths that can hold a prompt of so many words, at best one token each. A tokenizer may need more than that."""

    def check(lengths: tuple[int, ...]) -> tuple[int, ...]:
        if min(lengths) < words:
            raise ValueError(f"the prompt takes {words} tokens at least, without any filler; got {min(lengths)}")
        return lengths

    return AfterValidator(check)


class Passkey(Evaluation):
    """passkey-teacher-forced@3: `trials` per length, depths spread evenly, five-digit keys; documents take turns
    as filler, without their numbers."""

    lengths: Annotated[Distinct[Positive], _room_for(PASSKEY_WORDS)]
    trials: int = Field(ge=10)

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", max(self.lengths)


class SlidingWindow(Evaluation):
    """sliding-window@1: windows of `window` tokens every `stride` tokens (the paper's GovReport protocol).

    Documents are cut to `max_tokens`; without it they are read whole, as the paper does.
    """

    window: int = Field(ge=2)
    stride: Positive
    max_tokens: Positive | None = None

    @model_validator(mode="after")
    def _overlap(self) -> SlidingWindow:
        if self.stride >= self.window:
            raise ValueError(f"stride {self.stride} must be below window {self.window}")
        return self

    @property
    def longest(self) -> tuple[str, int]:
        return "window", 2


class Dynamic(Evaluation):
    """Dynamic scaling length by length, one forward pass for each, beside plain RoPE (`none`).

    `tail`: how many tokens at the end of each length are also scored by themselves, since the mean over the whole
    length flatters its end.
    """

    methods: Distinct[str]
    lengths: Distinct[Positive]
    tail: Positive

    @model_validator(mode="after")
    def _sound(self) -> Dynamic:
        known = [name for name, rope in METHODS.items() if rope.dynamic or name == "none"]
        for method in self.methods:
            if method not in known:
                raise ValueError(f"{method!r} is neither dynamic nor none; known: {', '.join(known)}")
        if self.tail >= min(self.lengths):
            raise ValueError(f"tail {self.tail} must be below the shortest length {min(self.lengths)}")
        return self

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", max(self.lengths)


class KeyCache(Evaluation):
    """What it costs a dynamic method to cache keys after the rotation instead of before it, over `length` tokens."""

    methods: Distinct[str]
    length: Positive
    documents: Positive

    @field_validator("methods")
    @classmethod
    def _dynamic(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if method not in METHODS or not METHODS[method].dynamic:
                known = ", ".join(name for name, rope in METHODS.items() if rope.dynamic)
                raise ValueError(f"{method!r} is not a dynamic method; known: {known}")
        return methods

    @property
    def longest(self) -> tuple[str, int]:
        return "length", self.length


class Temperature(Evaluation):
    """Perplexity by attention factor √(1/t) at each scale without fine-tuning (paper App. A.2).

    Beside the grid, every scale is run with the formula's own factor 0.1 ln s + 1 and with its other reading,
    √(0.1 ln s + 1). Documents are read to s·L tokens (`max_length` at most), in `segments` equal parts.
    """

    method: Literal["ntk-by-parts", "pi", "ntk-aware"]
    scales: Scales
    factors: FactorGrid
    segments: Positive
    documents: Positive
    max_length: Positive

    @property
    def longest(self) -> tuple[str, int]:
        return "max_length", self.max_length


class Ramp(Evaluation):
    """One method with different options (ramp, truncate, alpha, beta) at each scale, without fine-tuning."""

    method: Literal["yarn", "ntk-by-parts"]
    variants: dict[Name, dict[str, Any]] = Field(min_length=1)
    scales: Scales
    documents: Positive
    max_length: int = Field(ge=2)  # one token has no target

    @property
    def longest(self) -> tuple[str, int]:
        return "max_length", self.max_length


class Entropy(Evaluation):
    """Mean entropy of the attention weights by layer and head within the original context, by method and scale."""

    methods: Distinct[str]
    scales: Scales
    length: int = Field(ge=2)

    _static = field_validator("methods")(_static_methods)

    @property
    def longest(self) -> tuple[str, int]:
        return "length", self.length


class PasskeyOfficial(Evaluation):
    """official@1: the official prompt, garbage cut by characters, the first integer in `new_tokens` tokens."""

    lengths: Annotated[Distinct[Positive], _room_for(OFFICIAL_WORDS)]
    trials: Positive
    new_tokens: Positive
    decoding: Literal["greedy", "released"]  # released: sampled with temperature 0.6 and top-p 0.9

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", 2  # the prompt brings its own text

    @property
    def reads_corpus(self) -> bool:
        return False


def question_tokens(max_tokens: int, shots: int) -> int:
    """Tokens for each question of held-out-code where `shots` examples and one question share `max_tokens`.

    Raises ValueError where these are too few for a question; the message says how many examples fit.
    """
    room = max_tokens // (shots + 1) - (JOINT if shots else 0)
    if room >= LEAST_QUESTION:
        return room
    if max_tokens < LEAST_QUESTION:
        raise ValueError(f"a question takes {LEAST_QUESTION} tokens at least, a prompt may have {max_tokens}")
    most = max(0, max_tokens // (LEAST_QUESTION + JOINT) - 1)
    raise ValueError(
        f"{shots} shots and a question of {LEAST_QUESTION} tokens or more each do not fit into {max_tokens} tokens; "
        f"at most {most} shots do"
    )


class Benchmarks(Evaluation):
    """Multiple-choice tasks through lm-eval; `batch_size` is fixed, since it changes the last digits, and so is BOS.

    `suite: held-out-code` cuts `items` questions a task from the corpus and puts `shots` examples before each.
    `suite: paper` runs the paper's four benchmarks, whose shots are fixed; `snapshots` names each one's asset.
    """

    suite: Literal["held-out-code", "paper"]
    items: int | None = Field(default=None, ge=10)
    shots: int | None = Field(default=None, ge=0)
    snapshots: dict[Literal["arc_challenge", "hellaswag", "mmlu", "truthfulqa"], Name] | None = None
    batch_size: Positive
    add_bos: bool

    @model_validator(mode="after")
    def _of_the_suite(self) -> Benchmarks:
        needed = {"held-out-code": ("items", "shots"), "paper": ("snapshots",)}[self.suite]
        for key in ("items", "shots", "snapshots"):
            if (getattr(self, key) is None) == (key in needed):
                raise ValueError(f"suite {self.suite} {'needs' if key in needed else 'has no use for'} `{key}`")
        return self

    @property
    def longest(self) -> tuple[str, int]:
        return "corpus", 2

    @property
    def reads_corpus(self) -> bool:
        return self.suite == "held-out-code"


class Evaluations(Section):
    perplexity: Perplexity | None = None
    zero_shot: ZeroShot | None = None
    passkey: Passkey | None = None
    sliding_window: SlidingWindow | None = None
    dynamic: Dynamic | None = None
    key_cache: KeyCache | None = None
    temperature: Temperature | None = None
    ramp: Ramp | None = None
    entropy: Entropy | None = None
    passkey_official: PasskeyOfficial | None = None
    benchmarks: Benchmarks | None = None


KINDS = tuple(Evaluations.model_fields)
