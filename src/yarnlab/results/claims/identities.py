"""Claims that are identities of the formulas, computed with this study's own RoPE code at its models' own heads.

Nothing is trained for them, so they hold or fail exactly; n counts what was compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from yarnlab.lazy import torch
from yarnlab.results.claims.models import Scope
from yarnlab.results.claims.notation import Window
from yarnlab.results.claims.parts import Part, interval
from yarnlab.results.claims.special import special
from yarnlab.results.results import Results
from yarnlab.results.statistics import Estimate
from yarnlab.rope import Head

if TYPE_CHECKING:
    from torch import Tensor


def heads(results: Results) -> list[Head]:
    """The distinct heads of the study's models."""
    return list(dict.fromkeys(model.head for model in results.models.values()))


@special
def temperature_in_tables(scope: Scope, *, positions: int, scales: list[float], below: float) -> Iterator[Part]:
    """Scaling the tables by √(1/t) is dividing the logits by t."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    worst, compared = 0.0, 0
    for head in heads(scope.results):
        generator = torch.Generator().manual_seed(0)
        q, k = (torch.randn(1, 1, positions, head.head_dim, generator=generator) for _ in range(2))
        for scale in scales:
            rope = head.make_rope("yarn", scale)
            angles = torch.arange(positions)[None, :, None].float() * rope.inv_freq()
            cos, sin = (f(torch.cat((angles, angles), -1)) for f in (torch.cos, torch.sin))
            factor = rope.attention_factor
            scaled_q, scaled_k = apply_rotary_pos_emb(q, k, cos * factor, sin * factor)
            plain_q, plain_k = apply_rotary_pos_emb(q, k, cos, sin)
            root = math.sqrt(head.head_dim)
            tables = scaled_q @ scaled_k.transpose(-1, -2) / root
            divided = plain_q @ plain_k.transpose(-1, -2) * (factor**2 / root)
            worst, compared = max(worst, float((tables - divided).abs().max())), compared + tables.numel()
    yield interval("largest difference of the logits", _exact(worst, compared, "logits"), "<", below)


@special
def temperature_formula(scope: Scope, *, scales: list[float], factors: list[float], below: float) -> Iterator[Part]:
    """√(1/t) = 0.1 ln s + 1, and 1 up to s = 1."""
    for head in heads(scope.results)[:1]:
        found = [head.make_rope("yarn", scale).attention_factor for scale in scales]
        worst = max(abs(own - printed) for own, printed in zip(found, factors, strict=True))
        yield interval("largest difference to the printed factors", _exact(worst, len(scales), "scales"), "<", below)
        at_one = abs(head.make_rope("yarn", 1.0).attention_factor - 1.0)
        yield interval("difference to 1 at s = 1", _exact(at_one, 1, "scale"), "<=", 0.0)


@special
def highest_and_lowest(scope: Scope, *, scales: list[float], within: float) -> Iterator[Part]:
    """NTK-aware keeps the first frequency and divides the last by s."""
    first, last, compared = 0.0, 0.0, 0
    for head in heads(scope.results):
        plain = head.make_rope("none", 1.0).inv_freq().double()
        for scale in scales:
            own = head.make_rope("ntk-aware", scale).inv_freq().double()
            first = max(first, abs(float(own[0] / plain[0]) - 1))
            last = max(last, abs(float(own[-1] / plain[-1]) * scale - 1))
            compared += 1
    yield interval("highest frequency, relative change", _exact(first, compared, "scales"), "<=", within)
    yield interval("lowest frequency, relative difference to θ/s", _exact(last, compared, "scales"), "<=", within)


@special
def between_pi_and_rope(scope: Scope, *, scales: list[float], within: float) -> Iterator[Part]:
    """NTK-by-parts lies between PI and plain RoPE, and is one or the other outside its ramp."""
    outside, beyond, pairs = 0.0, 0.0, 0
    for head in heads(scope.results):
        plain = head.make_rope("none", 1.0).inv_freq().double()
        for scale in scales:
            rope = head.make_rope("ntk-by-parts", scale, truncate=False)
            own = rope.inv_freq().double()
            turns = head.original_context * plain / (2 * math.pi)
            for chosen, expected in ((turns < head.alpha, plain / scale), (turns > head.beta, plain)):
                if chosen.any():
                    outside = max(outside, float((own[chosen] / expected[chosen] - 1).abs().max()))
            below, above = plain / scale / own - 1, own / plain - 1
            beyond = max(beyond, float(below.max()), float(above.max()))
            pairs += len(own)
    name = "pairs of r < α against θ/s and of r > β against θ, relative difference"
    yield interval(name, _exact(outside, pairs, "pairs"), "<=", within)
    yield interval("excess over θ/s ≤ h ≤ θ, relative", _exact(beyond, pairs, "pairs"), "<=", within)


@special
def unchanged_up_to_context(scope: Scope, *, methods: list[str], lengths: list[int | str]) -> Iterator[Part]:
    """Dynamic scaling changes no bit for texts of up to L tokens."""
    changed, compared = 0, 0
    for head in heads(scope.results):
        plain = head.make_rope("none", 1.0).inv_freq()
        for method in methods:
            for length in Window(head.original_context).all(lengths):
                at = head.make_rope(method, 1.0).at(length)
                changed += not _same_bits(at.inv_freq(), plain) or at.attention_factor != 1.0
                compared += 1
    yield interval("lengths up to L with other tables", _exact(float(changed), compared, "lengths"), "<=", 0.0)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def _exact(value: float, n: int, over: str) -> Estimate:
    return Estimate(value, value, value, n, over, "difference", "computed, no sampling")
