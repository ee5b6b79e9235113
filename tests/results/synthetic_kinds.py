"""Invented tables of the evaluations beyond perplexity, zero-shot and passkey, each with a truth that tests know."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

L = 256
SLOPE, INTERCEPT = 0.1, 1.0  # of the best √(1/t) over ln s
CACHE_COST = 0.05  # nats a token beyond L
RAMP_COST = {"official": 0.0, "rotations": 0.01, "beta-low": 0.06}
ENTROPY = {"none": 0.0, "pi": 0.10, "ntk-by-parts": 0.06, "yarn": 0.02}  # nats per doubling of s
WINDOW_COST = {"yarn": 0.0, "ntk-by-parts": 0.03, "pi": 0.10, "ntk-aware": 0.40, "temperature": 0.3, "none": 0.5}
CONTEXT_GAIN, CONTEXT_HARM = 0.1, 0.6  # nats per doubling of the context within what a model can use, and beyond it
TASKS = ("next-line", "brackets", "identifier")
GRID = tuple(round(1 + 0.05 * i, 2) for i in range(11))

SETTINGS = {
    "context": {"corpus": "math", "contexts": [L, 2 * L, 4 * L, 8 * L, 16 * L], "max_length": 32 * L},
    "short_texts": {"corpus": "math", "lengths": [L // 2, L], "max_tokens": 4096},
    "sliding_window": {"corpus": "math", "window": 2048, "stride": 256},
    "dynamic": {"corpus": "math", "tail": 128, "lengths": [128, 256, 384, 512, 640, 1024, 2048]},
    "key_cache": {"corpus": "math", "length": 1024},
    "temperature": {"corpus": "math", "segments": 8},
    "ramp": {"corpus": "math", "variants": {name: {} for name in RAMP_COST}},
    "entropy": {"corpus": "math", "length": 256},
    "passkey_official": {"corpus": "math", "trials": 20},
    "benchmarks": {"corpus": "math", "suite": "held-out-code"},
}
ON_THE_BASE = ("dynamic", "key_cache", "temperature", "ramp", "entropy")


def _names(effect: np.ndarray) -> list[str]:
    return [f"doc-{d:02d}" for d in range(len(effect))]


def context(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Later tokens are easier whatever the context, by more than any model gains from it.

    A window or prefix of c tokens gives CONTEXT_GAIN per doubling from L up to what the model can use, and takes
    CONTEXT_HARM per doubling beyond; a method costs WINDOW_COST everywhere.
    """
    settings, usable = SETTINGS["context"], L * m["scale"] / (3 if m["method"] == "ntk-aware" else 1)
    usable = L if m["kind"] == "pretrain" or m["method"] == "none" else usable
    cost = 0.0 if m["kind"] == "pretrain" else WINDOW_COST[m["method"]]
    rows = []
    for d, name in enumerate(_names(effect)):
        for start in (L * 2**k for k in range(5)):
            text = 3.6 + effect[d] - 0.3 * math.log2(start / L) + 0.2 * math.sin(7.0 * d + start)
            for c in [*(c for c in settings["contexts"] if c in (L, start)), settings["max_length"]]:
                seen = min(c, 2 * start)
                own = CONTEXT_HARM * math.log2(max(1, seen / usable)) - CONTEXT_GAIN * math.log2(min(seen, usable) / L)
                row = {"document": name, "context": c, "segment_start": start, "segment_end": 2 * start}
                rows.append(row | {"tokens": start, "nll": text + cost + own + rng.normal(0, 0.004)})
    return pd.DataFrame(rows).assign(corpus="math", protocol="same-tokens@1")


