"""Claims of the paper as functions from results to verdicts.

A criterion is written before the result: changing one means raising CRITERIA_VERSION in `criteria.py`.
A part compares one estimate with one threshold; parts make a verdict the same way in every claim (`combine`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from yarnlab.results.display import manifests_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.missing import command_for, paper_mark
from yarnlab.results.output import write
from yarnlab.results.results import Results
from yarnlab.results.statistics import LEVEL, Estimate

HOLDS, PARTLY, FAILS, UNDECIDED, NOT_RUN = "holds", "holds in part", "fails", "undecided", "not run"
STATUSES = (HOLDS, PARTLY, FAILS, UNDECIDED, NOT_RUN)
# Units of estimates that are not shown as plain decimals.
SHARE, POINTS, COUNTS = "proportion", "difference of proportions", ("pairs", "segments")
ACROSS = ("27", "28", "29")  # at full scale these compare models of several roots


@dataclass(frozen=True)
class Part:
    """One comparison: `estimate` against `threshold`, in the direction `sign`, read from `models`."""

    name: str
    estimate: Estimate
    sign: str
    threshold: float
    status: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a claim came to: the status, the part that decided it, every part, and one sentence."""

    status: str
    text: str
    decisive: Part | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Form:
    """One form of a claim: the criterion, the kinds of results that it needs, and the function that judges."""

    criterion: str
    needs: tuple[str, ...]
    judge: Callable[[Results], Iterable[Part]] = field(repr=False)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the criterion it is judged by, in the scale-free form.

    reference: what the paper's own data say. role: which of the study's roots it is about (family.py). The form at
    full scale stands in criteria_full_scale.py where it differs.
    """

    id: str
    title: str
    source: str
    criterion: str
    needs: tuple[str, ...]
    judge: Callable[[Results], Iterable[Part]] = field(repr=False)
    reference: str = ""
    role: str = "ablation"

    def in_form(self, form: str) -> Claim:
        """The claim as it is judged on a study of this form: scale-free or full-scale."""
        from yarnlab.results.claims.criteria_full_scale import FULL_SCALE

        other = FULL_SCALE.get(self.id) if form == "full-scale" else None
        return self if other is None else replace(self, criterion=other.criterion, needs=other.needs, judge=other.judge)


def interval(name: str, estimate: Estimate, sign: str, threshold: float = 0.0, models: Iterable[str] = ()) -> Part:
    """A part that holds when the whole 95 % interval lies on the right side of `threshold`.

    It fails when the whole interval lies on the other side and is undecided in between.
    """
    inside = {
        "<": estimate.high < threshold,
        ">": estimate.low > threshold,
        "<=": estimate.high <= threshold,
        ">=": estimate.low >= threshold,
    }[sign]
    outside = {
        "<": estimate.low >= threshold,
        ">": estimate.high <= threshold,
        "<=": estimate.low > threshold,
        ">=": estimate.high < threshold,
    }[sign]
    status = HOLDS if inside else FAILS if outside else UNDECIDED
    return Part(name, estimate, sign, threshold, status, tuple(models))


def reaches(name: str, estimate: Estimate, threshold: float, models: Iterable[str] = ()) -> Part:
    """A part that holds when the observed share is at least `threshold`.

    It fails when even the upper end of the interval is below it, and is undecided in between: with 50
    trials no interval can exclude 95 %, so asking that of the interval would make a claim undecidable.
    """
    status = HOLDS if estimate.value >= threshold else FAILS if estimate.high < threshold else UNDECIDED
    return Part(name, estimate, ">=", threshold, status, tuple(models))


def tested(name: str, estimate: Estimate, p: float, models: Iterable[str] = ()) -> Part:
    """A part on a difference that should be above 0, decided by a test whose p-value is corrected already.

    It holds when the difference is above 0 and fails when it is below, each only where p is below LEVEL and the
    interval excludes 0; otherwise it is undecided, a tie included.
    """
    sure = p < LEVEL and (estimate.low > 0 or estimate.high < 0)
    status = UNDECIDED if not sure else HOLDS if estimate.value > 0 else FAILS
    return Part(name, estimate, ">", 0.0, status, tuple(models))


def combine(parts: Iterable[Part]) -> Verdict:
    """All hold: holds. One fails: fails, or holds in part where others hold. Otherwise undecided."""
    parts = tuple(parts)
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
    candidates = [part for part in parts if part.status == shown]
    decisive = min(candidates, key=_margin)
    held = sum(part.status == HOLDS for part in parts)
    text = describe(decisive)
    if len(parts) > 1:
        lead = "tightest" if shown == HOLDS else "decided by"
        text = f"{held} of {len(parts)} comparisons hold; {lead}: {text}"
    return Verdict(status, text, decisive, parts)


def describe(part: Part) -> str:
    """One line: what was compared, the number with its interval, the threshold, n."""
    e = part.estimate
    words = {"<": "below", ">": "above", "<=": "at most", ">=": "at least"}
    digits = _digits(part)
    value, low, high = (number(x, e.unit, digits) for x in (e.value, e.low, e.high))
    points = " percentage points" if e.unit == POINTS else ""
    return (
        f"{part.name}: {value} [{low}, {high}]{points}, "
        f"expected {words[part.sign]} {_threshold(part.threshold, e.unit)} (n = {e.n:,} {e.over})"
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
    text = f"{100 * x:g} %" if unit == SHARE else f"{100 * x:g}" if unit == POINTS else f"{x:g}"
    return text.replace("-", "−")


def judge(claim: Claim, results: Results) -> Verdict:
    """The verdict on one claim, as it stands; 'not run' with the reason when something it needs is absent."""
    from yarnlab.results.bases import EVERY, family

    try:
        own = family(results, EVERY if results.form == "full-scale" and claim.id in ACROSS else claim.role)
        reason = own.missing(claim.needs)
        return Verdict(NOT_RUN, reason) if reason is not None else combine(claim.judge(own))
    except NotMeasured as absent:
        return Verdict(NOT_RUN, str(absent))


def evaluate(results: Results) -> list[tuple[Claim, Verdict]]:
    """Every claim, in the study's form, with its verdict, in the order of `criteria.CLAIMS`."""
    from yarnlab.results.claims.criteria import CLAIMS

    claims = [claim.in_form(results.form) for claim in CLAIMS]
    return [(claim, judge(claim, results)) for claim in claims]


