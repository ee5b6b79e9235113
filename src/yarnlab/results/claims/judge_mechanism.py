"""Why YaRN works: the temperature, the entropy of the attention, the shape of the ramp (claims 13 to 16 and 35)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

from yarnlab.lazy import np
from yarnlab.results.bases import compared_with
from yarnlab.results.claims.claims import Part, interval, reaches
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.estimates import REFERENCE_VARIANT, NotMeasured, cells, entropy_of, gap, nll, paired
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Array, Estimate, mean, proportion, resampled
from yarnlab.results.style import labels, method_label
from yarnlab.results.temperature import document_nll, line, spread_of_best, sweep_of_base

SCALE = 8.0  # of the paper's sweep (App. A.2)
NEGLIGIBLE = 0.02  # ln perplexity


def claim_13(results: Results) -> Iterator[Part]:
    """The temperature helps at every position and in almost every document."""
    base = base_model(results)
    whole, parts = spread_of_best(results, _scale(results))
    for segment in range(parts.shape[1]):
        change = gap(
            document_nll(results, SCALE, "formula", segment=segment),
            document_nll(results, SCALE, "grid", 1.0, segment),
        )
        name = f"s={SCALE:g}, segment {segment + 1} of {parts.shape[1]}, ln perplexity with the formula's factor minus"
        yield interval(f"{name} without", change, "<", 0.0, [base.arm])
    share = replace(proportion(int((whole > 1.0).sum()), len(whole)), over="documents")
    yield reaches(f"s={SCALE:g}, share of documents whose best factor is above 1", share, 0.95, [base.arm])


def claim_14(results: Results) -> Iterator[Part]:
    """The best factor varies little between documents and positions."""
    base = base_model(results)
    whole, parts = spread_of_best(results, _scale(results))
    spread = resampled(whole, _interquartile_range, unit="√(1/t)")
    yield interval(f"s={SCALE:g}, interquartile range of the documents' best factors", spread, "<=", 0.10, [base.arm])
    modes = resampled(parts, _range_of_modes, unit="√(1/t)")
    yield interval(f"s={SCALE:g}, range of the segments' modal best factors", modes, "<=", 0.10, [base.arm])


def claim_15(results: Results) -> Iterator[Part]:
    """The best factor grows with ln s from about 1; the slope is reported, not judged against the paper's."""
    base, (slope, intercept, scales) = base_model(results), line(results)
    yield interval(f"slope of the best √(1/t) over ln s ({scales} scales; paper: 0.1)", slope, ">", 0.0, [base.arm])
    name = f"intercept of that line ({scales} scales; paper: 1)"
    yield interval(name, intercept, ">=", 0.97, [base.arm])
    yield interval(name, intercept, "<=", 1.03, [base.arm])


def claim_16(results: Results) -> Iterator[Part]:
    """Interpolation raises the entropy of the attention, and the temperature brings it back."""
    base = base_model(results)
    tables = cells(results, "entropy", "entropy", ("method", "scale"))
    plain = entropy_of(results, "none", 1.0)
    scales = sorted({scale for method, scale in tables if method != "none"})
    for method in ("pi", "ntk-by-parts"):
        own = {scale: tables[method, scale] for scale in scales if (method, scale) in tables}
        if not own:
            raise NotMeasured(f"the entropy under {method_label(method)} was not measured")
        for scale, found in own.items():
            rise = mean(paired(found, plain))
            name = f"s={scale:g}, entropy under {method_label(method)} minus the base's"
            yield interval(name, rise, ">", 0.0, [base.arm])
        for small, large in pairwise(own):
            growth = mean(paired(own[large], own[small]))
            name = f"entropy under {method_label(method)}, s={large:g} minus s={small:g}"
            yield interval(name, growth, ">", 0.0, [base.arm])
    for scale in scales:
        if ("yarn", scale) not in tables or ("ntk-by-parts", scale) not in tables:
            continue
        with_it, without = (np.abs(paired(tables[m, scale], plain)) for m in ("yarn", "ntk-by-parts"))
        name = f"s={scale:g}, distance from the base's entropy, with the temperature minus without"
        yield interval(name, mean(with_it - without), "<", 0.0, [base.arm])


