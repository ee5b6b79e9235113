"""The model that a study of the form `extension` is about: what it is, what it took, how it is loaded."""

from __future__ import annotations

from typing import Any

from yarnlab.provenance import read_json
from yarnlab.results.bases import of_base
from yarnlab.results.display import duration
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.results import Model, Results
from yarnlab.results.style import label
from yarnlab.rope import METHODS

SNIPPET = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "{folder}"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
assert model.config.max_position_embeddings == {context}
"""


def about(results: Results) -> dict[str, Any]:
    """What the report says of the extended model, as plain values; where there is none, `model` is None and `reason`
    says why.

    original_context: L, the window of the base in tokens; context: the new one; factor: their ratio. rows: the longest
    rows that it was trained on, in tokens. cost: sentences. snippet: Python that loads it; '' where config.json has no
    form for its rope.
    """
    try:
        results = of_base(results, "extension")
    except NotMeasured as why:
        return {"model": None, "reason": str(why)}
    model, base = results.extension(), results.base()
    if model is None or base is None:
        return {"model": None, "reason": "this study makes no model from its base with another rope"}
    folder = (results.directory / "models" / model.name).resolve()
    stock = model.method in METHODS and not METHODS[model.method].dynamic
    return {
        "model": model.name,
        "label": label(model),
        "base": base.arm,
        "source": _source(results, base),
        "original_context": results.original_context,
        "context": round(model.context),
        "factor": f"{model.context / results.original_context:g}",
        "steps": model.steps,
        "tokens": model.tokens,
        "rows": model.trained_length,
        "cost": _cost(results, model),
        "snippet": SNIPPET.format(folder=folder, context=round(model.context)) if stock else "",
    }


def _source(results: Results, base: Model) -> str:
    """The repository or folder that the base's weights are from; '' for one that was trained here."""
    made = read_json(results.directory / "models" / base.name / "manifest.json").get("spec", {})
    asset = read_json(results.directory / "assets" / str(made.get("asset")) / "manifest.json")
    spec = asset.get("spec", {}).get("asset", {})
    return str(spec.get("path") or spec.get("repo") or "")


def _cost(results: Results, model: Model) -> list[str]:
    trained = results.manifest(f"models/{model.name}/manifest.json")
    found = []
    if trained and model.steps:
        peak = float(trained.get("peak_memory_bytes") or 0) / 2**30
        found.append(f"Training took {duration(float(trained['seconds']))} and {peak:.2f} GiB at its peak")
    seconds = {manifest["path"]: float(manifest.get("seconds") or 0) for manifest in results.manifests}
    kinds = [taken for path, taken in seconds.items() if path.startswith("evaluations/")]
    if kinds:
        found.append(f"all {len(kinds)} evaluations of all models {duration(sum(kinds))}")
    found.append(f"the whole study {duration(sum(seconds.values()))} of compute")
    found[0] = found[0][0].upper() + found[0][1:]
    return found
