"""Arms that differ in their seed alone, and methods that do nothing: no claim of a difference holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import with_frames
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import judge
from yarnlab.results.results import Results

# Claims that ask for no difference, for a small one at most, or for a level: they may hold where nothing differs.
OF_LIKENESS = {"1", "2", "3", "4", "5", "14", "20", "26", "29", "31", "32", "35"}
OF_LIKENESS |= {"accept-passkey-base", "accept-passkey-first", "accept-passkey-continued", "untrained-tax"}
OF_DIFFERENCE = [claim for claim in load_criteria().claims if claim.id not in OF_LIKENESS]


def null(results: Results, seed: int) -> Results:
    """The study in which every number is its document's effect and noise, whatever model, method and length."""
    rng = np.random.default_rng(seed)
    names = sorted({name for f in results.frames.values() if "document" in f for name in f["document"].unique()})
    effect = pd.Series(rng.normal(3.0, 0.5, len(names)), index=names)

    def noisy(frame: pd.DataFrame, column: str, sd: float) -> pd.Series:
        # Lengths of one document and model share most of their noise, as prefixes of one text do.
        whole = frame.groupby([c for c in ("arm", "seed", "method", "cache", "variant", "factor", "document")
                               if c in frame], sort=False).ngroup()  # fmt: skip
        noise = rng.normal(0, sd, int(whole.max()) + 1)[whole] + rng.normal(0, 0.3 * sd, len(frame))
        return frame["document"].map(effect).astype(float) + noise

    frames = {}
    for kind, frame in results.frames.items():
        columns = ("nll", "tail_nll", "truncated_nll", "entropy")
        changed = {c: noisy(frame, c, 0.05) for c in columns if c in frame and "document" in frame}
        if kind == "passkey":
            changed = {"hit": rng.random(len(frame)) < 0.7}
        elif kind == "benchmarks.samples":
            right = (rng.random(len(frame)) < 0.6).astype(float)
            changed = {"acc": right, "acc_norm": right}
        elif kind == "training":
            changed = {"loss": 2 + 3 * np.exp(-frame["step"] / 25) + rng.normal(0, 0.05, len(frame))}
        frames[kind] = frame.assign(**changed)
    return with_frames(results, **frames)


def held(results: Results, seed: int) -> tuple[Counter[str], set[str]]:
    """Which claims of difference hold on a null study, and which could be judged."""
    study = replace(null(results, seed))
    with light(500):
        found = {claim.id: judge(claim, study).status for claim in OF_DIFFERENCE}
    judged = {name for name, status in found.items() if status != "not run"}
    return Counter(name for name, status in found.items() if status == "holds"), judged


def test_nothing_holds_where_nothing_differs(results: Results) -> None:
    found, judged = held(results, 1)
    assert not found and len(judged) >= 20


@pytest.mark.slow
def test_what_holds_by_chance_is_rare(results: Results) -> None:
    """Twenty null studies: no claim holds in more than two of them, all together at 2.5 % of the verdicts at most."""
    all_found: Counter[str] = Counter()
    for seed in range(20):
        found, judged = held(results, 100 + seed)
        all_found += found
    assert max(all_found.values(), default=0) <= 2
    assert sum(all_found.values()) <= 0.025 * 20 * len(judged)
