"""One comparison of a claim, and the verdict that its comparisons make together.

A part compares one estimate with one threshold; parts make a verdict the same way in every claim (`combine`). A claim
holds where all of its parts do, each at 2.5 % on one side: an intersection-union test, which needs no correction. One
part of many is enough for it to fail, so failures are corrected over all parts (Holm 1979).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace

from yarnlab.results.estimates import NotMeasured
from yarnlab.results.statistics import LEVEL, Estimate

HOLDS, PARTLY, FAILS, UNDECIDED, NOT_RUN = "holds", "holds in part", "fails", "undecided", "not run"
STATUSES = (HOLDS, PARTLY, FAILS, UNDECIDED, NOT_RUN)
SIGNS = {"<": "below", ">": "above", "<=": "at most", ">=": "at least"}
COMPARE = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
# Units of estimates that are not shown as plain decimals.
SHARE, POINTS, COUNTS = "proportion", "difference of proportions", ("pairs", "segments")


@dataclass(frozen=True)
class Part:
    """One comparison: `estimate` against `threshold`, in the direction `sign`, read from `models`.

    models: arms, each as `kind:arm` where the kind of results is not the first that the claim needs.
    note: why the status is not what the interval says.
    """

    name: str
    estimate: Estimate
    sign: str
    threshold: float
    status: str
    models: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a claim came to: the status, the part that decided it, every part, and one sentence."""

    status: str
    text: str
    decisive: Part | None = None
    parts: tuple[Part, ...] = ()


def interval(name: str, estimate: Estimate, sign: str, threshold: float = 0.0, models: Iterable[str] = ()) -> Part:
    """A part that holds when the whole 95 % interval lies on the right side of `threshold`.

    It fails when the whole interval lies on the other side and is undecided in between.
    """
    better, worse = (estimate.low, estimate.high) if sign in ("<", "<=") else (estimate.high, estimate.low)
    holds = COMPARE[sign]
    status = HOLDS if holds(worse, threshold) else UNDECIDED if holds(better, threshold) else FAILS
    return Part(name, estimate, sign, float(threshold), status, tuple(models))


def combine(parts: Iterable[Part]) -> Verdict:
    """All hold: holds. One fails: fails, or holds in part where others hold. Otherwise undecided.

    A part that fails by itself but not after Holm's correction over all parts counts as undecided.
    """
    parts = _corrected(tuple(parts))
    if not parts:
        raise NotMeasured("nothing to compare in this study")
    found = {part.status for part in parts}
    if found == {HOLDS}:
        status = HOLDS
    elif FAILS in found:
        status = PARTLY if HOLDS in found else FAILS
    else:
        status = UNDECIDED
    shown = FAILS if FAILS in found else UNDECIDED if UNDECIDED in found else HOLDS
    decisive = min((part for part in parts if part.status == shown), key=_margin)
    text = describe(decisive)
    if len(parts) > 1:
        held = sum(part.status == HOLDS for part in parts)
        lead = "tightest" if shown == HOLDS else "decided by"
        text = f"{held} of {len(parts)} comparisons hold; {lead}: {text}"
    return Verdict(status, text, decisive, parts)


def _corrected(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts, with those undecided that fail without Holm's correction only.

    Holm's step-down in terms of intervals: what fails at LEVEL / k of k parts is proven, the rest is tried at LEVEL
    over the number that is left, until nothing more is proven.
    """
    failing = {i for i, part in enumerate(parts) if part.status == FAILS}
    proven: set[int] = set()
    while more := {i for i in failing - proven if _fails_at(parts[i], LEVEL / (len(parts) - len(proven)))}:
        proven |= more
    note = f"beyond it, but not after Holm's correction over {len(parts)} comparisons"
    return tuple(
        replace(part, status=UNDECIDED, note=note) if i in failing - proven else part for i, part in enumerate(parts)
    )


def _fails_at(part: Part, level: float) -> bool:
    """Does the part fail with the interval of this level (two-sided)?"""
    low, high = part.estimate.at(1 - level)
    better = low if part.sign in ("<", "<=") else high
    return not COMPARE[part.sign](better, part.threshold)


def describe(part: Part) -> str:
    """One line: what was compared, the number with its interval, the threshold, n."""
    e = part.estimate
    digits = _digits(part)
    value, low, high = (number(x, e.unit, digits) for x in (e.value, e.low, e.high))
    points = " percentage points" if e.unit == POINTS else ""
    return (
        f"{part.name}: {value} [{low}, {high}]{points}, "
        f"expected {SIGNS[part.sign]} {_threshold(part.threshold, e.unit)} (n = {e.n:,} {e.over})"
        f"{', ' if part.note else ''}{part.note}"
    )


def number(x: float, unit: str = "", digits: int = 3) -> str:
    """A number as shown to a reader: `digits` decimals (one from 10 up), or as its unit wants it.

    A share is in percent with one decimal, a difference of shares in percentage points with its sign, a count whole.
    """
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    if unit == SHARE:
        text = f"{100 * x:.1f} %"
    elif unit == POINTS:
        text = f"{100 * x:+.1f}"
    elif unit in COUNTS:
        text = f"{x:,g}"
    else:
        text = f"{x:.{digits}f}" if abs(x) < 10 else f"{x:.1f}"
    return text.replace("-", "−")


def _digits(part: Part) -> int:
    """Three decimals, or as many as it takes to tell the number from its threshold."""
    e = part.estimate
    distances = [d for d in (e.high - e.low, abs(e.value - part.threshold)) if 0 < d < math.inf]
    return min(6, max([3, *(1 - math.floor(math.log10(d)) for d in distances)]))


def _threshold(x: float, unit: str) -> str:
    digits = ".4g" if abs(x) < 1 else "g"  # a computed one has more than say anything
    text = f"{100 * x:g} %" if unit == SHARE else f"{100 * x:g}" if unit == POINTS else f"{x:{digits}}"
    return text.replace("-", "−")


def _margin(part: Part) -> float:
    """How clearly a part is decided, in widths of its interval; the smallest is shown."""
    e = part.estimate
    width = e.high - e.low
    if part.status == FAILS:
        return -abs(e.value - part.threshold)
    return abs(e.value - part.threshold) / width if width > 0 else math.inf
