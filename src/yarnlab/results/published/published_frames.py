"""From frames to arrays for any model by its arm, split once: thousands of published points ask for them."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from yarnlab.results.load import Results
from yarnlab.results.measure import NotMeasured, losses, present, split


def static_nll(results: Results, arm: str, method: str, scale: float, length: int) -> pd.DataFrame:
    """Mean NLL in nats at `length` tokens of a model under another rope, without training: seeds x documents."""
    tables = _static(results)
    if (arm, method, scale, length) not in tables:
        raise NotMeasured(f"no zero-shot perplexity of {arm} with {method} at s = {scale:g} and {length:,} tokens")
    return tables[arm, method, scale, length]


def dynamic_nll(results: Results, arm: str, method: str, length: int) -> pd.DataFrame:
    """Mean NLL in nats of `length` tokens under dynamic scaling: seeds x documents."""
    tables = _dynamic(results)
    if (arm, method, length) not in tables:
        raise NotMeasured(f"no dynamic results of {arm} with {method} at {length:,} tokens")
    return tables[arm, method, length]


@lru_cache(maxsize=64)
def loss_by_step(results: Results, arm: str) -> dict[int, float]:
    """Step → training loss in nats, averaged over seeds."""
    return {int(str(step)): float(loss) for step, loss in losses(results, arm).items()}


@lru_cache(maxsize=256)
def corpus_of(results: Results, kind: str, arm: str) -> str:
    """The corpus that an evaluation of an arm read."""
    frame = present(results, kind)
    return str(frame["corpus"].to_numpy()[(frame["arm"] == arm).to_numpy().argmax()])


def scores(results: Results, arm: str, task: str, metric: str) -> list[tuple[float, float, int]]:
    """(value, standard error, questions) of a benchmark for each seed."""
    found = _scores(results).get((arm, task, metric))
    if found is None:
        raise NotMeasured(f"no {metric} of {arm} on {task}")
    return found


def hits_by_length(results: Results, kind: str, arm: str) -> dict[int, pd.DataFrame]:
    """Length in tokens → hits (0 or 1), seeds x trials; `kind` is passkey or passkey_official."""
    tables = {length: table for (name, length), table in _hits(results, kind).items() if name == arm}
    if not tables:
        raise NotMeasured(f"no {kind.replace('_', '-')} trials of {arm}")
    return dict(sorted(tables.items()))


def arms_with_hits(results: Results, kind: str) -> frozenset[str]:
    """The arms that have trials of `kind`, passkey or passkey_official."""
    return frozenset(arm for arm, _ in _hits(results, kind)) if results.has(kind) else frozenset()


@lru_cache(maxsize=8)
def _static(results: Results) -> dict[tuple[str, str, float, int], pd.DataFrame]:
    tables = split(present(results, "zero_shot"), ["arm", "method", "scale", "length"], "document", "nll")
    return {(str(a), str(m), float(s), int(n)): table for (a, m, s, n), table in tables.items()}


@lru_cache(maxsize=8)
def _dynamic(results: Results) -> dict[tuple[str, str, int], pd.DataFrame]:
    tables = split(present(results, "dynamic"), ["arm", "method", "length"], "document", "nll")
    return {(str(a), str(m), int(n)): table for (a, m, n), table in tables.items()}


@lru_cache(maxsize=8)
def _scores(results: Results) -> dict[tuple[str, str, str], list[tuple[float, float, int]]]:
    frame = present(results, "benchmarks")
    found: dict[tuple[str, str, str], list[tuple[float, float, int]]] = {}
    columns = (frame[name].tolist() for name in ("arm", "task", "metric", "value", "stderr", "n"))
    for arm, task, metric, value, error, n in zip(*columns, strict=True):
        found.setdefault((arm, task, metric), []).append((float(value), float(error), int(n)))
    return found


@lru_cache(maxsize=8)
def _hits(results: Results, kind: str) -> dict[tuple[str, int], pd.DataFrame]:
    tables = split(present(results, kind), ["arm", "length"], "trial", "hit")
    return {(str(arm), int(n)): table for (arm, n), table in tables.items()}
