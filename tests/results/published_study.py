"""A study that has measured exactly what the paper printed: results made in memory from config/reference.

Only what the analysis reads beyond frames and manifests lies on disk: study.json and the assets' manifests.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results.synthetic import ENTRY
from yarnlab.results.published.data import Cell, PublishedModel, Reference, load_reference
from yarnlab.results.results import Results, load

CORPORA = {
    "proofpile": ("emozilla/proofpile-test-tokenized", 131072, 10),
    "proofpile-mistral": ("emozilla/proofpile-test-tokenized-mistral", 131072, 10),
    "govreport": ("emozilla/govreport-test-tokenized", 16384, 50),
    "redpajama": ("togethercomputer/RedPajama-Data-1T-Sample", 16384, 896),
}
KINDS = ("perplexity", "zero_shot", "dynamic", "sliding_window", "passkey_official", "benchmarks", "temperature")
SIZES = [8192 * i for i in range(1, 17)]
Rows = list[dict[str, Any]]


def arm_of(name: str) -> str:
    """The arm that stands for a published model: the last part of its name."""
    return "".join(c if c.isalnum() else "-" for c in name.split("/")[-1].lower()).strip("-")


def plan(directory: Path, *, window: int | None = None) -> Results:
    """A study that names every published model and has run nothing; `window` gives all that original context."""
    models = {arm_of(m.model): _entry(m, window) for m in load_reference().models.values()}
    evaluations: dict[str, Any] = {kind: {"models": list(models)} for kind in KINDS}
    evaluations["sliding_window"] |= {"window": 32768, "stride": 256}
    evaluations["benchmarks"] |= {"suite": "paper"}
    study = {"study": "published", "title": "What was published", "original_context": 4096, "study_sha256": "cd" * 32}
    study |= {"notes": [], "claims": {"form": "scale-free", "roots": {}, "published": False}}
    _json(directory / "study.json", study | {"models": models, "evaluations": evaluations})
    return load(directory)


def perfect(directory: Path, *, window: int | None = None) -> Results:
    """The same study when everything is measured and equals what was published, as exactly as that is known."""
    results, reference = plan(directory, window=window), load_reference()
    manifests = []
    for corpus, (repo, min_tokens, documents) in CORPORA.items():
        _json(directory / "assets" / corpus / "manifest.json", {"spec": {"asset": {"repo": repo}}})
        spec = {"source": "hub-tokens", "asset": corpus, "min_tokens": min_tokens, "documents": documents}
        manifests.append(_manifest(f"data/{corpus}/manifest.json", "corpus", corpus, spec={"corpus": spec}))
    frames = {kind: pd.DataFrame(rows) for kind, rows in published_rows(reference).items()}
    for kind, frame in frames.items():
        path = f"evaluations/{kind}/{{}}.manifest.json"
        manifests += [_manifest(path.format(arm), kind, arm) for arm in frame["arm"].unique()]
    manifests += [_trained(m) for m in reference.models.values() if results.models[arm_of(m.model)].kind == "finetune"]
    return replace(results, frames=frames, manifests=manifests)


def published_rows(reference: Reference) -> dict[str, Rows]:
    """Kind → the rows of all models, each number measured once."""
    tables: dict[str, dict[tuple[Any, ...], Rows]] = {kind: {} for kind in KINDS}
    for cell in reference.cells:
        kind = reference.protocols[cell.protocol].kind
        key = (cell.model, cell.method, cell.scale, cell.x, cell.protocol if kind == "benchmarks" else "", cell.metric)
        if kind in ("perplexity", "zero_shot", "dynamic", "sliding_window"):
            if cell.method != "dynamic-ntk-by-parts":  # follows from the static method at the same scale
                tables[kind][key] = _documents(cell, kind)
        elif kind == "benchmarks" and cell.metric in ("acc", "acc_norm", "mc2"):
            tables[kind].setdefault(key, [_score(reference, cell)])
        elif cell.metric == "accuracy":
            assert cell.x is not None and cell.target is not None
            tables[kind][key] = _trials(cell.model, int(cell.x), 50, round(50 * cell.target))
        elif cell.metric == "passkey_accuracy":
            tables[kind][key] = [row for n, hits in _hits(cell).items() for row in _trials(cell.model, n, 10, hits)]
    # The SOLAR file is left out: its Mistral has another tokenizer.
    raw = reference.figure("Figure 1", "Figure 6", "Table 1", "Camera-ready Figure 3").dropna(subset=["value"])
    for name, x, value in zip(raw["model"], raw["x"], raw["value"], strict=True):
        model = reference.models[str(name)]
        key = (model.model, model.method, model.scale, float(x), "", "perplexity")
        tables["perplexity"].setdefault(key, _nll(model.model, model.method, model.scale, x, value, 10))
    sweep = {"method": "ntk-by-parts", "scale": 8.0, "kind": "grid", "factor": 1.05, "segment": 0, "start": 1}
    sweep |= {"tokens": 2047, "nll": 1.0, "corpus": "redpajama"} | _who("LLaMA 7B")
    tables["temperature"]["all",] = [sweep | {"document": f"doc-{i}"} for i in range(896)]
    return {kind: [row for rows in parts.values() for row in rows] for kind, parts in tables.items()}


def _entry(model: PublishedModel, window: int | None) -> dict[str, Any]:
    own = model.trained_by == "authors" and model.training == "fine-tuned"
    return ENTRY | {
        "arm": arm_of(model.model),
        "seed": 42,
        "kind": "finetune" if own else "hub",
        "parent": arm_of(model.model.replace("128k", "64k")) if own and "128k" in model.model else None,
        "method": model.method if own else "none",
        "scale": (model.scale or 1.0) if own else 1.0,
        "ramp": "dimension",
        "trained_length": model.trained_length if own else None,
        "original_context": window or (model.original_context if own else model.native_context),
        "published": [model.model],
    }


def _who(model: str) -> dict[str, Any]:
    return {"model": arm_of(model), "arm": arm_of(model), "seed": 42}


def _documents(cell: Cell, kind: str) -> Rows:
    assert cell.x is not None and cell.target is not None
    value = 2 * cell.target if cell.relation == ">" else cell.target
    rows = _nll(cell.model, cell.method, cell.scale, cell.x, value, 50 if kind == "sliding_window" else 10)
    if kind == "dynamic":  # the paper does not print the end of the text alone
        rows = [row | {"tail_nll": math.nan, "truncated_nll": math.nan} for row in rows]
    if kind == "sliding_window":
        rows = [row | {"corpus": "govreport", "window_index": 0, "start": 0} for row in rows]
    return rows


def _nll(model: str, method: str, scale: float | None, x: float, perplexity: float, documents: int) -> Rows:
    """Documents that differ by much more than methods do, with this geometric mean."""
    same = {"method": method, "scale": float(scale or 1), "length": int(x), "tokens": int(x) - 1, **_who(model)}
    same["corpus"] = "proofpile-mistral" if "istral" in model else "proofpile"
    effects = np.linspace(-0.4, 0.4, documents)
    return [same | {"document": f"doc-{i:02d}", "nll": math.log(perplexity) + e} for i, e in enumerate(effects)]


def _score(reference: Reference, cell: Cell) -> dict[str, Any]:
    assert cell.target is not None and cell.n is not None
    share = cell.target / (100 if cell.unit == "percent" else 1)
    errors = [c.value for c in reference.of("lm-eval results") if c.model == cell.model and c.protocol == cell.protocol
              and c.metric == f"{cell.metric}_stderr"]  # fmt: skip
    row = {"task": reference.protocols[cell.protocol].task, "metric": cell.metric.replace("mc2", "acc"), "value": share}
    error = errors[0] if errors else math.sqrt(share * (1 - share) / cell.n)
    return row | {"stderr": error, "n": cell.n, **_who(cell.model)}


def _hits(cell: Cell) -> dict[int, int]:
    """Size → hits of ten: the published share of hits up to the published context, none beyond."""
    assert cell.x is not None and cell.target is not None and cell.n is not None
    inside = [size for size in SIZES if size <= cell.x]
    hits = dict.fromkeys(SIZES, 0) | dict.fromkeys(inside, 10)
    for i in range(cell.n - round(cell.n * cell.target / 100)):
        hits[inside[i % len(inside)]] -= 1
    return hits


def _trials(model: str, length: int, trials: int, hits: int) -> Rows:
    return [{"trial": i, "hit": i < hits, "length": length} | _who(model) for i in range(trials)]


def _trained(model: PublishedModel) -> dict[str, Any]:
    """A manifest with the published settings, tokens and GPU-hours."""
    mistral, long = "Mistral" in model.model, "128k" in model.model
    steps = {"emozilla/Yarn-Llama-2-7b-8k": 763, "emozilla/NTK-Llama-2-7b-8k": 1907}.get(model.model, 400)
    steps = 200 if long else steps
    steps = (500 if long else 1000) if mistral else steps
    hours = 256 if model.model.endswith("64k") else 128
    phase = {"lr": 1e-6 if mistral else 2e-5, "weight_decay": 0.0, "warmup_steps": 20, "betas": [0.9, 0.95]}
    phase |= {"steps": steps, "global_batch": 64, "seq_len": model.trained_length or 32768}
    phase |= {"parallel": {"processes": 8, "nodes": 1}}
    return _manifest(
        f"models/{arm_of(model.model)}/manifest.json",
        "train",
        arm_of(model.model),
        spec={"phases": [phase]},
        seconds=hours * 3600 / 8,
        hardware={"gpu": ["NVIDIA A100-SXM4-80GB"]},
    )


def _manifest(path: str, stage: str, name: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "stage": stage, "name": name, "seconds": 1.0, **more}


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
