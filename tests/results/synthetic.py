"""A whole results directory with invented numbers shaped like the paper's: for tests of analysis and report.

`write_study(directory)` writes every file that the analysis reads. ln perplexity = document effect + a curve
of the model, so pairing by document matters as it does in reality.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from results import synthetic_kinds
from yarnlab.results.results import Results

L = 256
METHODS = {
    "yarn-s16": "yarn",
    "pi-s16": "pi",
    "ntk-aware-s16": "ntk-aware",
    "ramp-only-s16": "ntk-by-parts",
    "temperature-only-s16": "temperature",
    "plain-s16": "none",
}
COST = {"yarn": 0.0, "ntk-by-parts": 0.04, "temperature": 0.45, "ntk-aware": 0.30, "pi": 0.80, "none": 0.60}
# What study.json says of every model beside its own: no ramp, no budget.
ENTRY = {"ramp": None, "truncate": None, "alpha": None, "beta": None, "attention_factor": 1.0, "original_context": L}
ENTRY |= {"head_dim": 128, "rope_theta": 10_000.0, "family_alpha": 1.0, "family_beta": 32.0}
ENTRY |= {"published": [], "steps": 0, "tokens": 0, "batches": []}
ZERO_COST = {"yarn": 0.0, "ntk-by-parts": 0.35, "ntk-aware": 0.70, "temperature": 1.2, "none": 1.3, "pi": 1.6}


def with_frames(results: Results, **frames: pd.DataFrame) -> Results:
    """The same study with other tables of these kinds."""
    return replace(results, frames=results.frames | frames)


def with_control(results: Results, moved: dict[str, float], spread: float = 0.0) -> Results:
    """The study with a control of its base, whose NLL under a method is higher by `moved`, more or less by document."""
    frame, rng = results.frame("zero_shot"), np.random.default_rng(1)
    model = replace(results.models["base"], name="requantised", arm="requantised", kind="hub", control_of="base")
    by_document = {name: spread * rng.standard_normal() for name in sorted(frame["document"].unique())}
    moves = frame["method"].map(moved).fillna(0.0) + (frame["method"] != "yarn") * frame["document"].map(by_document)
    again = frame.assign(model=model.name, arm=model.arm, nll=frame["nll"] + moves)
    study = replace(results, models=results.models | {model.name: model})
    return with_frames(study, zero_shot=pd.concat([frame, again]))


def models(seeds: tuple[int, ...] = (42,), ablation: bool = True) -> dict:
    """The micro study's models; several seeds give each arm one model per seed."""
    arms = [("base", "none", 1, None, L, "pretrain")]
    for arm, method in METHODS.items():
        if ablation or arm == "yarn-s16":
            arms.append((arm, method, 16, "base", 16 * L, "finetune"))
    arms.append(("yarn-s32", "yarn", 32, "yarn-s16", 16 * L, "finetune"))
    if ablation:
        arms.append(("plain-s32", "none", 32, "plain-s16", 16 * L, "finetune"))
    keys = ("arm", "method", "scale", "parent", "trained_length", "kind")
    out = {}
    for seed in seeds:
        end = "" if len(seeds) == 1 else f"-seed{seed}"
        for values in arms:
            entry = ENTRY | dict(zip(keys, values, strict=True)) | {"seed": seed}
            entry["parent"] = entry["parent"] and entry["parent"] + end
            out[entry["arm"] + end] = entry
    return out


def log_perplexity(method: str, scale: float, n: np.ndarray, kind: str) -> np.ndarray:
    """ln perplexity at window n in units of L: falling to the usable window, collapsing beyond it."""
    x = np.asarray(n, float) / L
    usable = 1.0 if kind == "pretrain" else scale
    if method == "ntk-aware":
        usable = scale / 3
    beyond = np.maximum(0.0, np.log(x / (1.02 * usable)))
    curve = 3.7 - 0.28 * np.log2(np.minimum(x, usable) + 1) + 2.6 * beyond
    if kind == "finetune":
        share = np.log2(x + 1) / math.log2(17)
        curve = curve + COST[method] * (0.3 + share) - (0.02 if method == "ntk-by-parts" else 0) * (1 - share)
    return curve


def hit_rate(method: str, scale: float, n: int, kind: str) -> float:
    """Chance of retrieving the passkey."""
    usable = L * (1 if kind == "pretrain" else scale)
    if n > usable:
        return 0.02
    return {"yarn": 0.985, "ntk-by-parts": 0.8, "none": 0.98 if kind == "pretrain" else 0.3}.get(method, 0.4)


