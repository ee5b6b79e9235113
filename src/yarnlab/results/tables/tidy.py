"""Tidy tables: one row per number, with interval and n. Lengths in tokens, NLL differences in nats.

Frames that several outputs read are cached by the identity of the results: do not change them in place.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import lru_cache
from typing import Any

from yarnlab.lazy import np, pd
from yarnlab.results.bases import roots, tree_of
from yarnlab.results.estimates import NotMeasured, gap, hits, nll, paired, paired_hits, split
from yarnlab.results.estimates import zero_shot as zero_shot_nll
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import difference, head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import (
    Array,
    accuracy,
    geometric_mean_perplexity,
    mcnemar,
    mean,
    paired_difference_of_proportions,
    resampled,
    share,
    sign_flip,
)
from yarnlab.results.style import labels

MULTIPLES = (0.5, 1, 2, 4, 8, 16, 24, 32)
LAST_STEPS = 20


def perplexity(results: Results) -> pd.DataFrame:
    """Perplexity of every arm at N = L/2 … 32L of any base's L: over the whole window, and over its last bucket."""
    rows = []
    present = set(results.frame("perplexity")["length"])
    contexts = {tree.original_context for tree in roots(results).values()}
    for model, name in named_arms(results):
        for length in sorted({int(multiple * context) for multiple in MULTIPLES for context in contexts} & present):
            for measure, column in (("cumulative", "nll"), ("last bucket", "bucket_nll")):
                try:
                    estimate = geometric_mean_perplexity(nll(results, model.arm, length, column).to_numpy())
                except NotMeasured:
                    continue
                row = head(model, name) | {"length": length, "measure": measure}
                rows.append(row | numbers("perplexity", estimate))
    return with_base(results, pd.DataFrame(rows))


def compared_with(results: Results) -> Model | None:
    """The ablation's YaRN arm; of several the one that arms of most methods were trained like.

    Of these it is the one that is continued at a larger scale, else one with the official code's ramp.
    """
    arms, extended = results.ablation(), results.extended()

    def rank(model: Model) -> tuple[int, bool]:
        return len({m.method for m in arms if results.alike(m, model)}), model == extended

    return max((m for m in arms if m.method == "yarn"), key=rank, default=None)