def short_texts(
    m: dict, effect: np.ndarray, rng: np.random.Generator, curve: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """ln perplexity of the beginnings, on texts that are easier by 0.2."""
    rows = []
    for length, nll in zip((L // 2, L), curve(np.array([L // 2, L])), strict=True):
        for d, name in enumerate(_names(effect)):
            row = {"document": name, "length": length, "texts": 4095 // (L - 1)}
            rows.append(row | {"nll": nll - 0.2 + effect[d] + rng.normal(0, 0.004)})
    return pd.DataFrame(rows).assign(corpus="math", protocol="short-texts@1")


def sliding_window(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Document d has d + 1 windows: the first scores 2,047 tokens, each later one 256."""
    cost = -0.3 if m["scale"] == 32 else 0.6 if m["kind"] == "pretrain" else WINDOW_COST[m["method"]]
    rows = []
    for d, name in enumerate(_names(effect)):
        for w in range(d + 1):
            start, tokens = (0, 2047) if w == 0 else (2047 + 256 * (w - 1), 256)
            nll = 3.0 + effect[d] + cost + 0.02 * w + rng.normal(0, 0.004)
            rows.append({"document": name, "window_index": w, "start": start, "tokens": tokens, "nll": nll})
    return pd.DataFrame(rows).assign(corpus="math", protocol="sliding-window@1")


def dynamic(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """All methods are the same up to L; beyond it, nats per doubling: −0.05 (YaRN), 0.08 (PI), 1.2 (RoPE)."""
    beyond = {"none": 1.2, "dynamic-pi": 0.08, "dynamic-ntk": 0.03, "dynamic-yarn": -0.05}
    rows = []
    for d, name in enumerate(_names(effect)):
        for length in SETTINGS["dynamic"]["lengths"]:
            noise = rng.normal(0, 0.005)
            for method, cost in beyond.items():
                over = max(0.0, math.log2(length / L))
                nll = 3.4 - 0.1 * math.log2(length / L) * (length < L) + effect[d] + cost * over + noise
                row = {"method": method, "document": name, "length": length, "nll": nll, "tokens": length - 1}
                scale = max(1.0, length / L) if method != "none" else 1.0
                cut = nll - cost * over  # neither helped nor hurt by what lies before the last L tokens
                row |= {"tail_nll": nll + cost * over * 0.5, "truncated_nll": cut, "scale_in_force": scale}
                rows.append(row)
    return pd.DataFrame(rows).assign(corpus="math", protocol="dynamic@2")


def key_cache(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """The wrong cache costs CACHE_COST beyond L and nothing before."""
    rows = []
    for method in ("dynamic-pi", "dynamic-yarn"):
        for d, name in enumerate(_names(effect)):
            for start in range(0, 1024, L):
                right = 3.4 + effect[d] + rng.normal(0, 0.01)
                wrong = right + (CACHE_COST + rng.normal(0, 0.002) if start else 0.0)
                other = right - (0.01 + rng.normal(0, 0.002) if start else 0.0)
                for cache, nll in (("pre-rope", right), ("post-rope", wrong), ("recomputed", other)):
                    row = {"method": method, "cache": cache, "document": name, "nll": nll}
                    rows.append(row | {"bucket_start": start, "bucket_end": start + L})
    return pd.DataFrame(rows).assign(corpus="math", protocol="key-cache@1")


def temperature(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """A parabola in the factor around SLOPE · ln s + INTERCEPT, so that its vertex is found exactly."""
    rows = []
    for scale in (2.0, 4.0, 8.0, 16.0, 32.0):
        best = SLOPE * math.log(scale) + INTERCEPT
        runs = [("grid", x) for x in GRID] + [("formula", best), ("reading", math.sqrt(best))]
        own = best + rng.normal(0, 0.004, len(effect))
        for kind, factor in runs:
            for d, name in enumerate(_names(effect)):
                for segment in range(8):
                    nll = 3.4 + effect[d] + 8 * (factor - own[d]) ** 2 * (1 + segment / 8)
                    row = {"scale": scale, "factor": factor, "kind": kind, "document": name, "segment": segment}
                    tokens = int(scale) * L // 8
                    rows.append(row | {"start": segment * tokens, "tokens": tokens, "nll": nll})
    return pd.DataFrame(rows).assign(corpus="math", method="ntk-by-parts", protocol="temperature@1")


def ramp(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Every variant costs RAMP_COST at N = sL, and nothing at L."""
    rows = []
    for scale in (4.0, 16.0):
        for variant, cost in RAMP_COST.items():
            for d, name in enumerate(_names(effect)):
                for length in (L, int(scale) * L):
                    nll = 3.4 + effect[d] + cost * (length > L) + rng.normal(0, 0.002)
                    row = {"variant": variant, "scale": scale, "document": name, "length": length}
                    row |= {"tokens": length - 1, "nll": nll, "bucket_start": 1, "bucket_nll": nll}
                    rows.append(row)
    return pd.DataFrame(rows).assign(corpus="math", method="yarn", protocol="truncated-prefix@1")


def entropy(m: dict, effect: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """2 nats for the base, ENTROPY more per doubling of the scale."""
    runs = [("none", 1.0)] + [(method, s) for method in ENTROPY if method != "none" for s in (2.0, 8.0, 32.0)]
    rows = []
    for method, scale in runs:
        for d, name in enumerate(_names(effect)):
            for layer in range(3):
                for head in range(2):
                    value = 2.0 + ENTROPY[method] * math.log2(scale) + 0.1 * effect[d] + 0.3 * layer - 0.3
                    value += 0.2 * head - 0.1 + rng.normal(0, 0.002)
                    row = {"method": method, "scale": scale, "document": name, "layer": layer, "head": head}
                    rows.append(row | {"length": L, "entropy": value, "normalised_entropy": value / 5})
    return pd.DataFrame(rows).assign(corpus="math", protocol="attention-entropy@2")


def passkey_official(
    m: dict, effect: np.ndarray, rng: np.random.Generator, rate: Callable[[int], float]
) -> pd.DataFrame:
    """Hits at the rate of the other protocol."""
    rows = []
    for length in (512, 1024, 2048, 4096):
        for trial in range(20):
            hit = bool(rng.random() < rate(length))
            row = {"length": length, "trial": trial, "depth": 0.5, "key": 12345, "prompt_tokens": length - 3}
            rows.append(row | {"generated": "12345", "found": 12345 if hit else 0, "hit": hit})
    return pd.DataFrame(rows).assign(protocol="official@1")


def samples(m: dict, items: int = 120) -> pd.DataFrame:
    """Every model answers the same items: right where the item's difficulty is below the model's skill."""
    skill = 0.72 if m["kind"] == "pretrain" else {"yarn": 0.715, "ntk-by-parts": 0.7}.get(m["method"], 0.55)
    rows = []
    for t, task in enumerate(TASKS):
        difficulty = np.random.default_rng(t).random(items)
        for item in range(items):
            right = float(difficulty[item] < skill - 0.05 * t)
            row = {"task": task, "item": item, "document": f"doc-{item % 12:02d}", "gold": item % 4}
            rows.append(row | {"acc": right, "acc_norm": right} | {f"ll_{k}": -1.0 - k for k in range(4)})
    return pd.DataFrame(rows)


def benchmarks(answers: pd.DataFrame) -> pd.DataFrame:
    """lm-eval's summary of these answers."""
    rows = []
    for task, own in answers.groupby("task", sort=False):
        for metric in ("acc", "acc_norm"):
            p, n = own[metric].mean(), len(own)
            row = {"task": task, "metric": metric, "value": p, "stderr": math.sqrt(p * (1 - p) / (n - 1))}
            rows.append(row | {"n": n, "shots": 2, "lm_eval": "0.4.13"})
    return pd.DataFrame(rows).assign(protocol="held-out-code@1")
