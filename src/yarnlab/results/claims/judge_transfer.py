"""Claims beyond the main runs: PI and NTK-aware past their window, efficiency, short rows (claims 27, 33 and 34)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from yarnlab.lazy import pd
from yarnlab.results.claims.claims import Part, interval
from yarnlab.results.claims.judge_long import first_model, second_model
from yarnlab.results.claims.judge_tuned import arms, change
from yarnlab.results.estimates import NotMeasured, gap, losses_by_seed, nll
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Array, difference_of_means, mean
from yarnlab.results.style import label

STRETCH = 10  # steps that a training loss is averaged over
FEWER = 2.5  # times fewer steps than PI (abstract)


def claim_27(results: Results) -> Iterator[Part]:
    """Beyond its window PI breaks down, and NTK-aware does so more gently."""
    first, pi, aware = arms(results, "pi", "ntk-aware")
    full = int(first.scale * results.original_context)
    name = f"{label(pi)}, perplexity at {2 * full:,} over {full:,} tokens"
    yield interval(name, change(results, pi, 2 * full, full), ">", 10.0, [pi.arm])
    rises = [nll(results, m.arm, 2 * full) - nll(results, m.arm, full) for m in (aware, pi)]
    name = f"that rise of {label(aware)} over that of {label(pi)}"
    yield interval(name, gap(*rises).map(math.exp, "ratio of ratios"), "<", 1.0, [aware.arm, pi.arm])


def claim_33(results: Results) -> Iterator[Part]:
    """YaRN needs at most 1/2.5 of PI's steps to PI's final training loss."""
    first, pi = arms(results, "pi", as_long=False)
    yarn, rival = losses_by_seed(results, first.arm), losses_by_seed(results, pi.arm)
    last = int(rival.columns.max())
    early = math.floor(last / FEWER)
    if early < STRETCH:
        raise NotMeasured(f"{pi.arm} trained {last} steps; {math.ceil(STRETCH * FEWER)} are needed")
    if (done := int(yarn.columns.max())) < early:
        raise NotMeasured(f"{first.arm} has trained {done} steps so far; {early} are needed")
    own = mean(_stretch(yarn, early), over="steps")
    theirs = mean(_stretch(rival, last), over="steps")
    name = (
        f"training loss of YaRN up to step {early} minus that of {label(pi)} up to step {last} ({STRETCH}-step means)"
    )
    sources = [f"training:{first.arm}", f"training:{pi.arm}"]
    yield interval(name, difference_of_means(own, theirs), "<=", 0.0, sources)


def _stretch(losses: pd.DataFrame, end: int) -> Array:
    """The losses of the last STRETCH steps up to `end`: seeds x steps."""
    steps = losses.columns.to_numpy(int)
    return losses.to_numpy(float)[:, (steps > end - STRETCH) & (steps <= end)]


def claim_34(results: Results) -> Iterator[Part]:
    """Trained on rows of 2L tokens only, perplexity still falls up to sL."""
    window = results.original_context
    for model in _on_short_rows(results):
        full = int(model.scale * window)
        name = f"{label(model)} on rows of {model.trained_length:,}, perplexity at {full:,} over {full // 2:,} tokens"
        yield interval(name, change(results, model, full, full // 2), "<", 1.0, [model.arm])


def claim_34_full(results: Results) -> Iterator[Part]:
    """Mistral: the continued model at its window, the first one at its own and beyond, the base beyond all."""
    first, second = first_model(results), second_model(results)
    window = results.original_context
    half, full = int(first.scale * window), int(second.scale * window)
    if max(m.trained_length or 0 for m in (first, second)) > 2 * window:
        raise NotMeasured(f"{first.arm} and {second.arm} were trained on rows longer than {2 * window:,} tokens")
    name = f"{label(second)}, perplexity at {full:,} over {half:,} tokens"
    yield interval(name, change(results, second, full, half), "<=", 1.02, [second.arm])
    base = results.base()
    if base is None:
        raise NotMeasured("the study has no base")
    name = f"ln perplexity of the base at {full:,} tokens"
    yield interval(name, mean(nll(results, base.arm, full).to_numpy()), ">", math.log(1000), [base.arm])


def _on_short_rows(results: Results) -> list[Model]:
    window = results.original_context
    found = [
        m
        for m in results.arms().values()
        if m.kind == "finetune" and m.method == "yarn" and m.scale >= 4 and (m.trained_length or math.inf) <= 2 * window
    ]
    if not found:
        raise NotMeasured(f"no YaRN model was trained at s ≥ 4 on rows of at most {2 * window:,} tokens")
    return found
