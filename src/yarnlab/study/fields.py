"""What all parts of a study have in common: frozen models without unknown keys, and the types of their values."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import textwrap
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler

T = TypeVar("T", bound=Hashable)
KeyPath = tuple[str | int, ...]  # of a key in a study file
Problem = tuple[KeyPath, str]  # what is wrong there, and what was expected


def in_one_line(error: ValidationError) -> str:
    """Each key and what is wrong there, of values that stand in no study file, whose line could be named."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


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
Form = Literal["extension", "scale-free", "full-scale"]  # of a study: what its claims are about (schema.py: Claims)


def near(name: str, known: Iterable[str]) -> str:
    """For a message about a name that is not known: the most similar one, or all of them."""
    names = list(known)
    similar = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {similar[0]!r}?" if similar else f"; known: {', '.join(names) or 'none'}"


class ConfigModel(BaseModel):
    """A part of a study. The text below a field is its description in the JSON schema.

    It is read when a schema is asked for: pydantic's own `use_attribute_docstrings` reads the source of every class at
    every start of every job, 75 ms in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in descriptions(cls).items():
            properties[cls.model_fields[name].alias or name]["description"] = text
        return schema


def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """Field → the text below it in its class, of the fields that have one."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, ConfigModel):
            continue
        (made,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(made, ast.ClassDef)
        for field, text in pairwise(made.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return found


class LengthGrid(ConfigModel):
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


class FactorGrid(ConfigModel):
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
