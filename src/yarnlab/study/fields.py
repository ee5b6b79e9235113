"""What all parts of a study have in common: frozen models without unknown keys, and the types of their values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T", bound=Hashable)
KeyPath = tuple[str | int, ...]  # of a key in a study file


def each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values; ValueError for one that is there twice: its results would be counted twice, or not at all."""
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is listed twice")
    return values


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Distinct = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(each_once)]
Scales = Distinct[Annotated[float, Field(ge=1)]]


def near(name: str, known: Iterable[str]) -> str:
    """For a message about a name that is not known: the most similar one, or all of them."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {similar[0]!r}?" if similar else f"; known: {', '.join(names) or 'none'}"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class LengthGrid(Section):
    """Lengths in tokens."""

    start: int = Field(ge=2)
    """The shortest; a length of N tokens has N − 1 targets."""
    stop: Positive
    """The longest is this or the last one below it."""
    step: Positive
    """From one length to the next."""

    @model_validator(mode="after")
    def _rises(self) -> LengthGrid:
        if self.stop < self.start:
            raise ValueError(f"stop {self.stop} is below start {self.start}")
        return self

    def values(self) -> tuple[int, ...]:
        return tuple(range(self.start, self.stop + 1, self.step))


class FactorGrid(Section):
    """Attention factors √(1/t)."""

    start: float = Field(gt=0)
    """The smallest."""
    stop: float = Field(gt=0)
    """The largest is this or the last one below it."""
    step: float = Field(gt=0)
    """From one factor to the next."""

    @model_validator(mode="after")
    def _rises(self) -> FactorGrid:
        if self.stop < self.start:
            raise ValueError(f"stop {self.stop:g} is below start {self.start:g}")
        return self

    def values(self) -> tuple[float, ...]:
        count = math.floor((self.stop - self.start) / self.step + 1e-9)  # rounding must not lose the last one
        return tuple(round(self.start + i * self.step, 6) for i in range(count + 1))
