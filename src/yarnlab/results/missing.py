"""What a reader runs to fill in what a report lacks: one exact command, or none where nothing is missing."""

from __future__ import annotations

from collections.abc import Iterable

from yarnlab.results.results import Results, evaluated

# Where a kind of results comes from, if not from the evaluation of its name: the workflow's rule.
RULES = {"training": "train", "manifests": "models"}


def command_for(results: Results, needs: Iterable[str], command: str) -> str:
    """The command that makes the first of `needs` that is planned and not (or not for all models) on disk.

    `command` runs the whole study. Empty where everything planned is there, or the study does not plan it.
    """
    for need in needs:
        kind = need.partition(".")[0]
        if kind in RULES and not results.has(kind) and (kind != "training" or results.trains):
            return f"{command} --until {RULES[kind]}"
        if results.evaluations.get(kind) is not None and unfinished(results, kind):
            return f"{command} --until {kind}"
    return ""


def unfinished(results: Results, kind: str) -> list[str]:
    """Planned models whose evaluation of this kind is not on disk."""
    folder, planned = results.directory / "evaluations" / kind, results.evaluations[kind]
    return [name for name in evaluated(results.models, planned) if not (folder / f"{name}.parquet").is_file()]
