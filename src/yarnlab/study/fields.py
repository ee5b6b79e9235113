"""What all parts of a study have in common: frozen models without unknown keys, and the types of their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LengthGrid(Section):
    start: Positive
    stop: Positive
    step: Positive

    def values(self) -> tuple[int, ...]:
        return tuple(range(self.start, self.stop + 1, self.step))


class FactorGrid(Section):
    """Attention factors √(1/t) from `start` to `stop` in steps of `step`."""

    start: float = Field(gt=0)
    stop: float = Field(gt=0)
    step: float = Field(gt=0)

    def values(self) -> tuple[float, ...]:
        count = round((self.stop - self.start) / self.step)
        return tuple(round(self.start + i * self.step, 6) for i in range(count + 1))
