"""Which command runs what is missing for a published number."""

from __future__ import annotations

from functools import cache

from yarnlab.provenance import project_root
from yarnlab.results.published.reference import Reference
from yarnlab.results.published.reference_roles import role_of
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.results import Results

PAPER_STUDY = "paper"


def command_for(results: Results, reference: Reference, cell: Cell) -> str:
    """The command whose result would fill the cell; empty where no study of this project would.

    For a model that this study has: the job of the evaluation (or training) that is planned for it. For another: the
    whole paper study, if it names the published model.
    """
    published = reference.model_of(cell)
    if published is None:
        return ""
    role = role_of(results, published)
    if role is None:
        if results.study == PAPER_STUDY or not set(published.names) & _named_by_the_paper_study():
            return ""
        return f"envs/run snakemake --cores all --config study={PAPER_STUDY}"
    kind = reference.protocols[cell.protocol].kind
    if kind in ("setting", "training", "cost", "derived"):
        target = f"models/{role.model.name}/manifest.json" if role.model.kind == "finetune" else ""
    else:
        planned = (results.evaluations.get(kind) or {}).get("models") or ()
        target = f"evaluations/{kind}/{role.model.name}.manifest.json" if role.model.arm in planned else ""
    if not target or (results.directory / target).is_file():
        return ""
    return f"envs/run snakemake --cores all results/{results.study}/{target} --config study={results.study}"


@cache
def _named_by_the_paper_study() -> frozenset[str]:
    """Every published name in config/studies/paper.yaml; none where the file is absent."""
    import yaml

    path = project_root() / "config" / "studies" / f"{PAPER_STUDY}.yaml"
    if not path.is_file():
        return frozenset()
    models = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("models") or {}
    return frozenset(name for model in models.values() if model for name in model.get("published") or ())
