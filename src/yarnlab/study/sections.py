"""What each stage reads of a study, as one canonical JSON string: exactly that, so that a change reruns exactly
the stages which depend on it. Snakemake compares the strings; stages read nothing else of the study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from yarnlab.study.fields import ConfigModel, near
from yarnlab.study.read import StudyError
from yarnlab.study.schema import Study
from yarnlab.study.training import EXECUTION

OF_EVALUATION = {"threads", "processes"}  # how an evaluation computes, and no part of its section
T = TypeVar("T")


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: object) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def study_digest(study: Study) -> str:
    """sha256 of the whole study's content (not of its comments or layout)."""
    return digest(_dump(study))


def section(study: Study, stage: str, name: str) -> dict[str, Any]:
    """The part of the study that one job of a stage reads.

    Args:
        stage: asset, tokenizer, corpus, train, or a kind of evaluation.
        name: the asset, the corpus, or for the others the model (ignored for `tokenizer`).

    Raises StudyError if the study has no such asset, corpus, model, evaluation or tokenizer.
    """
    if stage == "asset":
        return {"asset": _dump(_named(study, stage, name, study.assets))}
    if stage == "tokenizer":
        if study.tokenizer is None:
            raise StudyError(f"study {study.study} trains no tokenizer: its models bring their own")
        return {
            "tokenizer": _dump(study.tokenizer),
            "corpus": _dump(study.corpora[study.tokenizer.train_on]),
            "seed": study.seed,
        }
    if stage == "corpus":
        return {"corpus": _dump(_named(study, stage, name, study.corpora)), "seed": study.seed}
    arm, seed = _named(study, "model", name, study.instances())
    model = study.models[arm]
    shared = {
        "model": name,
        "arm": arm,
        "seed": seed,
        "architecture": _dump(study.architecture(arm)),
        "rope": _dump(model.rope) if model.rope is not None else {"method": "none", "scale": 1.0},
    }
    if stage == "train":
        return {
            **shared,
            **_origin(study, arm, seed),
            "phases": [_dump(phase, exclude=EXECUTION) for phase in model.phases],
        }
    evaluation = getattr(study.evaluations, stage)
    if evaluation is None:
        declared = [kind for kind, settings in study.evaluations if settings is not None]
        raise StudyError(f"study {study.study} has no evaluation {stage!r}{near(stage, declared)}")
    # Adding a model to the list must not rerun the others; the evaluation's seed is the study's, not the model's,
    # so that every model and seed sees the same documents and keys.
    settings = _dump(evaluation.of_arm(arm), exclude={"models", *OF_EVALUATION}) | {
        "corpus": study.corpus_of(stage, arm)
    }
    return {**shared, "evaluation": settings, "evaluation_seed": study.seed}


def execution(study: Study, stage: str, name: str) -> dict[str, Any]:
    """How one job of a stage computes what its section says: further arguments of the stage, by name.

    No part of the section, so that a change makes nothing out of date.
    """
    if stage == "train":
        phases = study.models[study.instances()[name][0]].phases
        return {"execution": [phase.model_dump(mode="json", include=EXECUTION) for phase in phases]}
    evaluation = getattr(study.evaluations, stage, None)
    return evaluation.model_dump(include=OF_EVALUATION) if evaluation is not None else {}


def _named(study: Study, what: str, name: str, known: Mapping[str, T]) -> T:
    if name not in known:
        raise StudyError(f"study {study.study} has no {what} {name!r}{near(name, known)}")
    return known[name]


def _origin(study: Study, arm: str, seed: int) -> dict[str, Any]:
    """What a model is made from: `parent` or, for a root, nothing or an `asset`."""
    model = study.models[arm]
    return {
        "kind": model.kind,
        "parent": study.name(model.parent, seed) if model.parent is not None else None,
        "asset": model.hub.asset if model.hub is not None else None,
        "drop_sliding_window": model.hub.drop_sliding_window if model.hub is not None else False,
        **({"ignored_config": list(model.hub.ignored_config)} if model.hub and model.hub.ignored_config else {}),
        "depth": _depth(study, arm),
        "vocab_size": study.vocab_size(arm),
    }


def _depth(study: Study, arm: str) -> int:
    """0 for a root. Models of equal depth see the same rows in the same order; a continuation sees new ones."""
    depth = 0
    while (parent := study.models[arm].parent) is not None:
        arm, depth = parent, depth + 1
    return depth


def _dump(part: ConfigModel, exclude: Any = None) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude=exclude, exclude_none=True)
