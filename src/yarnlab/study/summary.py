"""A study's models and evaluations in the form that tables, claims and report read."""

from __future__ import annotations

from typing import Any

from yarnlab.study.schema import Study
from yarnlab.study.sections import study_digest

# What decides, with the seed, which tokens a batch of a training phase holds (training/rows.py).
BATCH = {"corpus", "rows", "seq_len", "global_batch"}


def summarise(study: Study) -> dict[str, Any]:
    """study.json: what was planned, so that a report can also say what was not run."""
    models = {}
    for name, (arm, seed) in study.instances().items():
        model = study.models[arm]
        rope = study.rope(arm)
        models[name] = {
            "arm": arm,
            "seed": seed,
            "kind": model.kind,
            "parent": study.name(model.parent, seed) if model.parent is not None else None,
            "method": rope.method,
            "scale": float(rope.scale),
            **{key: getattr(rope, key, None) for key in ("ramp", "truncate", "alpha", "beta")},
            "attention_factor": float(rope.attention_factor),  # an own method may return a scalar of NumPy or torch
            "trained_length": max((phase.seq_len for phase in model.phases), default=None),
            "steps": sum(phase.steps for phase in model.phases),
            "tokens": sum(phase.steps * phase.global_batch * phase.seq_len for phase in model.phases),
            "batches": [phase.model_dump(mode="json", include=BATCH) for phase in model.phases],
            "original_context": study.architecture(arm).original_context,
            "head_dim": study.architecture(arm).rotary_dim,
            "rope_theta": study.architecture(arm).rope_theta,
            "family_alpha": study.architecture(arm).alpha,
            "family_beta": study.architecture(arm).beta,
            "published": list(model.published),
        }
        if model.control_of is not None:
            models[name]["control_of"] = model.control_of
        if (longest := getattr(rope, "max_position_embeddings", None)) is not None:
            models[name]["max_position_embeddings"] = longest
    return {
        "study": study.study,
        "title": study.title,
        "notes": list(study.notes),
        "seed": study.seed,
        "replicates": study.replicates,
        "study_sha256": study_digest(study),
        "original_context": study.architecture(next(iter(study.models))).original_context,
        "claims": {"form": study.claims.form, "published": study.claims.published, "roots": study.claims.bases},
        "models": models,
        "evaluations": {kind: _evaluation(evaluation) for kind, evaluation in study.evaluations},
    }


def _evaluation(evaluation: Any) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    planned = evaluation.model_dump(mode="json")
    if "start" in (lengths := planned.get("lengths") or {}):  # a grid
        planned["lengths"] = list(range(lengths["start"], lengths["stop"] + 1, lengths["step"]))
    return planned
