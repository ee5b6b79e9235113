"""Claims of the paper judged on a study: a verdict for each, with all that the report shows of it, in `claims.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yarnlab.results.bases import of_base
from yarnlab.results.claims.criteria import GROUPS, Claim, Criteria, load_criteria
from yarnlab.results.claims.parts import NOT_RUN, STATUSES, Part, Verdict, combine, describe
from yarnlab.results.display import manifests_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.missing import command_for
from yarnlab.results.output import write
from yarnlab.results.registry import criteria_file
from yarnlab.results.results import Results

FORMAT = 5
HEADLINE = 5  # claims that a reader sees first


def judge(claim: Claim, results: Results) -> Verdict:
    """The verdict on one claim, as it stands; 'not run' with the reason when something it needs is absent."""
    try:
        own = of_base(results, claim.judged_base)
        reason = own.missing(claim.needs)
        return Verdict(NOT_RUN, reason) if reason is not None else combine(claim.compute(own))
    except NotMeasured as absent:
        return Verdict(NOT_RUN, str(absent))


def evaluate(results: Results, criteria: Criteria | None = None) -> list[tuple[Claim, Verdict]]:
    """Every claim that concerns the study, in its form, with its verdict, in the order of the criteria."""
    listed = [claim for claim in (criteria or criteria_of(results)).claims if claim.concerns(results)]
    claims = [claim.in_form(results.form) for claim in listed]
    return [(claim, judge(claim, results)) for claim in claims]


def criteria_of(results: Results) -> Criteria:
    """What a study of its form is judged by."""
    return load_criteria(criteria_file(results.form))


def counted(verdicts: list[tuple[Claim, Verdict]]) -> dict[str, dict[str, int]]:
    """How many of each group that there is (criteria.py: GROUPS) have each verdict."""
    present = {claim.group for claim, _ in verdicts}
    return {
        group: {s: sum((claim.group, v.status) == (group, s) for claim, v in verdicts) for s in STATUSES}
        for group in GROUPS
        if group in present
    }


def headline(criteria: Criteria, verdicts: list[tuple[Claim, Verdict]]) -> list[str]:
    """The ids that a reader sees first: of `criteria.headline` the first that the study can judge."""
    judged = {claim.id for claim, verdict in verdicts if verdict.status != NOT_RUN}
    shown = [next((name for name in place if name in judged), None) for place in criteria.headline]
    return ([name for name in shown if name] or [place[0] for place in criteria.headline])[:HEADLINE]


def write_claims(results: Results, command: str, criteria: Criteria | None = None) -> list[Path]:
    """Judge every claim and write `claims.json`; `command` is what a reader runs to fill in what is missing."""
    criteria = criteria or criteria_of(results)
    verdicts = evaluate(results, criteria)
    document = {
        "claims_format": FORMAT,
        "study": results.study,
        "study_sha256": results.study_sha256,
        "original_context": results.original_context,
        "form": results.form,
        "criteria_version": criteria.version,
        "criteria_sha256": criteria.sha256,
        "headline": headline(criteria, verdicts),
        "counts": counted(verdicts),
        "claims": [entry(results, claim, verdict, command) for claim, verdict in verdicts],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    return [write(results.directory / "claims.json", text)]


def entry(results: Results, claim: Claim, verdict: Verdict, command: str) -> dict[str, Any]:
    """A claim in `claims.json`.

    group: what it is counted with (criteria.py: GROUPS). paper_data: what the paper's own data say of it, in words;
    paper_support: the same as one of five words, null for this study's own lines; paper_mark: what the report sets
    beside the verdict. sources: the manifests of what was compared. command: what would fill in a claim that is not
    run; '' where nothing that is planned is missing.
    """
    decisive = verdict.decisive
    return {
        "id": claim.id,
        "title": claim.title,
        "source": claim.source,
        "criterion": claim.criterion,
        "group": claim.group,
        "role": claim.base,
        "paper_data": claim.reference,
        "paper_support": claim.paper_data,
        "paper_mark": claim.mark,
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
        "command": command_for(results, claim.needs, command) if verdict.status == NOT_RUN else "",
    }


def _part(part: Part) -> dict[str, Any]:
    found = asdict(part)
    estimate = {key: value for key, value in found["estimate"].items() if key != "bounds"}
    found["estimate"] = {k: _finite(v) if isinstance(v, float) else v for k, v in estimate.items()}
    return found | {"text": describe(part)}


def _sources(results: Results, claim: Claim, verdict: Verdict) -> list[str]:
    """Paths below the study's folder of the manifests behind the parts, each once, of those that are there."""
    compared = dict.fromkeys(source for part in verdict.parts for source in part.models)
    split = [source.rpartition(":") for source in compared]
    paths = dict.fromkeys(path for kind, _, arm in split for path in manifests_of(results, kind or claim.needs[0], arm))
    present = {manifest["path"] for manifest in results.manifests}
    return [path for path in paths if path in present]


def _finite(x: float) -> float | None:
    """JSON has no infinity: an unbounded side is null."""
    return x if math.isfinite(x) else None
