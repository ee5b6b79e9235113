"""Claims in the form that the paper's own models allow: its lengths, its numbers (claims.md's full-scale criteria).

Only where that differs from the scale-free form. What a published number is needed for stands in the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from yarnlab.lazy import np, pd
from yarnlab.results import temperature as sweep
from yarnlab.results.claims.claims import Part, interval, reaches
from yarnlab.results.claims.judge_long import first_model, second_model
from yarnlab.results.claims.judge_tuned import arms, arms_at, change, ratio
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.claims.judge_zero_shot import ratio as untrained_ratio
from yarnlab.results.estimates import (
    NotMeasured,
    battery_gap,
    doublings,
    gap,
    hits_by_length,
    losses,
    nll,
    present,
    sliding_gap,
    zero_shot,
)
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Array, Estimate, accuracy, mean, resampled
from yarnlab.results.style import label, method_label
from yarnlab.results.temperature import document_nll, line, sweep_of_base

RIVALS = ("ntk-by-parts", "ntk-aware", "pi")
SWEEP = 8.0  # s of the paper's Figures 2 to 4
MODE, SEGMENTS = 1.20, 8
YARN = "NousResearch/Yarn-Llama-2-{}-{}"  # size, 64k (s=16) or 128k (s=32)
CODE_LLAMA, TOGETHER = "NousResearch/CodeLlama-{}-hf", "togethercomputer/LLaMA-2-7B-32K"
PRETRAINING = 2e12  # tokens of Llama 2
CHEN = 1000  # steps of PI (Chen et al. 2023)


def claim_7(results: Results) -> Iterator[Part]:
    base, window = base_model(results), results.original_context
    frame = present(results, "perplexity")
    lengths = sorted({int(n) for n in frame.loc[frame["arm"] == base.arm, "length"] if n >= 1.17 * window})
    if not lengths:
        raise NotMeasured(f"no perplexity of {base.arm} beyond {1.17 * window:,.0f} tokens")
    name = f"base, perplexity at {lengths[0]:,} over {window:,} tokens"
    yield interval(name, change(results, base, lengths[0], window), ">", 1.3, [base.arm])


def claim_8(results: Results) -> Iterator[Part]:
    base, window = base_model(results), results.original_context
    for scale in (2.0, 4.0, 8.0, 16.0):
        for length in doublings(window, scale * window)[1:]:
            for rival in RIVALS:
                name = f"s={scale:g} at {length:,} tokens, YaRN / {method_label(rival)}"
                yield interval(name, untrained_ratio(results, "yarn", rival, scale, length), "<", 1.0, [base.arm])


def claim_10(results: Results) -> Iterator[Part]:
    base, window = base_model(results), results.original_context
    name = f"s=8 at {4 * window:,} tokens, NTK-aware / PI"
    yield interval(name, untrained_ratio(results, "ntk-aware", "pi", 8.0, 4 * window), "<", 1.0, [base.arm])
    rise = gap(*(zero_shot(results, "ntk-aware", 8.0, n * window) for n in (8, 4)))
    name = f"s=8, NTK-aware at {8 * window:,} over {4 * window:,} tokens"
    yield interval(name, rise.map(math.exp, "ratio of perplexities"), ">", 1.0, [base.arm])
    name = f"s=2 at {2 * window:,} tokens, NTK-aware / PI"
    yield interval(name, untrained_ratio(results, "ntk-aware", "pi", 2.0, 2 * window), ">", 1.0, [base.arm])


def claim_13(results: Results) -> Iterator[Part]:
    base = base_model(results)
    frame = sweep_of_base(results)
    grid = sorted({float(f) for f in frame.loc[(frame["scale"] == SWEEP) & (frame["kind"] == "grid"), "factor"]})
    chosen = [factor for factor in grid if 1.1 - 1e-9 <= factor <= 1.4 + 1e-9]
    if not chosen:
        raise NotMeasured(f"the temperature sweep has no factors from 1.1 to 1.4 at s={SWEEP:g}")
    for segment in sorted({int(n) for n in frame["segment"]}):
        for factor in chosen:
            both = (document_nll(results, SWEEP, "grid", f, segment) for f in (factor, 1.0))
            name = f"s={SWEEP:g}, segment {segment + 1}, ln perplexity with √(1/t) = {factor:g} minus without"
            yield interval(name, gap(*both), "<", 0.0, [base.arm])


def claim_14(results: Results) -> Iterator[Part]:
    base = base_model(results)
    frame = sweep_of_base(results)
    rows = frame[frame["scale"] == SWEEP]
    if rows["segment"].nunique() < SEGMENTS:
        raise NotMeasured(f"the temperature sweep has not {SEGMENTS} segments at s={SWEEP:g}")
    best = sweep.best_by_document(rows, by_segment=True)
    wide = best.pivot_table(index="document", columns="segment", values="factor").to_numpy()
    count = resampled(wide, _segments_at_mode, unit="segments")
    yield interval(
        f"segments (of {wide.shape[1]}) whose most frequent best factor is {MODE:g}", count, ">=", 7.0, [base.arm]
    )
    near = mean((np.abs(wide - MODE) <= 0.025 + 1e-9).mean(axis=1), unit="proportion")
    name = f"share of documents × segments whose best factor is within 0.025 of {MODE:g}"
    yield reaches(name, near, 0.5, [base.arm])


def _segments_at_mode(factors: Array) -> Array:
    """(resamples, documents, segments) -> (resamples,)."""
    grid = np.unique(factors)
    counts = np.stack([(factors == factor).sum(axis=1) for factor in grid], axis=-1)
    return np.asarray((np.abs(grid[counts.argmax(axis=-1)] - MODE) < 1e-9).sum(axis=1).astype(float))


def claim_15(results: Results) -> Iterator[Part]:
    base, (slope, intercept, _) = base_model(results), line(results)
    for name, estimate, centre in (("slope", slope, 0.1), ("intercept", intercept, 1.0)):
        yield interval(f"{name} of the best √(1/t) over ln s", estimate, ">=", centre - 0.03, [base.arm])
        yield interval(f"{name} of the best √(1/t) over ln s", estimate, "<=", centre + 0.03, [base.arm])


def claim_18(results: Results) -> Iterator[Part]:
    first, parts, aware, pi = arms(results, *RIVALS)
    length = int(first.scale * results.original_context)
    for better, worse in pairwise((first, parts, pi, aware)):
        name = f"{label(better)} / {label(worse)} at {length:,} tokens"
        yield interval(name, ratio(results, better, worse, length), "<", 1.0, [better.arm, worse.arm])


def claim_22(results: Results) -> Iterator[Part]:
    yarn, pi, aware = arms_at(results, 2.0, "pi", "ntk-aware")
    window = results.original_context
    inside, beyond = doublings(window // 2, 2 * window), 5 * window // 2
    for length in inside:
        name = f"{label(yarn)} / {label(pi)} at {length:,} tokens"
        estimate = ratio(results, yarn, pi, length)
        yield interval(name, estimate, "<=", math.exp(0.01), [yarn.arm, pi.arm])
        yield interval(name, estimate, ">=", math.exp(-0.01), [yarn.arm, pi.arm])
        name = f"{label(aware)} / {label(pi)} at {length:,} tokens"
        yield interval(name, ratio(results, aware, pi, length), ">=", 1.05, [aware.arm, pi.arm])
    for better, worse in pairwise((yarn, aware, pi)):
        name = f"{label(better)} / {label(worse)} at {beyond:,} tokens"
        yield interval(name, ratio(results, better, worse, beyond), "<", 1.0, [better.arm, worse.arm])


def claim_24(results: Results) -> Iterator[Part]:
    model = first_model(results)
    length = int(1.5 * model.scale * results.original_context)
    found = mean(nll(results, model.arm, length).to_numpy()).map(math.exp, "perplexity")
    yield interval(f"{label(model)}, perplexity at {length:,} tokens", found, ">", 10.0, [model.arm])


def claim_25(results: Results) -> Iterator[Part]:
    first, second = first_model(results), second_model(results)
    full, end = (int(m.scale * results.original_context) for m in (first, second))
    name = f"{label(second)}, perplexity at {end:,} over {full:,} tokens"
    yield interval(name, change(results, second, end, full), "<=", 1.0, [second.arm])


def claim_27(results: Results) -> Iterator[Part]:
    for size in ("7b", "13b"):
        yarn, code = _named(results, YARN.format(size, "128k")), _named(results, CODE_LLAMA.format(size))
        for length in (8192, 32768, 65536, 98304, 131072):
            name = f"{size} at {length:,} tokens, YaRN s=32 / Code Llama"
            yield interval(name, ratio(results, yarn, code, length), "<", 1.0, [yarn.arm, code.arm])
    together = _named(results, TOGETHER)
    found = mean(nll(results, together.arm, 65536).to_numpy()).map(math.exp, "perplexity")
    yield interval("Together 32k at 65,536 tokens, perplexity", found, ">", 100.0, [together.arm])


def claim_28(results: Results) -> Iterator[Part]:
    orders = [[YARN.format(size, window) for window in ("64k", "128k")] for size in ("7b", "13b")]
    orders[0] += [TOGETHER, CODE_LLAMA.format("7b")]
    orders[1] += [CODE_LLAMA.format("13b")]
    for names in orders:
        for better, worse in pairwise(names):
            a, b = _named(results, better), _named(results, worse)
            difference = sliding_gap(results, a, b, "windows pooled")
            name = f"windows pooled, ln perplexity of {better.rpartition('/')[2]} minus {worse.rpartition('/')[2]}"
            yield interval(name, difference, "<", 0.0, [a.arm, b.arm])


def claim_29(results: Results) -> Iterator[Part]:
    present(results, "passkey_official")
    for size in ("7b", "13b"):
        model = _named(results, YARN.format(size, "128k"))
        own = hits_by_length(results, "passkey_official", model.arm)
        share = accuracy(pd.concat(own, axis=1, join="inner").to_numpy(float))
        name = f"{size} s=32, passkeys found by the official protocol from {min(own):,} to {max(own):,} tokens"
        yield reaches(name, share, 159 / 160, [f"passkey_official:{model.arm}"])


def claim_31(results: Results) -> Iterator[Part]:
    base = base_model(results)
    for model in (first_model(results), second_model(results)):
        name = f"{label(model)} minus base, mean of the four tasks"
        yield interval(name, battery_gap(results, model.arm, base.arm), ">=", -0.015, [model.arm, base.arm])


def claim_32(results: Results) -> Iterator[Part]:
    first, second = first_model(results), second_model(results)
    drop = battery_gap(results, first.arm, second.arm)
    for sign, threshold in ((">=", 0.0019), ("<=", 0.0079)):
        name = f"{label(first)} minus {label(second)}, mean of the four tasks"
        yield interval(name, drop, sign, threshold, [first.arm, second.arm])


def claim_33(results: Results) -> Iterator[Part]:
    first = first_model(results)
    steps = len(losses(results, first.arm))
    frame = present(results, "training")
    rows = frame[frame["arm"] == first.arm]
    if "tokens" not in rows:
        raise NotMeasured(f"the training log of {first.arm} does not count tokens")
    share = float(rows["tokens"].max()) / PRETRAINING
    yield interval("tokens of the fine-tuning over those of pre-training", _counted(share, "share"), "<=", 0.001)
    yield interval("PI's steps (Chen et al.) over ours", _counted(CHEN / steps, "ratio of steps"), ">=", 2.5)


def _counted(value: float, unit: str) -> Estimate:
    return Estimate(value, value, value, 1, "run", unit, "counted")


def _named(results: Results, published: str) -> Model:
    model = results.standing_for(published)
    if model is None:
        raise NotMeasured(f"no model of this study stands for {published}")
    return model