def write_study(
    directory: Path,
    *,
    seeds: tuple[int, ...] = (42,),
    skip: tuple[str, ...] = (),
    ablation: bool = True,
    documents: int = 12,
    trials: int = 50,
    further: bool = False,
) -> Path:
    """Write a study under `directory`; `skip` names planned evaluations whose files are absent.

    `further`: the study has the evaluations of `synthetic_kinds` too.
    """
    rng = np.random.default_rng(7)
    plan = models(seeds, ablation)
    evaluations = {
        "perplexity": {"corpus": "math"},
        "zero_shot": {"corpus": "math"},
        "passkey": {"trials": trials},
        **(synthetic_kinds.SETTINGS if further else {}),
    }
    arms = list(dict.fromkeys(entry["arm"] for entry in plan.values()))
    of_base = ("zero_shot", *synthetic_kinds.ON_THE_BASE)
    evaluations = {k: own | {"models": arms[:1] if k in of_base else arms} for k, own in evaluations.items()}
    study = {"study": "micro", "title": "The micro study", "seed": 42, "original_context": L, "notes": []}
    study |= {"study_sha256": "ab" * 32, "models": plan, "evaluations": evaluations}
    study |= {"claims": {"form": "scale-free", "roots": {}, "published": True}}
    _json(directory / "study.json", study)
    effect = rng.normal(0, 0.5, documents)
    runs: dict[str, dict] = {}
    for corpus in ("train", "math"):
        _manifest(directory, f"data/{corpus}/manifest.json", "corpus", corpus, 14.0, runs)
    for name, m in plan.items():
        seed_effect = rng.normal(0, 0.01)
        if "training" not in skip:
            _training(directory, name, m, rng)
            _manifest(
                directory,
                f"models/{name}/manifest.json",
                "train",
                name,
                190.0 if m["parent"] is None else 70.0,
                runs,
            )
        rows = {key: m[key] for key in ("arm", "method", "scale", "seed")} | {"model": name}
        if "perplexity" not in skip:
            n = np.arange(128, 8193, 128)
            curve = log_perplexity(m["method"], m["scale"], n, m["kind"])
            frame = _documents(rows, effect + seed_effect, n, curve, rng)
            _parquet(directory, "perplexity", name, frame, runs)
        if "passkey" not in skip:
            _parquet(directory, "passkey", name, _passkey(rows, m, trials, rng), runs)
        if "zero_shot" not in skip and m["kind"] == "pretrain":
            frames = []
            for method, cost in ZERO_COST.items():
                for scale in (2, 4, 8, 16, 32):
                    n = np.array([L * 2**k for k in range(6) if L * 2**k <= min(2 * scale * L, 8192)])
                    usable = scale / 3 if method == "ntk-aware" else scale if method != "none" else 1
                    grow = np.log2(scale) / 4
                    curve = 3.9 - 0.1 * np.log2(n / L) + cost * grow
                    curve = curve + 0.25 * np.maximum(0, np.log(n / L / (1.02 * usable)))
                    frames.append(_documents(rows | {"method": method, "scale": scale}, effect, n, curve, rng))
            _parquet(directory, "zero_shot", name, pd.concat(frames), runs)
        if further:
            _further_kinds(directory, name, m, effect + seed_effect, skip, runs)
    _json(directory / "tracking/runs.json", runs)
    return directory


def _further_kinds(directory: Path, name: str, m: dict, effect: np.ndarray, skip: tuple, runs: dict) -> None:
    who = {"model": name, "arm": m["arm"], "seed": m["seed"]}
    rope = {"method": m["method"], "scale": m["scale"]}
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tables = {}
    if m["kind"] == "pretrain":
        tables |= {k: getattr(synthetic_kinds, k)(m, effect, rng) for k in synthetic_kinds.ON_THE_BASE}
    tables["context"] = synthetic_kinds.context(m, effect, rng).assign(**rope)
    tables["sliding_window"] = synthetic_kinds.sliding_window(m, effect, rng).assign(**rope)
    tables["passkey_official"] = synthetic_kinds.passkey_official(
        m, effect, rng, lambda n: hit_rate(m["method"], m["scale"], n, m["kind"])
    ).assign(**rope)
    answers = synthetic_kinds.samples(m)
    tables["benchmarks"] = synthetic_kinds.benchmarks(answers).assign(**rope)
    tables["short_texts"] = synthetic_kinds.short_texts(
        m, effect, rng, lambda n: log_perplexity(m["method"], m["scale"], n, m["kind"])
    ).assign(**rope)
    for kind, table in tables.items():
        if kind not in skip:
            _parquet(directory, kind, name, table.assign(**who), runs)
    if "benchmarks" not in skip:
        path = directory / "evaluations/benchmarks" / f"{name}.samples.parquet"
        answers.assign(**who, **rope).to_parquet(path, index=False)


