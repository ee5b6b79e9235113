"""A study's evaluations: one section each, named like the module of `yarnlab.evaluation` that runs it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from yarnlab.rope import METHODS
from yarnlab.study.fields import LengthGrid, Name, Positive, Section


class Evaluation(Section):
    """What every evaluation declares: its text, its models, how it computes."""

    corpus: Name
    models: tuple[Name, ...] = Field(min_length=1)
    precision: Literal["bf16", "fp32"]
    threads: Positive

    @property
    def longest(self) -> tuple[str, int]:
        """(key, tokens): the key that decides how many tokens of a document are needed at least."""
        raise NotImplementedError


class Perplexity(Evaluation):
    """truncated-prefix@1: one pass over each document gives every length (paper's Proof-pile protocol)."""

    lengths: LengthGrid

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", self.lengths.stop


class ZeroShot(Evaluation):
    """Methods × scales on models as they are, without fine-tuning."""

    methods: tuple[str, ...] = Field(min_length=1)
    scales: tuple[float, ...] = Field(min_length=1)
    max_length: Positive

    @field_validator("methods")
    @classmethod
    def _static(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if method not in METHODS or METHODS[method].dynamic:
                known = ", ".join(name for name, rope in METHODS.items() if not rope.dynamic)
                raise ValueError(f"{method!r} is not a static method; known: {known}")
        return methods

    @property
    def longest(self) -> tuple[str, int]:
        return "max_length", self.max_length


class Passkey(Evaluation):
    """passkey-teacher-forced@1: `trials` per length, depths spread evenly, five-digit keys, held-out filler."""

    lengths: tuple[Positive, ...] = Field(min_length=1)
    trials: int = Field(ge=10)

    @property
    def longest(self) -> tuple[str, int]:
        return "lengths", max(self.lengths)


class Evaluations(Section):
    perplexity: Perplexity | None = None
    zero_shot: ZeroShot | None = None
    passkey: Passkey | None = None


KINDS = tuple(Evaluations.model_fields)
