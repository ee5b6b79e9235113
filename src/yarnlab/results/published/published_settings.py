"""What stands here for published settings, formulas, budgets and costs: from manifests, study.json and yarnlab.rope."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from yarnlab.results.estimates import NotMeasured, present
from yarnlab.results.published.published_ours import Ours, benchmark_score
from yarnlab.results.published.reference import Reference
from yarnlab.results.published.reference_roles import Role, role_of
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Estimate, Z
from yarnlab.rope import METHODS, YaRN, make_rope

HEAD_DIM = 128  # of every 7B and 13B model of the paper
# Published metric → where a training phase of a manifest has it.
PHASE_KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "lr": lambda phase: phase["lr"],
    "weight_decay": lambda phase: phase["weight_decay"],
    "warmup_steps": lambda phase: phase["warmup_steps"],
    "beta1": lambda phase: phase["betas"][0],
    "beta2": lambda phase: phase["betas"][1],
    "steps": lambda phase: phase["steps"],
    "global_batch": lambda phase: phase["global_batch"],
    "seq_len": lambda phase: phase["seq_len"],
}


def fixed(value: float, unit: str, method: str) -> Estimate:
    """A number that nothing was sampled for."""
    return Estimate(float(value), float(value), float(value), 1, "value", unit, method)


def _setting(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None
    if cell.metric == "documents":
        found = present(results, "temperature")
        rows = found[found["arm"] == role.model.arm]
        if rows.empty:
            raise NotMeasured(f"no temperature sweep of {role.model.arm}")
        sources = tuple(f"evaluations/temperature/{name}.manifest.json" for name in results.members(role.model.arm))
        return Ours(fixed(rows["document"].nunique(), cell.unit, "as read"), role, sources)
    if cell.metric == "training_data_context":
        rows = _trained(results, role.model)["spec"]["phases"][-1]["seq_len"]
        tokens = fixed(role.published_length(rows), cell.unit, "as set")
        return Ours(tokens, role, _made(results, [role.model]), length=rows)
    manifest = _trained(results, role.model)
    return Ours(
        fixed(PHASE_KEYS[cell.metric](manifest["spec"]["phases"][-1]), cell.unit, "as set"),
        role,
        _made(results, [role.model]),
    )


def _budget(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None
    chain = _fine_tuned(results, role.model)
    return Ours(fixed(_tokens(results, chain), cell.unit, "steps x rows x tokens"), role, _made(results, chain))


def _cost(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    """GPUs x hours of the training stages of all fine-tuning up to the model."""
    assert role is not None
    chain = _fine_tuned(results, role.model)
    hours, devices = 0.0, set()
    for model in chain:
        manifest = _trained(results, model)
        names = manifest.get("hardware", {}).get("gpu")
        if not names:
            raise NotMeasured(f"{model.arm} was not trained on GPUs")
        devices |= set(names)
        parallel = manifest["spec"]["phases"][-1]["parallel"]
        hours += float(manifest["seconds"]) / 3600 * parallel["processes"] * parallel["nodes"]
    other = sorted(name for name in devices if "A100" not in name)
    reason = f"trained on {other[0]}, the paper on A100" if other else None
    return Ours(fixed(hours, "GPU-hours", "GPUs x hours"), role, _made(results, chain), reason)


def _derived(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None
    if cell.metric == "mean_drop":
        return _mean_drop(results, reference, cell, role)
    if role.analogue is not None:
        raise NotMeasured(f"a ratio to a published budget says nothing of another model: {role.analogue}")
    published = reference.model_of(cell)
    chain = _fine_tuned(results, role.model)
    sources = _made(results, chain)
    if cell.metric == "step_reduction":
        steps = sum(_trained(results, model)["spec"]["phases"][-1]["steps"] for model in chain)
        theirs = reference.models["LLaMA 7B (Chen et al.)"].trained_steps
        assert theirs is not None
        return Ours(fixed(theirs / steps, cell.unit, "published steps over ours"), role, sources)
    tokens = _tokens(results, chain)
    if cell.metric == "pretraining_share":
        assert published is not None and published.pretraining_tokens is not None
        return Ours(fixed(100 * tokens / published.pretraining_tokens, cell.unit, "tokens over 2 T"), role, sources)
    theirs = reference.models["NousResearch/CodeLlama-7b-hf"].trained_tokens
    assert theirs is not None
    return Ours(fixed(theirs / tokens, cell.unit, "published tokens over ours"), role, sources)


def _mean_drop(results: Results, reference: Reference, cell: Cell, role: Role) -> Ours:
    """Mean fall of the eight scores of Table 3 from s=16 to s=32, in percentage points."""
    differences, variance, sources = [], 0.0, []
    scores = [c for c in reference.of("Table 3") if c.method == "yarn"]
    for size in ("7b", "13b"):
        pair = [reference.models[f"NousResearch/Yarn-Llama-2-{size}-{window}"] for window in ("64k", "128k")]
        roles = [role_of(results, model) for model in pair]
        if None in roles:
            raise NotMeasured(f"no model of this study stands for both {pair[0].label} and {pair[1].label}")
        for first in (c for c in scores if c.model == pair[0].model):
            second = next(c for c in scores if c.model == pair[1].model and c.protocol == first.protocol)
            both = [benchmark_score(results, reference, c, r) for c, r in zip((first, second), roles, strict=True)]
            differences.append(both[0].estimate.value - both[1].estimate.value)
            variance += sum(((o.estimate.high - o.estimate.value) / Z) ** 2 for o in both)
            sources += [path for o in both for path in o.sources]
    mean, half = sum(differences) / len(differences), Z * math.sqrt(variance) / len(differences)
    estimate = Estimate(mean, mean - half, mean + half, len(differences), "scores", cell.unit, "normal, unpaired")
    return Ours(estimate, role, tuple(dict.fromkeys(sources)))


def _formula(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    return Ours(fixed(FORMULAS[cell.metric](cell), cell.unit, "computed from yarnlab.rope"), None)


def _yarn(scale: float) -> YaRN:
    rope = make_rope("yarn", scale=scale, original_context=4096, head_dim=HEAD_DIM)
    assert isinstance(rope, YaRN)
    return rope


def _ntk_scale(cell: Cell) -> float:
    """s of a given base, by Eq. 16 turned round: s = (b'/b)^((D−2)/D)."""
    assert cell.x is not None
    plain = METHODS["none"](original_context=4096, head_dim=HEAD_DIM)
    return float((cell.x / plain.base) ** ((HEAD_DIM - 2) / HEAD_DIM))


FORMULAS: dict[str, Callable[[Cell], float]] = {
    "alpha": lambda cell: _yarn(16.0).alpha,
    "beta": lambda cell: _yarn(16.0).beta,
    "temperature_slope": lambda cell: _yarn(math.e).attention_factor - 1.0,
    "attention_factor": lambda cell: _yarn(cell.x or 1.0).attention_factor,
    "ntk_scale": _ntk_scale,
    "ntk_context": lambda cell: _ntk_scale(cell) * 4096,
}


def _fine_tuned(results: Results, model: Model) -> list[Model]:
    """The model and its ancestors as far as they are fine-tuned, the first one first."""
    chain: list[Model] = []
    here: Model | None = model
    while here is not None and here.kind == "finetune":
        chain.insert(0, here)
        here = results.models.get(here.parent or "")
    if not chain:
        raise NotMeasured(f"{model.arm} is taken over as published; its training is not part of this study")
    return chain


def _trained(results: Results, model: Model) -> dict[str, Any]:
    manifest = next((m for m in results.manifests if m["path"] == f"models/{model.name}/manifest.json"), None)
    if model.kind != "finetune":
        raise NotMeasured(f"{model.arm} is taken over as published; its training is not part of this study")
    if manifest is None or not manifest.get("spec", {}).get("phases"):
        raise NotMeasured(f"{model.arm} is not trained yet")
    return manifest


def _tokens(results: Results, chain: list[Model]) -> int:
    phases = [phase for model in chain for phase in _trained(results, model)["spec"]["phases"]]
    return sum(phase["steps"] * phase["global_batch"] * phase["seq_len"] for phase in phases)


def _made(results: Results, chain: list[Model]) -> tuple[str, ...]:
    return tuple(f"models/{model.name}/manifest.json" for model in chain)


SETTINGS: dict[str, Callable[[Results, Reference, Cell, Role | None], Ours]] = {
    "setting": _setting,
    "training": _budget,
    "cost": _cost,
    "derived": _derived,
    "formula": _formula,
}
