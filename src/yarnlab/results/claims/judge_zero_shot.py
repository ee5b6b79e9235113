"""Comparisons without any fine-tuning: the base under every method at scale s (claims 7 to 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from yarnlab.results.bases import compared_with
from yarnlab.results.claims.claims import Part, interval
from yarnlab.results.estimates import NotMeasured, gap, nll, paired, zero_shot
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Estimate, mean
from yarnlab.results.style import method_label

RIVALS = ("ntk-by-parts", "ntk-aware", "pi")
SCALES = (4.0, 8.0, 16.0)


def ratio(results: Results, a: str, b: str, scale: float, length: int) -> Estimate:
    """Perplexity of method a over that of method b, zero-shot, paired by document."""
    difference = gap(zero_shot(results, a, scale, length), zero_shot(results, b, scale, length))
    return difference.map(math.exp, "ratio of perplexities")


def base_model(results: Results) -> Model:
    """The pretrained model, or NotMeasured."""
    base = results.base()
    if base is None:
        raise NotMeasured("this study has no pretrained base")
    return base


def claim_7(results: Results) -> Iterator[Part]:
    """Raw RoPE beyond the window."""
    base, length = base_model(results), results.original_context
    change = gap(nll(results, base.arm, 2 * length), nll(results, base.arm, length))
    name = f"base, perplexity at 2L over that at L ({2 * length:,} / {length:,} tokens)"
    yield interval(name, change.map(math.exp, "ratio of perplexities"), ">", 2.0, [base.arm])


def claim_8(results: Results) -> Iterator[Part]:
    """YaRN best at every scale, by a growing margin."""
    base = base_model(results)
    for scale in SCALES:
        length = int(scale * results.original_context)
        for rival in RIVALS:
            name = f"s={scale:g} at {length:,} tokens, YaRN / {method_label(rival)}"
            yield interval(name, ratio(results, "yarn", rival, scale, length), "<", 1.0, [base.arm])
    for rival in RIVALS:
        label = method_label(rival)
        growth = _growth(results, rival, SCALES[0], SCALES[-1])
        name = f"gap of {label} to YaRN in ln perplexity, s={SCALES[-1]:g} minus s={SCALES[0]:g}"
        yield interval(name, growth, ">", 0.0, [base.arm])


def claim_9(results: Results) -> Iterator[Part]:
    """The temperature closes the gap that grows with scale."""
    base = base_model(results)
    for scale in SCALES:
        length = int(scale * results.original_context)
        name = f"s={scale:g} at {length:,} tokens, NTK-by-parts / YaRN"
        yield interval(name, ratio(results, "ntk-by-parts", "yarn", scale, length), ">", 1.0, [base.arm])
    for small, large in pairwise(SCALES):
        name = f"gap of NTK-by-parts to YaRN in ln perplexity, s={large:g} minus s={small:g}"
        yield interval(name, _growth(results, "ntk-by-parts", small, large), ">", 0.0, [base.arm])


def claim_10(results: Results) -> Iterator[Part]:
    """NTK-aware beats PI, but not up to s times the window."""
    base = base_model(results)
    for scale in SCALES:
        half = int(scale * results.original_context / 2)
        name = f"s={scale:g} at {half:,} tokens (half of sL), NTK-aware / PI"
        yield interval(name, ratio(results, "ntk-aware", "pi", scale, half), "<", 1.0, [base.arm])
        full = zero_shot(results, "ntk-aware", scale, 2 * half)
        rise = gap(full, zero_shot(results, "ntk-aware", scale, half))
        name = f"s={scale:g}, NTK-aware at {2 * half:,} tokens over {half:,} tokens"
        yield interval(name, rise.map(math.exp, "ratio of perplexities"), ">", 1.0, [base.arm])


def order(results: Results) -> Iterator[Part]:
    """Acceptance: the full order at the scale of the ablation."""
    base, first = base_model(results), compared_with(results)
    if first is None:
        raise NotMeasured("this study fine-tunes no YaRN model, so it has no ablation scale")
    length = int(first.scale * results.original_context)
    for better, worse in pairwise(("yarn", *RIVALS)):
        name = f"s={first.scale:g} at {length:,} tokens, {method_label(better)} / {method_label(worse)}"
        yield interval(name, ratio(results, better, worse, first.scale, length), "<", 1.0, [base.arm])


def _growth(results: Results, rival: str, small: float, large: float) -> Estimate:
    def difference(scale: float):  # type: ignore[no-untyped-def]
        length = int(scale * results.original_context)
        return zero_shot(results, rival, scale, length) - zero_shot(results, "yarn", scale, length)

    return mean(paired(difference(large), difference(small)), unit="difference in ln perplexity")
