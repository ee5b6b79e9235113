"""Every RoPE method of the study, each as one small frozen class; the only place where a RoPE formula stands.

Symbols follow the YaRN paper (arXiv 2309.00071 v2): head dimension D, pair index d = 0 … D/2−1 (d = 0 is the
highest frequency), base b, frequency θ_d = b^(−2d/D), original context L, scale s = L'/L. The released models
were made by the official code (github.com/jquesnelle/yarn @995db5b), which differs from the paper in the ramp:
`ramp="dimension"` is the code's (linear in d, the default), `ramp="rotations"` the paper's Eq. 18.

To add a method: write one class with a `method` name, list it in `METHODS`; study files can use it at once. A static
method need not say how its checkpoints are written: stock transformers takes any frequencies and attention factor.
This module sits below all others and imports torch only inside functions, so a study file is checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

RAMPS = ("dimension", "rotations")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Temperature:
    """√(1/t), the factor on cos and sin. Either the rule slope·ln s + 1 (paper Eq. 22) or a given `factor`.

    The paper's slope is 0.1; the official Mistral code uses 0.07 (modeling_mistral_yarn.py:254).
    """

    slope: float | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        if (self.slope is None) == (self.factor is None):
            raise ValueError("temperature takes exactly one of `slope` and `factor`")
        for name in ("slope", "factor"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value >= 0):
                raise ValueError(f"temperature {name} must be a number >= 0, got {value!r}")

    def at(self, scale: float) -> float:
        """√(1/t) for this scale; 1 for scale <= 1, as in the official get_mscale (LlamaYaRN…py:24-27)."""
        if self.factor is not None:
            return float(self.factor)
        assert self.slope is not None
        return self.slope * math.log(scale) + 1.0 if scale > 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Plain RoPE, and what every method shares.

    `scale` is the declared extension: the context is scale·original_context. Plain RoPE leaves the frequencies
    alone whatever the scale.

    Raises ValueError for a scale below 1, an odd or non-positive head_dim, a base <= 1 or a context below 1.
    """

    method: ClassVar[str] = "none"
    dynamic: ClassVar[bool] = False

    scale: float = 1.0
    original_context: int
    head_dim: int
    base: float = 10000.0

    def __init_subclass__(cls) -> None:
        """A method that changes a formula of its parent does not inherit the parent's stock form."""
        super().__init_subclass__()
        own = {name for name, value in vars(cls).items() if isinstance(value, FunctionType | property)}
        if "to_hf" not in own and any(not name.startswith("__") for name in own):
            cls.to_hf = Rope.to_hf  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        if not (_is_number(self.scale) and self.scale >= 1):
            raise ValueError(f"scale must be a number >= 1, got {self.scale!r}")
        if isinstance(self.original_context, bool) or not isinstance(self.original_context, int):
            raise ValueError(f"original_context must be a whole number of tokens, got {self.original_context!r}")
        if self.original_context < 1:
            raise ValueError(f"original_context must be at least 1, got {self.original_context}")
        if not isinstance(self.head_dim, int) or self.head_dim < 4 or self.head_dim % 2:
            raise ValueError(f"head_dim must be an even number >= 4, got {self.head_dim!r}")
        if not (_is_number(self.base) and self.base > 1):
            raise ValueError(f"base must be a number > 1, got {self.base!r}")

    @property
    def context(self) -> int:
        """The extended context L' = s·L in tokens."""
        return round(self.scale * self.original_context)

    @property
    def attention_factor(self) -> float:
        """√(1/t): multiplies cos and sin, so the attention logits scale by its square (paper Eq. 21)."""
        return 1.0

    def inv_freq(self) -> Tensor:
        """The angle per position of each pair, h(θ_d): float32, shape (head_dim // 2,), descending."""
        return 1.0 / self._wavenumbers(self.base)

    def at(self, length: int) -> Rope:
        """The rope for an input of `length` tokens: itself when static, rescaled when dynamic (paper §3.3)."""
        return self

    def to_hf(self) -> dict[str, Any]:
        """The `rope_parameters` with which stock transformers computes the same tables.

        A method without a type of its own in transformers is written frequency by frequency.

        Raises ValueError if stock transformers can't compute the tables (dynamic methods), or if `inv_freq` does not
        give one finite number for each pair.
        """
        if self.dynamic:
            raise ValueError(f"stock transformers has no {self.method}: evaluate it with yarnlab's own rotary module")
        if type(self) is Rope:
            return {"rope_type": "default", "rope_theta": self.base}
        return self.as_factors()

    def _wavenumbers(self, base: float) -> Tensor:
        """1/θ_d = base^(2d/D), float32; the order of operations is that of transformers and the official code."""
        import torch

        return base ** (torch.arange(0, self.head_dim, 2).float() / self.head_dim)

    def _factors(self) -> list[float]:
        """θ_d / h(θ_d) of each pair; infinite for a pair that does not rotate."""
        frequencies = self.inv_freq()
        if frequencies.shape != (self.head_dim // 2,) or not bool(frequencies.isfinite().all()):
            raise ValueError(
                f"{self.method}: inv_freq must give {self.head_dim // 2} finite frequencies, one for each pair; "
                f"got shape {tuple(frequencies.shape)}: {frequencies.tolist()}"
            )
        return (1.0 / (frequencies * self._wavenumbers(self.base))).tolist()

    def as_factors(self, factors: list[float] | None = None) -> dict[str, Any]:
        """Any static frequencies in stock transformers: `longrope` divides θ_d by factors[d] (short = long)."""
        factors = self._factors() if factors is None else factors
        return {
            "rope_type": "longrope",
            "rope_theta": self.base,
            "factor": float(self.scale),
            "original_max_position_embeddings": self.original_context,
            "attention_factor": float(self.attention_factor),
            "short_factor": factors,
            "long_factor": factors,
        }


@dataclass(frozen=True, kw_only=True)
class PositionInterpolation(Rope):
    """PI: every frequency divided by s (paper Eq. 10, 12; modeling_llama_yarn.py:183-199)."""

    method = "pi"

    def inv_freq(self) -> Tensor:
        return super().inv_freq() / self.scale

    def to_hf(self) -> dict[str, Any]:
        return {"rope_type": "linear", "rope_theta": self.base, "factor": float(self.scale)}


@dataclass(frozen=True, kw_only=True)
class NTKAware(Rope):
    """NTK-aware: a larger base, so that θ_0 stays and the lowest frequency is divided by s (Eq. 16, 24).

    `theta` gives the larger base itself, as the official 8k run did with 20,000 (train.sh:51).
    """

    method = "ntk-aware"
    theta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta is not None and (self.dynamic or not _is_number(self.theta) or self.theta <= self.base):
            raise ValueError(f"theta is the larger base of a static rope, above {self.base:g}; got {self.theta!r}")

    @property
    def changed_base(self) -> float:
        """b' = b·s^(D/(D−2)) (LlamaNTKScaledRotaryEmbedding.py:6), or the one given."""
        if self.theta is not None:
            return self.theta
        return self.base * self.scale ** (self.head_dim / (self.head_dim - 2))

    def inv_freq(self) -> Tensor:
        return 1.0 / self._wavenumbers(self.changed_base)

    def to_hf(self) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": self.changed_base}


def _temperature(value: Temperature | Mapping[str, float]) -> Temperature:
    if isinstance(value, Temperature):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"slope", "factor"}:
        raise ValueError(f"temperature must be {{slope: number}} or {{factor: number}}, got {value!r}")
    return Temperature(**value)


