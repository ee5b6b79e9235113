"""Lengths, bounds and orders as `config/claims.yaml` writes them: read, and put in words.

L is the original context, s the scale of the first extended model (or of the compared methods), s' that of its
continuation. Nothing else can be written; what needs more is a function in `special.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from yarnlab.evaluation.perplexity import doublings
from yarnlab.results.claims.parts import SIGNS

ALL = "all"  # a context: everything that precedes a token

_MULTIPLE = re.compile(r"(\d+(?:\.\d+)?)?(s'|s)?L(?:/(\d+))?")
_MIDDLE = re.compile(r"\((.+) \+ (.+)\)/2")
_DOUBLINGS = re.compile(r"(.+), (.+), … (.+)")
_BOUND = re.compile(r"(<=|>=|<|>) (.+)")
_NUMBER = re.compile(r"(?P<function>exp|ln)\((?P<of>[-\d.]+)\)|(?P<value>[-\d.]+)(?P<unit> %| points|/(?P<over>\d+))?")
_SYMBOLS = {"<": "<", ">": ">", "<=": "≤", ">=": "≥"}


@dataclass(frozen=True)
class Window:
    """What the symbols of a length stand for: L in tokens, s and s' (None where a claim names no such model)."""

    original_context: int
    scale: float | None = None
    larger_scale: float | None = None

    def tokens(self, length: int | str) -> int:
        """A single length in tokens, rounded down."""
        if isinstance(length, int):
            return length
        if middle := _MIDDLE.fullmatch(length):
            return (self.tokens(middle[1]) + self.tokens(middle[2])) // 2
        factor, scale, divisor = _multiple(length)
        symbols = {"": 1.0, "s": self.scale, "s'": self.larger_scale}
        value = symbols[scale]
        if value is None:
            raise ValueError(f"{length}: the claim names no model that {scale} is the scale of")
        return int(factor * value * self.original_context / divisor)

    def all(self, lengths: Iterable[int | str]) -> list[int]:
        """Lengths in tokens, ascending, each once; 'L, 2L, … sL' is every doubling from L up to sL."""
        found: set[int] = set()
        for length in lengths:
            series = _DOUBLINGS.fullmatch(str(length))
            found |= {*doublings(self.tokens(series[1]), self.tokens(series[3]))} if series else {self.tokens(length)}
        return sorted(found)


_ANY = Window(1024, 2.0, 4.0)  # that a length can be read at all


def _multiple(text: str) -> tuple[float, str, int]:
    """Factor, symbol of the scale and divisor of a length such as 1.5sL or L/2; ValueError for anything else."""
    match = _MULTIPLE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no length: write tokens, or L, sL, s'L with a factor (1.5sL) or divisor (sL/2)")
    return float(match[1] or 1), match[2] or "", int(match[3] or 1)


def _length(value: int | str) -> int | str:
    if value != ALL:
        _ANY.tokens(value)
    return value


def _length_or_series(value: int | str) -> int | str:
    if value == ALL:
        return value
    _ANY.all([value])
    series = _DOUBLINGS.fullmatch(str(value))
    if series and _ANY.tokens(series[2]) != 2 * _ANY.tokens(series[1]):
        raise ValueError(f"{value!r} is no series of doublings, such as 'L, 2L, … sL'")
    return value


def as_list(value: Any) -> Any:
    """A single value where a list may stand."""
    return value if isinstance(value, list) else [value]


Length: TypeAlias = Annotated[Annotated[int, Field(ge=0)] | str, AfterValidator(_length)]
Lengths: TypeAlias = Annotated[
    tuple[Annotated[Annotated[int, Field(ge=0)] | str, AfterValidator(_length_or_series)], ...],
    BeforeValidator(as_list),
]


def symbols(lengths: Iterable[Any]) -> set[str]:
    """Which of s and s' these lengths contain."""
    return {scale for length in lengths for scale in re.findall(r"(s'|s)L", str(length))}


def shown(lengths: Sequence[int | str]) -> str:
    """Lengths in words: 'L/2 and L', '8,192 and 32,768 tokens'."""
    text = listed(f"{length:,}" if isinstance(length, int) else length for length in lengths)
    return f"{text} tokens" if isinstance(lengths[-1], int) else text


def listed(words: Iterable[object]) -> str:
    """'a, b and c'; numbers without needless zeros."""
    *head, tail = (f"{word:g}" if isinstance(word, float) else str(word) for word in words)
    return f"{', '.join(head)} and {tail}" if head else tail


@dataclass(frozen=True)
class Bound:
    """What an estimate must be: `sign` and `threshold` as numbers, `text` as the criterion says it."""

    sign: str
    threshold: float
    text: str


def bound(text: object) -> Bound:
    """The bound that '>= 95 %', '<= exp(0.01)', '>= -1.5 points' or '< 1' means; ValueError for another form."""
    match = _BOUND.fullmatch(text) if isinstance(text, str) else None
    number = _NUMBER.fullmatch(match[2]) if match else None
    if match is None or number is None:
        raise ValueError(f"{text!r} is no bound: write a sign (<, <=, >=, >) and a number, such as '<= 1.04'")
    words = f"{SIGNS[match[1]]} {match[2].replace('points', 'percentage points').replace('-', '−')}"
    return Bound(match[1], _number(number), words)


def _number(match: re.Match[str]) -> float:
    if match["function"]:
        return (math.exp if match["function"] == "exp" else math.log)(float(match["of"]))
    value = float(match["value"])
    if match["over"]:
        return value / int(match["over"])
    return value / 100 if match["unit"] else value


Bounds: TypeAlias = Annotated[tuple[Annotated[Bound, BeforeValidator(bound)], ...], BeforeValidator(as_list)]


def order(text: object) -> tuple[str, ...]:
    """The names and signs of 'a <= b < c' in turn; ValueError for another form."""
    words = text.split() if isinstance(text, str) else []
    if len(words) < 3 or len(words) % 2 == 0 or any(word not in ("<", "<=") for word in words[1::2]):
        raise ValueError(f"{text!r} is no order: write names with < or <= between them, such as 'yarn <= pi'")
    return tuple(words)


Order: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(order)]


def neighbours(words: Sequence[str]) -> list[tuple[str, str, str]]:
    """(name, sign, name) of each two neighbours in an order."""
    return [(a, sign, b) for (a, b), sign in zip(pairwise(words[::2]), words[1::2], strict=True)]


def symbol(sign: str) -> str:
    """'≤' for '<='."""
    return _SYMBOLS[sign]