def _documents(rows: dict, effect: np.ndarray, n: np.ndarray, curve: np.ndarray, rng) -> pd.DataFrame:
    shape = (len(effect), len(n))
    nll = curve + effect[:, None] + rng.normal(0, 0.012, shape)
    start = np.concatenate([[1], n[:-1]])
    bucket = np.diff(nll * (n - 1), prepend=0.0, axis=1) / (n - start)
    names = [f"doc-{d:02d}" for d in range(len(effect))]
    columns = {"length": n, "tokens": n - 1, "bucket_start": start}
    frame = pd.DataFrame(
        {"document": np.repeat(names, len(n)), "nll": nll.ravel(), "bucket_nll": bucket.ravel()}
        | {name: np.tile(values, len(effect)) for name, values in columns.items()}
    )
    return frame.assign(corpus="math", protocol="truncated-prefix@1", **rows)


def _passkey(rows: dict, m: dict, trials: int, rng) -> pd.DataFrame:
    out = []
    for k in range(7):
        n = 128 * 2**k
        hit = rng.random(trials) < hit_rate(m["method"], m["scale"], n, m["kind"])
        depth = (np.arange(trials) + 0.5) / trials
        frame = pd.DataFrame(
            {"length": n, "trial": np.arange(trials), "filler": np.arange(trials) % 12, "depth": depth, "hit": hit}
        )
        frame = frame.assign(key="12345", prompt_tokens=n, expected_accuracy=0.9, margin=1.0)
        out.append(frame)
    return pd.concat(out, ignore_index=True).assign(protocol="passkey-teacher-forced@4", **rows)


def _training(directory: Path, name: str, m: dict, rng) -> None:
    steps = 120 if m["kind"] == "pretrain" else 100 if m["scale"] == 16 else 50
    noise = np.random.default_rng(m["seed"]).normal(0, 0.08, steps)
    lines = []
    for i in range(steps):
        cost = 0 if m["kind"] == "pretrain" else 0.02 + COST[m["method"]]
        loss = 2.0 + (4.5 if m["kind"] == "pretrain" else 0.5 + cost) * math.exp(-i / 25) + 0.25 * cost
        loss += noise[i] + rng.normal(0, 0.005) - (0.0 if cost else 0.01)
        lines.append(
            {
                "step": i + 1,
                "phase": "text",
                "tokens": 16384 * (i + 1),
                "loss": loss,
                "text_loss": loss + 0.1,
                "answer_loss": None,
                "lr": 3e-4,
                "grad_norm": 1.0,
                "tokens_per_second": 10500.0,
                "mfu_causal": 0.31,
                "mfu_palm": 0.35,
                "peak_memory_gib": 1.4,
                "seconds": 1.6 * (i + 1),
            }
        )
    path = directory / "training" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _parquet(directory: Path, kind: str, name: str, frame: pd.DataFrame, runs: dict) -> None:
    path = directory / "evaluations" / kind / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    _manifest(directory, f"evaluations/{kind}/{name}.manifest.json", kind, name, 21.5, runs)


def _manifest(directory: Path, path: str, stage: str, name: str, seconds: float, runs: dict) -> None:
    run = f"{len(runs):032x}"
    runs[f"{stage}.{name}"] = {"experiment_id": "1", "run_id": run, "url_path": f"#/experiments/1/runs/{run}"}
    hardware = {"cpu": "An imaginary CPU", "cores": 2, "threads": 1, "gpu": None, "memory_bytes": 16 << 30}
    _json(
        directory / path,
        {
            "manifest": 1,
            "stage": stage,
            "name": name,
            "study": "micro",
            "run": run,
            "seconds": seconds,
            "peak_memory_bytes": 1_500_000_000,
            "started": "2026-01-01T10:00:00+00:00",
            "ended": "2026-01-01T10:03:00+00:00",
            "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
            "hardware": hardware,
            "packages": {"torch": "2.13.0+cpu"},
        },
    )


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