@dataclass(frozen=True, kw_only=True)
class TemperatureOnly(Rope):
    """Plain frequencies with YaRN's temperature: the half of YaRN that the paper never ablates alone."""

    method = "temperature"

    temperature: Temperature = field(default=Temperature(slope=0.1))

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "temperature", _temperature(self.temperature))

    @property
    def attention_factor(self) -> float:
        return self.temperature.at(self.scale)

    def to_hf(self) -> dict[str, Any]:
        return self.as_factors([1.0] * (self.head_dim // 2))


@dataclass(frozen=True, kw_only=True)
class NTKByParts(Rope):
    """NTK-by-parts, the ramp without the temperature: h = (1−γ)θ/s + γθ (paper Eq. 17-20).

    alpha and beta are rotations within the original context (beta_slow and beta_fast in the code). With
    ramp="dimension", γ falls linearly in the pair index between the indices at which beta and alpha rotations
    occur, widened by floor and ceil if `truncate` (LlamaYaRNScaledRotaryEmbedding.py:5-22). With
    ramp="rotations", γ is linear in r = L·θ/2π (paper Eq. 18) and `truncate` has no meaning.

    Raises ValueError for alpha >= beta, alpha <= 0 or an unknown ramp.
    """

    method = "ntk-by-parts"

    ramp: str = "dimension"
    truncate: bool = True
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ramp not in RAMPS:
            raise ValueError(f"ramp must be one of {', '.join(RAMPS)}, got {self.ramp!r}")
        if not isinstance(self.truncate, bool):
            raise ValueError(f"truncate must be true or false, got {self.truncate!r}")
        if not (_is_number(self.alpha) and _is_number(self.beta) and 0 < self.alpha < self.beta):
            raise ValueError(f"alpha and beta must satisfy 0 < alpha < beta, got {self.alpha!r}, {self.beta!r}")

    def correction_range(self) -> tuple[float, float]:
        """Pair indices between which γ falls from 1 to 0; clamped to [0, D−1] as in the official code."""
        low, high = (
            self.head_dim * math.log(self.original_context / (rotations * 2 * math.pi)) / (2 * math.log(self.base))
            for rotations in (self.beta, self.alpha)
        )
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        return max(low, 0), min(high, self.head_dim - 1)

    def kept(self) -> Tensor:
        """γ: the share of each original frequency that is kept; float32, shape (head_dim // 2,)."""
        import torch

        if self.ramp == "rotations":
            rotations = self.original_context / (2 * math.pi) / self._wavenumbers(self.base)
            return torch.clamp((rotations - self.alpha) / (self.beta - self.alpha), 0, 1)
        low, high = self.correction_range()
        if low == high:
            high += 0.001  # as in the official code: a step instead of a division by zero
        pairs = torch.arange(self.head_dim // 2, dtype=torch.float32)
        return 1 - torch.clamp((pairs - low) / (high - low), 0, 1)

    def inv_freq(self) -> Tensor:
        wavenumbers, kept = self._wavenumbers(self.base), self.kept()
        return 1.0 / (self.scale * wavenumbers) * (1 - kept) + 1.0 / wavenumbers * kept

    def to_hf(self) -> dict[str, Any]:
        if self.ramp == "rotations":
            return self.as_factors()
        return {
            "rope_type": "yarn",
            "rope_theta": self.base,
            "factor": float(self.scale),
            "original_max_position_embeddings": self.original_context,
            "beta_fast": float(self.beta),
            "beta_slow": float(self.alpha),
            "truncate": self.truncate,
            # Always explicit: left out, other readers have guessed it wrongly or dropped it.
            "attention_factor": self.attention_factor,
        }


@dataclass(frozen=True, kw_only=True)
class YaRN(NTKByParts, TemperatureOnly):
    """YaRN: NTK-by-parts with the attention temperature (paper Definition 3)."""

    method = "yarn"


@dataclass(frozen=True, kw_only=True)
class Llama3(Rope):
    """Llama 3.1's ramp over wavelengths, as stock transformers has it (_compute_llama3_parameters).

    NTK-by-parts linear in r = L·θ/2π with α = low_freq_factor and β = high_freq_factor, so γ = (r − α)/(β − α) within
    [0, 1]: the paper's own ramp (Eq. 18) with other bounds and without a temperature. For parents that have it.

    The scale says what low frequencies are divided by, not how long the context is: 8 and 32 of L = 8192 both serve
    131,072 tokens (Llama 3.1, 3.2). `max_position_embeddings` says that; without it the context is taken to be s·L.

    Raises ValueError unless 0 < low_freq_factor < high_freq_factor and max_position_embeddings is at least L.
    """

    method = "llama3"

    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    max_position_embeddings: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high, longest = self.low_freq_factor, self.high_freq_factor, self.max_position_embeddings
        if not (_is_number(low) and _is_number(high) and 0 < low < high):
            raise ValueError(f"low_freq_factor must be above 0 and below high_freq_factor, got {low!r}, {high!r}")
        if longest is not None and not (type(longest) is int and longest >= self.original_context):
            raise ValueError(
                f"max_position_embeddings must be a whole number of {self.original_context} or more, got {longest!r}"
            )

    @property
    def context(self) -> int:
        """What config.json says that the model serves, in tokens; where that isn't given, s·L."""
        return super().context if self.max_position_embeddings is None else self.max_position_embeddings

    def inv_freq(self) -> Tensor:
        import torch

        frequencies = Rope.inv_freq(self)
        rotations = self.original_context * frequencies / (2 * math.pi)
        kept = torch.clamp((rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        return (1 - kept) * frequencies / self.scale + kept * frequencies

    def to_hf(self) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "rope_theta": self.base,
            "factor": float(self.scale),
            "original_max_position_embeddings": self.original_context,
            "low_freq_factor": float(self.low_freq_factor),
            "high_freq_factor": float(self.high_freq_factor),
        }


@dataclass(frozen=True, kw_only=True)
class LongRoPE(Rope):
    """LongRoPE (arXiv 2402.13753) as Phi-3 and its kin have it, in stock transformers' form: θ_d is divided by one list
    of factors for inputs of up to L tokens and by another for longer ones (_compute_longrope_parameters).

    The attention factor is √(1 + ln s / ln L) at every length, or that of `temperature`. For parents that have it.

    Raises ValueError unless both lists have one number above 0 for each pair.
    """

    method = "longrope"
    dynamic = True

    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    temperature: Temperature | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("short_factor", "long_factor"):
            factors = getattr(self, name)
            if not isinstance(factors, list | tuple) or len(factors) != self.head_dim // 2:
                raise ValueError(f"{name} must be a list of {self.head_dim // 2} numbers, one for each pair")
            if not all(_is_number(factor) and factor > 0 for factor in factors):
                raise ValueError(f"{name} must hold numbers above 0, got {factors!r}")
            object.__setattr__(self, name, tuple(map(float, factors)))
        if self.temperature is not None:
            object.__setattr__(self, "temperature", _temperature(self.temperature))

    def at(self, length: int) -> Rope:
        return self if length <= self.original_context else replace(self, short_factor=self.long_factor)

    @property
    def attention_factor(self) -> float:
        if isinstance(self.temperature, Temperature):
            return self.temperature.at(self.scale)
        return math.sqrt(1 + math.log(self.scale) / math.log(self.original_context))

    def inv_freq(self) -> Tensor:
        """The frequencies within the original context; `at(length)` gives those of a longer input."""
        import torch

        return 1.0 / (torch.tensor(self.short_factor) * self._wavenumbers(self.base))

    def to_hf(self) -> dict[str, Any]:
        return {**self.as_factors(list(self.short_factor)), "long_factor": list(self.long_factor)}


class Dynamic(Rope):
    """Dynamic scaling (paper §3.3): the static method with s = max(1, l/L) for an input of l tokens.

    Stateless: `at(length)` depends on nothing but the length, and for l <= L it is plain RoPE bit for bit. Keys
    must be cached before rotation, as yarnlab.generation does; transformers caches them after it.
    """

    dynamic = True
    static: ClassVar[type[Rope]]

    def at(self, length: int) -> Rope:
        if length <= self.original_context:
            return Rope(original_context=self.original_context, head_dim=self.head_dim, base=self.base)
        settings = {f.name: getattr(self, f.name) for f in fields(self)}
        return self.static(**{**settings, "scale": length / self.original_context})

    @property
    def attention_factor(self) -> float:
        return 1.0

    def inv_freq(self) -> Tensor:
        """The frequencies within the original context; `at(length)` gives those of a longer input."""
        return Rope.inv_freq(self)

    to_hf = Rope.to_hf  # not the static method's


class DynamicPI(Dynamic, PositionInterpolation):
    """Dynamic PI."""

    method = "dynamic-pi"
    static = PositionInterpolation


class DynamicNTK(Dynamic, NTKAware):
    """Dynamic NTK; stock transformers' `dynamic` with factor 1 and max_position_embeddings = L is the same rule
    for one forward pass, but keeps the longest scale seen for later, shorter inputs."""

    method = "dynamic-ntk"
    static = NTKAware

    def to_hf(self) -> dict[str, Any]:
        return {"rope_type": "dynamic", "rope_theta": self.base, "factor": 1.0}


class DynamicYaRN(Dynamic, YaRN):
    """Dynamic YaRN."""

    method = "dynamic-yarn"
    static = YaRN


METHODS: dict[str, type[Rope]] = {
    cls.method: cls
    for cls in (
        Rope,
        PositionInterpolation,
        NTKAware,
        NTKByParts,
        TemperatureOnly,
        YaRN,
        Llama3,
        LongRoPE,
        DynamicPI,
        DynamicNTK,
        DynamicYaRN,
    )
}


_SHARED = tuple(f.name for f in fields(Rope))


def options(method: str) -> tuple[str, ...]:
    """The options that `method` takes beyond scale, original_context, head_dim and base."""
    return tuple(f.name for f in fields(_known(method)) if f.name not in _SHARED)


def make_rope(
    method: str,
    *,
    scale: float = 1.0,
    original_context: int,
    head_dim: int,
    base: float = 10000.0,
    **method_options: Any,
) -> Rope:
    """The rope of one method.

    Args:
        method: a name in `METHODS`.
        scale: s = L'/L >= 1; for dynamic methods only the declared context, their scale follows the input.
        original_context: L, the pre-training window in tokens.
        head_dim: D, the dimension of one attention head.
        base: b, `rope_theta` in transformers.
        method_options: those of `options(method)`: ramp, truncate, alpha, beta, temperature.

    Raises ValueError naming the method, option or value that is wrong.
    """
    check_options(method, method_options)
    cls = _known(method)
    return cls(scale=scale, original_context=original_context, head_dim=head_dim, base=base, **method_options)


@dataclass(frozen=True)
class Head:
    """What a model gives to its rope: D dimensions of a head that turn, base b, its window, its family's ramp.

    original_context: L in tokens. head_dim: D, below the head's own width in families that turn a part of it. alpha,
    beta: rotations within L at the ramp's borders that suit the family (paper §3.2: 1 and 32 for Llama).
    """

    original_context: int
    head_dim: int
    rope_theta: float = Rope.base
    alpha: float = NTKByParts.alpha
    beta: float = NTKByParts.beta

    def make_rope(self, method: str, scale: float = 1.0, **method_options: Any) -> Rope:
        """The rope of one method for this model; one with a ramp has the family's α and β where it is given no own.

        Raises ValueError as `make_rope` does.
        """
        family = {"alpha": self.alpha, "beta": self.beta} if {"ramp", "alpha", "beta"} <= {*options(method)} else {}
        return make_rope(
            method,
            scale=scale,
            original_context=self.original_context,
            head_dim=self.head_dim,
            base=self.rope_theta,
            **family | method_options,
        )


def check_options(method: str, names: Iterable[str]) -> None:
    """Raises ValueError for names that are no options of the method: of other methods, or the model's own shape."""
    for name in sorted(set(names) - set(options(method))):
        allowed = ", ".join(options(method)) or "none"
        reason = "is set elsewhere, it is no option of" if name in _SHARED else "has no effect with"
        raise ValueError(f"{name} {reason} method {method} (its options: {allowed})")


def _known(method: str) -> type[Rope]:
    if method not in METHODS:
        raise ValueError(f"unknown RoPE method {method!r}; known: {', '.join(METHODS)}")
    return METHODS[method]