def criteria_sha256() -> str:
    """Hash of all criteria: the same text for the same version."""
    from yarnlab.results.claims.criteria import CLAIMS

    texts = [[c.id, *(c.in_form(form).criterion for form in ("scale-free", "full-scale"))] for c in CLAIMS]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def write_claims(results: Results, command: str) -> list[Path]:
    """Judge every claim and write `claims.json`; `command` is what a reader runs to fill in what is missing."""
    from yarnlab.results.claims.criteria import CRITERIA_VERSION

    verdicts = evaluate(results)
    document = {
        "claims_format": 2,
        "study": results.study,
        "study_sha256": results.study_sha256,
        "original_context": results.original_context,
        "form": results.form,
        "criteria_version": CRITERIA_VERSION,
        "criteria_sha256": criteria_sha256(),
        "counts": {s: sum(v.status == s for _, v in verdicts) for s in STATUSES},
        "claims": [_entry(results, claim, verdict, command) for claim, verdict in verdicts],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return [write(results.directory / "claims.json", text)]


def _entry(results: Results, claim: Claim, verdict: Verdict, command: str) -> dict[str, Any]:
    decisive = verdict.decisive
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "criterion": claim.criterion,
        "role": claim.role,
        "paper_data": claim.reference,
        "needs": list(claim.needs),
        "status": verdict.status,
        "text": verdict.text,
        "number": _finite(decisive.estimate.value) if decisive else None,
        "interval": [_finite(decisive.estimate.low), _finite(decisive.estimate.high)] if decisive else None,
        "unit": decisive.estimate.unit if decisive else None,
        "n": decisive.estimate.n if decisive else None,
        "over": decisive.estimate.over if decisive else None,
        "method": decisive.estimate.method if decisive else None,
        "parts": [_part(part) for part in verdict.parts],
        "sources": _sources(results, claim, verdict),
        "mark": paper_mark(claim.reference),
        "command": command_for(results, claim.needs, command) if verdict.status == NOT_RUN else "",
    }


def _part(part: Part) -> dict[str, Any]:
    entry = asdict(part)
    entry["estimate"] = {k: _finite(v) if isinstance(v, float) else v for k, v in entry["estimate"].items()}
    return entry | {"text": describe(part)}


def _sources(results: Results, claim: Claim, verdict: Verdict) -> list[str]:
    """Manifests of the models that were compared; a part may name another kind of results ('passkey:arm')."""
    found: list[str] = []
    for source in dict.fromkeys(source for part in verdict.parts for source in part.models):
        kind, _, arm = source.rpartition(":")
        found += manifests_of(results, kind or claim.needs[0], arm)
    return list(dict.fromkeys(found))


def _finite(x: float) -> float | None:
    """JSON has no infinity: an unbounded side is null."""
    return x if math.isfinite(x) else None


def _margin(part: Part) -> float:
    """How clearly a part is decided, in widths of its interval; the smallest is shown."""
    e = part.estimate
    width = e.high - e.low
    if part.status == FAILS:
        return -abs(e.value - part.threshold)
    return abs(e.value - part.threshold) / width if width > 0 else math.inf