def claim_35(results: Results) -> Iterator[Part]:
    """Another ramp changes the perplexity at sL by a negligible amount, untrained and trained."""
    yield from _untrained_ramps(results)
    names = labels(results)
    for model, official in _trained_ramps(results):
        length = int(model.scale * results.original_context)
        change = _size(gap(nll(results, model.arm, length), nll(results, official.arm, length)))
        sources = [f"perplexity:{model.arm}", f"perplexity:{official.arm}"]
        name = f"fine-tuned, {length:,} tokens, |Δ ln ppl| of {names[model.arm]} to {names[official.arm]}"
        yield interval(name, change, "<=", NEGLIGIBLE, sources)


def _untrained_ramps(results: Results) -> Iterator[Part]:
    """Every variant of the base's ramp but those with another temperature, which is not the ramp's shape."""
    base = base_model(results)
    tables = cells(results, "ramp", "nll", ("variant", "scale", "length"))
    variants = results.evaluations["ramp"]["variants"]
    for (variant, scale, length), own in tables.items():
        reference = tables.get((REFERENCE_VARIANT, scale, length))
        if variant == REFERENCE_VARIANT or length != scale * results.original_context:
            continue
        if "temperature" in variants.get(variant, {}):
            continue
        if reference is None:
            raise NotMeasured(f"the ramp evaluation has no variant called '{REFERENCE_VARIANT}' to compare with")
        name = f"s={scale:g} at {length:,} tokens, untrained, |Δ ln ppl| of '{variant}' to the official ramp"
        yield interval(name, _size(gap(own, reference)), "<=", NEGLIGIBLE, [f"ramp:{base.arm}"])


def _trained_ramps(results: Results) -> list[tuple[Model, Model]]:
    """YaRN arms with another ramp, each with one of the official ramp that was trained alike at one temperature.

    Only arms whose perplexity the study plans.
    """
    arms = [m for m in results.arms().values() if m.method == "yarn" and results.plans("perplexity", m.arm)]
    first = compared_with(results)
    official = sorted((m for m in arms if m.official_ramp), key=lambda m: m != first)
    pairs = []
    for model in (m for m in arms if not m.official_ramp):
        alike = (m for m in official if results.alike(model, m) and model.attention_factor == m.attention_factor)
        pairs += [(model, twin) for twin in islice(alike, 1)]
    return pairs


def _scale(results: Results) -> float:
    if SCALE not in set(sweep_of_base(results)["scale"]):
        raise NotMeasured(f"the temperature sweep has no scale {SCALE:g}")
    return SCALE


def _size(e: Estimate) -> Estimate:
    """Absolute value of an estimate: its interval holds the absolute values of the original one."""
    low = 0.0 if e.low <= 0 <= e.high else min(abs(e.low), abs(e.high))
    return Estimate(abs(e.value), low, max(abs(e.low), abs(e.high)), e.n, e.over, f"size of the {e.unit}", e.method)


def _interquartile_range(factors: Array) -> Array:
    """(…, documents) -> (…,); rounded, since 1.3 − 1.2 is not exactly 0.1."""
    low, high = np.percentile(factors, [25, 75], axis=1)
    return np.asarray(np.round(high - low, 9))


def _range_of_modes(factors: Array) -> Array:
    """(resamples, documents, segments) -> (resamples,): largest minus smallest mode; of equal modes the smallest."""
    grid = np.unique(factors)
    counts = np.stack([(factors == factor).sum(axis=1) for factor in grid], axis=-1)
    modes = grid[counts.argmax(axis=-1)]
    return np.asarray(np.round(modes.max(axis=1) - modes.min(axis=1), 9))
