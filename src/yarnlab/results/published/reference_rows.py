"""The rows of config/reference/*.csv, checked: what a published number is, who published it and how exactly.

Columns are described in config/reference/README.md. An empty field is None (text columns: the empty string).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Version = Literal["v2", "camera-ready", "repository"]


def _absent(value: Any) -> Any:
    return None if value == "" else value


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(";") if name.strip()) if isinstance(value, str) else value


Number = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_absent)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_absent)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Text = Annotated[str, Field(min_length=1)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedModel(_Row):
    """A model of the paper's tables or figures; lengths in tokens.

    training: 'none' for a base as it was published, 'fine-tuned' for one extended on purpose, 'pre-trained' for one
    whose long context comes from a much longer continued training.
    native_context: the window that the published configuration has before any scaling; `original_context` is the L of
    the paper's s = L'/L.
    constants: 'paper', or what differs from the paper's constants.
    """

    model: Text
    label: Text
    method: Text
    scale: Number
    original_context: int
    native_context: int
    training: Literal["none", "fine-tuned", "pre-trained"]
    trained_length: Count
    trained_tokens: Count
    trained_steps: Count
    pretraining_tokens: Count
    constants: Text
    trained_by: Literal["authors", "others"]
    aliases: Names
    source: Text
    note: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the paper, its tables or the hub have for it."""
        return (self.model, *self.aliases)


class Protocol(_Row):
    """How a published number was measured. kind: the evaluation that measures it here, or where it comes from.

    selection: 'first' for the first `documents` of at least `min_tokens`, 'unknown' where it was not published which;
    empty where no documents are read.
    """

    protocol: Text
    kind: Text
    title: Text
    datasets: Names
    min_tokens: Count
    documents: Count
    selection: Literal["first", "unknown", ""]
    window: Count
    stride: Count
    task: str
    metric: str
    description: Text


class Cell(_Row):
    """One published number.

    value: as printed; `relation` '>' for entries such as '>10^2'. None where the table has a question mark.
    decimals: digits after the point, negative for thousands and millions; the half unit follows from it.
    rounding: 'truncated' where the printed digits are cut, 'misprint' where the raw data contradict them, 'exact' where
        the number is not rounded at all.
    exact: the same number in the authors' raw data, in the cell's unit.
    n: documents, trials or questions behind it.
    """

    cell: Text
    artifact: Text
    version: Version
    model: str
    method: str
    scale: Number
    protocol: Text
    metric: Text
    unit: Text
    x: Number
    x_name: str
    printed: Text
    value: Number
    relation: Literal["=", ">"]
    decimals: Annotated[int | None, BeforeValidator(_absent)]
    rounding: Literal["rounded", "truncated", "exact", "misprint"]
    exact: Number
    n: Count
    source: Text
    exact_source: str
    note: str

    @model_validator(mode="after")
    def _consistent(self) -> Cell:
        if (self.decimals is None) != (self.rounding == "exact" or self.value is None):
            raise ValueError("`decimals` is given exactly for a rounded value")
        if self.rounding == "misprint" and not (self.note and self.exact is not None):
            raise ValueError("a misprint needs the exact value and a note")
        if self.rounding in ("rounded", "truncated") and self.exact is not None and self.relation == "=":
            low, high = self.printed_range
            slack = 1e-6 * (high - low)
            if not low - slack <= self.exact <= high + slack:
                raise ValueError(f"{self.exact} is not printed as {self.printed} when {self.rounding}")
        if self.relation == ">" and self.exact is not None and self.value is not None and self.exact <= self.value:
            raise ValueError(f"{self.exact} is not above {self.value}")
        return self

    @property
    def target(self) -> float | None:
        """The number to compare with: the exact one where there is one."""
        return self.value if self.exact is None or self.relation == ">" else self.exact

    @property
    def printed_range(self) -> tuple[float, float]:
        """The numbers that would be printed like this one, (low, high)."""
        if self.value is None:
            return math.nan, math.nan
        if self.relation == ">":
            return self.value, math.inf
        if self.decimals is None:
            return self.value, self.value
        unit = 10.0**-self.decimals
        if self.rounding == "truncated":
            return self.value, self.value + unit
        return self.value - unit / 2, self.value + unit / 2

    @property
    def range(self) -> tuple[float, float]:
        """What the published number can have been: the exact value, or all that print like it."""
        if self.exact is not None and self.relation == "=":
            return self.exact, self.exact
        return self.printed_range


class Curve(_Row):
    """One line of a published figure, or one file of results; its points are in `<file>.csv`.

    segment_start, segment_end: the tokens that the line is about, where it is about a part of the documents.
    error: half width in the curve's unit with which a digitised point was read off.
    blank: points that the authors' file has without a value.
    """

    curve: Text
    file: Text
    artifact: Text
    version: Version
    model: Text
    method: Text
    scale: Number
    protocol: Text
    metric: Text
    unit: Text
    x_unit: Text
    segment_start: Count
    segment_end: Count
    rounding: Literal["exact", "digitised"]
    error: Number
    points: int
    blank: int
    source: Text
    note: str

    @model_validator(mode="after")
    def _consistent(self) -> Curve:
        if (self.rounding == "digitised") != (self.error is not None):
            raise ValueError("`error` is given exactly for a digitised curve")
        return self
