"""What a reader runs to fill in what a report lacks: one exact command, or none where nothing is missing."""

from __future__ import annotations

from collections.abc import Iterable

from yarnlab.results.results import Results
from yarnlab.study.evaluations import KINDS

# Where a kind of results comes from, if not from the evaluation of its name: the workflow's rule.
RULES = {"training": "train", "manifests": "models"}


def command_for(results: Results, needs: Iterable[str], command: str) -> str:
    """The command that makes the first of `needs` that is planned and not (or not for all models) on disk.

    `command` runs the whole study. Empty where everything planned is there, or the study does not plan it.
    """
    for need in needs:
        kind = need.partition(".")[0]
        if kind in RULES and not results.has(kind):
            return f"{command} --until {RULES[kind]}"
        if kind in KINDS and results.evaluations.get(kind) is not None and unfinished(results, kind):
            return f"{command} --until {kind}"
    return ""


def unfinished(results: Results, kind: str) -> list[str]:
    """Planned models whose evaluation of this kind is not on disk.

    Where `study.json` does not say which models were planned: those like the ones that have it (same kind of model).
    """
    folder = results.directory / "evaluations" / kind
    done = {name for name in results.models if (folder / f"{name}.parquet").is_file()}
    arms = (results.evaluations.get(kind) or {}).get("models")
    kinds = {results.models[name].kind for name in done} or {model.kind for model in results.models.values()}
    planned = [m for m in results.models.values() if (m.arm in arms if arms is not None else m.kind in kinds)]
    return [model.name for model in planned if model.name not in done]