def ablation_lengths(results: Results) -> list[int]:
    """L, sL/4, sL and 1.5 sL of the ablation's scale (L, 4L, 16L, 24L at s=16), as far as measured."""
    first = compared_with(results)
    if first is None:
        return []
    window, full = results.original_context, int(first.scale * results.original_context)
    present = set(results.frame("perplexity")["length"])
    return [n for n in sorted({window, full // 4, full, full * 3 // 2}) if n in present]


@lru_cache(maxsize=4)
def ablation(results: Results) -> pd.DataFrame:
    """Arms of the ablation and the base: perplexity, its gap to YaRN paired by document, passkey at sL.

    An arm that was not fine-tuned like that YaRN arm has no gap. p: sign-flip test of the gap; p_holm: corrected over
    all gaps of the table.
    """
    rows: list[dict[str, Any]] = []
    first, base = compared_with(results), results.base()
    if first is None or base is None:
        return pd.DataFrame(rows)
    full = int(first.scale * results.original_context)
    names = labels(results)
    for model in [*results.ablation(), base]:
        for length in ablation_lengths(results):
            try:
                own = nll(results, model.arm, length)
                row = head(model, names[model.arm]) | {"length": length}
                row |= numbers("perplexity", geometric_mean_perplexity(own.to_numpy()))
                rows.append(row)
            except NotMeasured:
                continue
            if model.arm != first.arm and (model == base or results.alike(model, first)):
                try:
                    reference = nll(results, first.arm, length)
                    row |= difference(gap(own, reference)) | sign_flip(paired(own, reference)).columns()
                except NotMeasured:
                    pass
            if length == full:
                row |= _passkey_at(results, model, full)
    return with_holm(pd.DataFrame(rows))


@lru_cache(maxsize=4)
def zero_shot(results: Results) -> pd.DataFrame:
    """Base under every method and scale at every measured length, with the gap to YaRN paired by document.

    p: sign-flip test of the gaps at N = sL; p_holm: corrected over these. The gaps at other lengths are not tested: a
    dozen documents can't decide a hundred comparisons.
    """
    frame, base = results.frame("zero_shot"), results.base()
    rows = []
    cells = frame[["method", "scale", "length"]].drop_duplicates()
    for method, scale, length in cells.itertuples(index=False):
        try:
            own = zero_shot_nll(results, method, scale, length)
        except NotMeasured:
            continue
        row = {
            "arm": base.arm if base else "",
            "method": method,
            "scale": float(scale),
            "length": int(length),
        }
        row |= {"at_full_window": length == scale * results.original_context}
        row |= numbers("perplexity", geometric_mean_perplexity(own.to_numpy()))
        if method != "yarn":
            with suppress(NotMeasured):
                differences = paired(own, zero_shot_nll(results, "yarn", scale, length))
                row |= difference(mean(differences))
                if row["at_full_window"]:
                    row |= sign_flip(differences).columns()
        rows.append(row)
    return with_holm(pd.DataFrame(rows))


@lru_cache(maxsize=4)
def passkey(results: Results) -> pd.DataFrame:
    """Passkey accuracy of every arm by prompt length: over all depths, then by tenth of the depth.

    Over all depths also, as evaluation/passkey.py defines them: expected, the mean expected accuracy; margin, the
    median margin in nats, with the interval of its bootstrap over trials.
    """
    frame = results.frame("passkey")
    expected, margins = (split(frame, ["arm", "length"], "trial", name) for name in ("expected_accuracy", "margin"))
    tenth = np.minimum((frame["depth"].to_numpy(float) * 10).astype(int), 9)
    tables = split(frame.assign(tenth=tenth), ["arm", "length", "tenth"], "trial", "hit")
    rows = []
    for model, name in named_arms(results):
        for length in sorted({n for arm, n, _ in tables if arm == model.arm}):
            overall = accuracy(hits(results, model.arm, [int(length)]))
            row = head(model, name) | {"length": int(length)}
            whole = row | {"depth_low": 0.0, "depth_high": 1.0} | numbers("accuracy", overall)
            whole |= share(expected[model.arm, length].to_numpy()).columns("expected")
            by_trial = margins[model.arm, length].to_numpy().T
            rows.append(whole | resampled(by_trial, _median, unit="nats", over="trials").columns("margin"))
            for k in range(10):
                part = tables.get((model.arm, length, k))
                if part is not None and part.size:
                    depth = {"depth_low": k / 10, "depth_high": (k + 1) / 10}
                    rows.append(row | depth | numbers("accuracy", accuracy(part.to_numpy())))
    return with_base(results, pd.DataFrame(rows))


@lru_cache(maxsize=4)
def passkey_comparison(results: Results) -> pd.DataFrame:
    """Every other arm's passkey accuracy minus that of YaRN from the same base on the same prompts, by length.

    p: of `test`, McNemar's exact one for one seed; p_holm: corrected over all comparisons of the table.
    """
    frame, rows = results.frame("passkey"), []
    for model, name in named_arms(results):
        first = tree_of(results, model.arm).extended()
        if first is None or model.arm == first.arm:
            continue
        for length in sorted(frame.loc[frame["arm"] == model.arm, "length"].unique()):
            try:
                own, reference = paired_hits(results, model.arm, first.arm, [int(length)])
            except NotMeasured:
                continue
            row = head(model, name) | {"length": int(length)}
            row |= numbers("delta", paired_difference_of_proportions(own, reference))
            rows.append(row | mcnemar(own, reference).columns())
    return with_base(results, with_holm(pd.DataFrame(rows)))


def training(results: Results) -> pd.DataFrame:
    """One row per trained model: budget, speed, and mean losses over its last steps, resampled by step."""
    rows = []
    names = labels(results)
    for name, log in results.frame("training").groupby("model", sort=False):
        model, last = results.models[str(name)], log.tail(LAST_STEPS)
        end = log.iloc[-1]
        rows.append(
            {
                "model": model.name,
                "arm": model.arm,
                "label": names[model.arm],
                "seed": model.seed,
                "parent": model.parent or "",
                "row_length": model.trained_length,
                "steps": int(end["step"]),
                "tokens": int(end["tokens"]),
                "seconds": float(end["seconds"]),
                "tokens_per_second": float(log["tokens_per_second"].median()),
                "mfu_causal": float(log["mfu_causal"].median()),
                "mfu_palm": float(log["mfu_palm"].median()),
                "peak_memory_gib": float(log["peak_memory_gib"].max()),
                "averaged_steps": len(last),
            }
            | _final(last, "loss")
            | _final(last, "text_loss")
            | _final(last, "answer_loss")
        )
    return pd.DataFrame(rows)


def cost(results: Results) -> pd.DataFrame:
    """Wall time and peak memory of every stage that left a manifest."""
    rows = [
        {
            "stage": manifest.get("stage", ""),
            "name": manifest.get("name", ""),
            "seconds": float(manifest.get("seconds") or math.nan),
            "peak_memory_gib": float(manifest.get("peak_memory_bytes") or math.nan) / 2**30,
            "run": manifest.get("run", ""),
            "manifest": manifest["path"],
        }
        for manifest in results.manifests
    ]
    return pd.DataFrame(rows)


def _final(last: pd.DataFrame, column: str) -> dict[str, float]:
    values = last[column].dropna().to_numpy(np.float64)
    return mean(values, over="steps").columns(f"final_{column}") if len(values) else {f"final_{column}": math.nan}


def _median(margins: Array) -> Array:
    """(resamples, trials, seeds) -> (resamples,)."""
    return np.asarray(np.median(margins, axis=(1, 2)))


def _passkey_at(results: Results, model: Model, length: int) -> dict[str, Any]:
    try:
        e = accuracy(hits(results, model.arm, [length]))
    except NotMeasured:
        return {}
    return e.columns("passkey") | {"passkey_n": e.n}
