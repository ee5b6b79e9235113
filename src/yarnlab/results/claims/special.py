"""Claims that are no quantity at some lengths: one function each, called by `judge:` in `config/claims.yaml`.

A function takes what it computes from (`Scope`) and the numbers of its criterion as keywords. It holds none itself but
0 and 1, which mean no difference, so that a changed number is a changed criterion. The criterion's words stand beside
the numbers in the YAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from typing import TypeAlias

from yarnlab.evaluation.perplexity import doublings
from yarnlab.lazy import np, pd, stats
from yarnlab.results import temperature as sweep
from yarnlab.results.bases import compared_with
from yarnlab.results.claims.models import Scope
from yarnlab.results.claims.parts import Part, interval, number
from yarnlab.results.claims.quantities import RATIO, context_change, perplexity_change
from yarnlab.results.estimates import (
    REFERENCE_VARIANT,
    NotMeasured,
    accuracy_of,
    beyond,
    cell,
    cells,
    fillers,
    gap,
    hits,
    hits_by_length,
    losses,
    losses_by_seed,
    moved_gaps,
    nll,
    over_documents,
    packages,
    paired,
    paired_hits,
    paired_losses,
    passkey_lengths,
    present,
    retrieval,
    warmup,
)
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import (
    CONFIDENCE,
    Array,
    Estimate,
    accuracy,
    difference_of_means,
    mcnemar,
    mean,
    mean_of_steps,
    paired_difference_of_proportions,
    resampled,
)
from yarnlab.results.style import label, labels, method_label
from yarnlab.results.temperature import document_nll, line, spread_of_best, sweep_of_base

Judge: TypeAlias = Callable[..., Iterator[Part]]
SPECIAL: dict[str, Judge] = {}
FEWEST_STEPS = 8  # after the warm-up, below which an autocorrelation is anybody's guess


def special(judge: Judge) -> Judge:
    """Register a function under its own name."""
    SPECIAL[judge.__name__] = judge
    return judge


@special
def blow_up(scope: Scope, *, multiple: float, above: float) -> Iterator[Part]:
    """The base at the shortest measured length of at least `multiple` · L, over its perplexity at L."""
    base, window = scope.model("base"), scope.results.original_context
    frame = present(scope.results, "perplexity")
    lengths = sorted({int(n) for n in frame.loc[frame["arm"] == base.arm, "length"] if n >= multiple * window})
    if not lengths:
        raise NotMeasured(f"no perplexity of {base.arm} beyond {multiple * window:,.0f} tokens")
    name = f"base, perplexity at {lengths[0]:,} over {window:,} tokens"
    yield interval(name, perplexity_change(scope.results, base.arm, lengths[0], window), ">", above, [base.arm])


@special
def retrieves(scope: Scope, *, start: int | str, ends: dict[str, str], shares: dict[str, float]) -> Iterator[Part]:
    """Passkeys that models find at all tested lengths from `start` to the end of each, pooled."""
    for name, end in ends.items():
        model, (low, high) = scope.model(name), (scope.window.tokens(n) for n in (start, end))
        lengths = passkey_lengths(scope.results, model, low, high)
        over = f"over {lengths[0]:,} to {lengths[-1]:,} tokens" if len(lengths) > 1 else f"at {lengths[0]:,} tokens"
        found = retrieval(scope.results, model.arm, lengths)
        yield interval(f"{label(model)}, passkey accuracy {over}", found, ">=", shares[name], [f"passkey:{model.arm}"])


@special
def cache_cost(scope: Scope, *, at_most: float, above: float) -> Iterator[Part]:
    """NLL with keys cached after the rotation minus before it, for every dynamic method: up to L, and beyond."""
    results, window, base = scope.results, scope.results.original_context, scope.model("base")
    frame = present(results, "key_cache")
    end = int(frame["bucket_end"].max())
    for method in frame["method"].drop_duplicates():
        name = f"{method_label(method)}, NLL with the wrong cache minus with the right one"
        within = gap(*(beyond(results, method, cache, 0, window) for cache in ("post-rope", "pre-rope")))
        yield interval(f"{name}, tokens up to {window:,}", within, "<=", at_most, [base.arm])
        after = gap(*(beyond(results, method, cache, window, end) for cache in ("post-rope", "pre-rope")))
        yield interval(f"{name}, tokens {window:,}–{end:,}", after, ">", above, [base.arm])


@special
def dynamic_order(scope: Scope, *, methods: list[str], up_to: str, at: str, at_most: float) -> Iterator[Part]:
    """Each method below the next at every measured N in (L, up_to], and the first one at `at` against truncation."""
    results, window, base = scope.results, scope.results.original_context, scope.model("base")
    for length in _dynamic_lengths(results, window, scope.window.tokens(up_to)):
        for better, worse in pairwise(methods):
            own, other = (_dynamic(results, "nll", method, length) for method in (better, worse))
            name = f"{length:,} tokens, {method_label(better)} / {method_label(worse)}"
            yield interval(name, gap(own, other).map(math.exp, RATIO), "<", 1.0, [base.arm])
    yield _against_truncation(results, methods[0], scope.window.tokens(at), "<=", at_most, base)


@special
def dynamic_beyond(scope: Scope, *, method: str, multiple: float, below: float) -> Iterator[Part]:
    """A dynamic method at the smallest measured N above `multiple` · L, on the last tokens, against truncation."""
    start = int(multiple * scope.results.original_context)
    lengths = _dynamic_lengths(scope.results, start, math.inf)
    if not lengths:
        raise NotMeasured(f"dynamic scaling was not measured beyond {start:,} tokens")
    yield _against_truncation(scope.results, method, lengths[0], "<", below, scope.model("base"))


def _against_truncation(results: Results, method: str, length: int, sign: str, threshold: float, base: Model) -> Part:
    """NLL of the last of `length` tokens under a dynamic method minus that of the base given only the last L."""
    own, cut = (_dynamic(results, column, method, length) for column in ("tail_nll", "truncated_nll"))
    tail, window = results.evaluations["dynamic"]["tail"], results.original_context
    name = f"{method_label(method)}, the last {tail} of {length:,} tokens, NLL minus the base's with {window:,} of them"
    return interval(name, gap(own, cut), sign, threshold, [base.arm])


@special
def temperature_helps(scope: Scope, *, scale: float, share: float) -> Iterator[Part]:
    """The formula's factor against 1 in every segment, and the documents whose best factor is above 1."""
    results, base = scope.results, scope.model("base")
    whole, parts = spread_of_best(results, _swept(results, scale))
    for segment in range(parts.shape[1]):
        change = gap(
            document_nll(results, scale, "formula", segment=segment),
            document_nll(results, scale, "grid", 1.0, segment),
        )
        name = f"s={scale:g}, segment {segment + 1} of {parts.shape[1]}, ln perplexity with the formula's factor minus"
        yield interval(f"{name} without", change, "<", 0.0, [base.arm])
    above = replace(accuracy(np.asarray(whole > 1.0, dtype=float), groups=packages(whole.index)), over="documents")
    yield interval(f"s={scale:g}, share of documents whose best factor is above 1", above, ">", share, [base.arm])


@special
def factors_help(scope: Scope, *, scale: float, lowest: float, highest: float) -> Iterator[Part]:
    """Every factor of the grid in [lowest, highest] against 1, in every segment."""
    results, base = scope.results, scope.model("base")
    frame = sweep_of_base(results)
    grid = sorted({float(f) for f in frame.loc[(frame["scale"] == scale) & (frame["kind"] == "grid"), "factor"]})
    chosen = [factor for factor in grid if lowest - 1e-9 <= factor <= highest + 1e-9]
    if not chosen:
        raise NotMeasured(f"the temperature sweep has no factors from {lowest:g} to {highest:g} at s={scale:g}")
    for segment in sorted({int(n) for n in frame["segment"]}):
        for factor in chosen:
            both = (document_nll(results, scale, "grid", f, segment) for f in (factor, 1.0))
            name = f"s={scale:g}, segment {segment + 1}, ln perplexity with √(1/t) = {factor:g} minus without"
            yield interval(name, gap(*both), "<", 0.0, [base.arm])


@special
def same_temperature(scope: Scope, *, scale: float, spread: float) -> Iterator[Part]:
    """How far the best factors of documents, and those of segments, lie apart."""
    base, (whole, _) = scope.model("base"), spread_of_best(scope.results, _swept(scope.results, scale))
    quartiles = resampled(whole.to_numpy(), interquartile_range, unit="√(1/t)")
    name = f"s={scale:g}, interquartile range of the documents' best factors"
    yield interval(name, quartiles, "<=", spread, [base.arm])
    rows = sweep_of_base(scope.results)
    segments = sweep.range_over_segments(rows[rows["scale"] == scale])
    yield interval(f"s={scale:g}, range of the segments' best factors", segments, "<=", spread, [base.arm])


@special
def one_temperature(
    scope: Scope, *, scale: float, factor: float, segments: int, of_segments: int, within: float, share: float
) -> Iterator[Part]:
    """How many segments have `factor` as their most frequent best one, and the share of cells near it."""
    base, frame = scope.model("base"), sweep_of_base(scope.results)
    rows = frame[frame["scale"] == scale]
    if rows["segment"].nunique() < of_segments:
        raise NotMeasured(f"the temperature sweep has not {of_segments} segments at s={scale:g}")
    best = sweep.best_by_document(rows, by_segment=True)
    table = best.pivot_table(index="document", columns="segment", values="factor")
    wide = table.to_numpy()

    def at_factor(factors: Array) -> Array:
        """(resamples, documents, segments) -> (resamples,)."""
        return np.asarray((np.abs(_modes(factors) - factor) < 1e-9).sum(axis=1).astype(float))

    count = resampled(wide, at_factor, unit="segments")
    name = f"segments (of {wide.shape[1]}) whose most frequent best factor is {factor:g}"
    yield interval(name, count, ">=", float(segments), [base.arm])
    near = (np.abs(wide - factor) <= within + 1e-9).mean(axis=1)
    near = mean(near, groups=packages(table.index), unit="proportion")
    name = f"share of documents × segments whose best factor is within {within:g} of {factor:g}"
    yield interval(name, near, ">=", share, [base.arm])


@special
def temperature_line(
    scope: Scope, *, slope_above: float, intercept: list[float], bend: list[float], paper: list[float]
) -> Iterator[Part]:
    """Slope, intercept and bend of the best factors over ln s; the slope is not judged against the paper's."""
    base, (slope, constant, arch, scales) = scope.model("base"), line(scope.results)
    name = f"slope of the best √(1/t) over ln s ({scales} scales; paper: {paper[0]:g})"
    yield interval(name, slope, ">", slope_above, [base.arm])
    name = f"intercept of that line ({scales} scales; paper: {paper[1]:g})"
    yield from _between(name, constant, intercept, base)
    yield from _between(f"height of the best √(1/t) over a chord, in the middle ({scales} scales)", arch, bend, base)


@special
def papers_line(scope: Scope, *, slope: list[float], intercept: list[float], bend: list[float]) -> Iterator[Part]:
    """Slope, intercept and bend of the best factors over ln s, each between two numbers."""
    base, (found, constant, arch, _) = scope.model("base"), line(scope.results)
    yield from _between("slope of the best √(1/t) over ln s", found, slope, base)
    yield from _between("intercept of the best √(1/t) over ln s", constant, intercept, base)
    yield from _between("height of the best √(1/t) over a chord, in the middle", arch, bend, base)


@special
def attention_entropy(scope: Scope, *, raised_by: list[str]) -> Iterator[Part]:
    """Entropy above plain RoPE's and growing with s under the methods `raised_by`; the temperature brings it back."""
    results, base = scope.results, scope.model("base")
    tables = cells(results, "entropy", "entropy", ("method", "scale"))
    plain = cell(results, "entropy", "entropy", method="none", scale=1.0)
    scales = sorted({scale for method, scale in tables if method != "none"})
    for method in raised_by:
        own = {scale: tables[method, scale] for scale in scales if (method, scale) in tables}
        if not own:
            raise NotMeasured(f"the entropy under {method_label(method)} was not measured")
        for scale, found in own.items():
            rise = over_documents(paired(found, plain))
            name = f"s={scale:g}, entropy under {method_label(method)} minus the base's"
            yield interval(name, rise, ">", 0.0, [base.arm])
        for small, large in pairwise(own):
            growth = over_documents(paired(own[large], own[small]))
            name = f"entropy under {method_label(method)}, s={large:g} minus s={small:g}"
            yield interval(name, growth, ">", 0.0, [base.arm])
    for scale in scales:
        if ("yarn", scale) not in tables or ("ntk-by-parts", scale) not in tables:
            continue
        with_it, without = (paired(tables[m, scale], plain).abs() for m in ("yarn", "ntk-by-parts"))
        name = f"s={scale:g}, distance from the base's entropy, with the temperature minus without"
        yield interval(name, over_documents(with_it - without), "<", 0.0, [base.arm])


@special
def lowest_loss(scope: Scope, *, last: float) -> Iterator[Part]:
    """Training loss of every other method minus YaRN's on the same batches, after the warm-up: all steps, the last."""
    yarn, *rivals = scope.models.values()
    for rival in rivals:
        gaps = paired_losses(scope.results, yarn.arm, rival.arm)
        start = warmup(scope.results, yarn.arm)
        steps = [int(step) for step in gaps.columns if int(step) > start]
        if len(steps) < FEWEST_STEPS:
            raise NotMeasured(f"{rival.arm} and {yarn.arm} share {len(steps)} steps after the warm-up: too few")
        for count, what in ((len(steps), "all"), (math.ceil(last * len(steps)), "last")):
            name = f"training loss, {label(rival)} minus YaRN, {what} steps {steps[-count]:,}–{steps[-1]:,}"
            found = mean_of_steps(gaps[steps].to_numpy(float), count)
            yield interval(name, found, ">", 0.0, [f"training:{yarn.arm}", f"training:{rival.arm}"])


@special
def best_retrieval(scope: Scope, *, up_to: str, above: float) -> Iterator[Part]:
    """Passkey accuracy pooled up to a length, YaRN minus every other method, beside the test of no difference."""
    results, (yarn, *rivals) = scope.results, scope.models.values()
    lengths = passkey_lengths(results, yarn, 0, scope.window.tokens(up_to))
    trials = [paired_hits(results, yarn.arm, rival.arm, lengths) for rival in rivals]
    for rival, (own, other) in zip(rivals, trials, strict=True):
        p = mcnemar(own.to_numpy(), other.to_numpy(), groups=fillers(own)).p
        chance = f"{p:.2g}".replace("-", "−")
        name = f"passkey accuracy up to {lengths[-1]:,} tokens, YaRN minus {label(rival)} (p = {chance})"
        found = paired_difference_of_proportions(own.to_numpy(), other.to_numpy(), groups=fillers(own))
        yield interval(name, found, ">", above, [f"passkey:{yarn.arm}", f"passkey:{rival.arm}"])


@special
def moved_on(scope: Scope, *, method: str, above: float) -> Iterator[Part]:
    """What a method loses when it is moved on to the larger scale, over what YaRN loses, at L, 2L, … sL."""
    results, (first, second) = scope.results, (scope.model("first"), scope.model("second"))
    arms = [m for m in results.arms().values() if m.method == method]
    like_first = [m for m in arms if results.alike(m, first)]
    pairs = [(own, m) for own in like_first for m in arms if results.parent_arm(m) == own.arm]
    pairs = [(own, moved) for own, moved in pairs if moved.budget == second.budget]
    if not pairs:
        who = method_label(method)
        raise NotMeasured(f"this study trains no {who} model like {first.arm} and moves it on like {second.arm}")
    own, moved = pairs[0]
    for length in doublings(results.original_context, scope.window.tokens("sL")):
        name = f"{label(moved)} / {label(own)} over {label(second)} / {label(first)} at {length:,} tokens"
        lost = nll(results, moved.arm, length) - nll(results, own.arm, length)
        kept = nll(results, second.arm, length) - nll(results, first.arm, length)
        excess = over_documents(paired(lost, kept), unit="difference in ln perplexity").map(math.exp, "ratio of ratios")
        yield interval(name, excess, ">", above, [moved.arm, own.arm, second.arm, first.arm])


@special
def inversion(scope: Scope, *, start: str, above: float) -> Iterator[Part]:
    """Does a fine-tuned model retrieve more than the one of lowest perplexity at the first's sL?

    Its advantage is the largest of all models': at least as large as the lower bound of any whose perplexity is proven
    to be higher, each at the confidence that makes all bounds hold together (Bonferroni); at most as large as the
    largest upper bound of all, also of those whose perplexity may be the same.
    """
    results, length = scope.results, scope.window.tokens("sL")
    models = [m for m in results.arms().values() if m.kind == "finetune" and _measured(results, m, length)]
    if len(models) < 2:
        raise NotMeasured(f"fewer than two fine-tuned models have perplexity and passkey trials at {length:,} tokens")
    means = {m.arm: float(nll(results, m.arm, length).to_numpy().mean()) for m in models}
    lowest, *rivals = sorted(models, key=lambda m: means[m.arm])
    lengths = passkey_lengths(results, lowest, scope.window.tokens(start), length)
    worse, better = [], []
    for rival in rivals:
        worse.append(gap(nll(results, rival.arm, length), nll(results, lowest.arm, length)))
        own, other = paired_hits(results, rival.arm, lowest.arm, lengths)
        better.append(paired_difference_of_proportions(own.to_numpy(), other.to_numpy(), groups=fillers(own)))

    def bounds(confidence: float) -> tuple[float, float]:
        together = 1 - (1 - confidence) / len(rivals)
        proven = [b.at(together)[0] for w, b in zip(worse, better, strict=True) if w.at(together)[0] > 0]
        return max(proven, default=-1.0), max(b.at(confidence)[1] for b in better)

    name = f"passkey accuracy over {lengths[0]:,} to {length:,} tokens, best of the other {len(rivals)} models minus "
    name += f"{label(lowest)}, whose perplexity is lowest (rank correlation of perplexity and retrieval over the "
    name += f"models: {_rank_correlation(results, models, lengths, means)})"
    best = max(better, key=lambda e: e.value)
    found = replace(best, low=bounds(CONFIDENCE)[0], high=bounds(CONFIDENCE)[1], bounds=bounds)
    sources = [f"{kind}:{m.arm}" for m in models for kind in ("perplexity", "passkey")]
    yield interval(name, found, ">", above, sources)


@special
def fewer_steps(scope: Scope, *, times: float, steps: int) -> Iterator[Part]:
    """YaRN's training loss after 1/`times` of PI's steps against PI's final one, as means of `steps` steps."""
    yarn, pi = scope.model("yarn"), scope.model("pi")
    own, other = losses_by_seed(scope.results, yarn.arm), losses_by_seed(scope.results, pi.arm)
    last = int(other.columns.max())
    early = math.floor(last / times)
    if early < steps:
        raise NotMeasured(f"{pi.arm} trained {last} steps; {math.ceil(steps * times)} are needed")
    if (done := int(own.columns.max())) < early:
        raise NotMeasured(f"{yarn.arm} has trained {done} steps so far; {early} are needed")
    reached, final = (log.loc[:, :end] for log, end in ((own, early), (other, last)))
    name = f"training loss of YaRN up to step {early} minus that of {label(pi)} up to step {last} ({steps}-step means)"
    sources = [f"training:{yarn.arm}", f"training:{pi.arm}"]
    yield interval(name, _later_and_earlier(reached, final, steps), "<=", 0.0, sources)


@special
def small_budget(scope: Scope, *, pretraining: float, share: float, steps: int, fewer: float) -> Iterator[Part]:
    """Tokens of the first extension over those of pre-training, and another work's steps over its own."""
    first = scope.model("first")
    own = len(losses(scope.results, first.arm))
    frame = present(scope.results, "training")
    rows = frame[frame["arm"] == first.arm]
    if "tokens" not in rows:
        raise NotMeasured(f"the training log of {first.arm} does not count tokens")
    found = float(rows["tokens"].max()) / pretraining
    yield interval("tokens of the fine-tuning over those of pre-training", _counted(found, "share"), "<=", share)
    yield interval("PI's steps (Chen et al.) over ours", _counted(steps / own, "ratio of steps"), ">=", fewer)


@special
def short_rows(scope: Scope, *, least_scale: float, rows: str, below: float) -> Iterator[Part]:
    """Every YaRN model trained at a large scale on short rows: what it gains from the last doubling of its context."""
    longest = scope.window.tokens(rows)
    found = [
        m
        for m in scope.results.arms().values()
        if (m.kind, m.method) == ("finetune", "yarn") and m.scale >= least_scale
        if (m.trained_length or math.inf) <= longest
    ]
    if not found:
        raise NotMeasured(f"no YaRN model was trained at s ≥ {least_scale:g} on rows of at most {longest:,} tokens")
    for model in found:
        full, half = (scope.at_scale(model.scale).tokens(n) for n in ("sL", "sL/2"))
        name = (
            f"{label(model)} on rows of {model.trained_length:,}, tokens {half:,}–{full:,}, all minus {half:,} tokens "
        )
        gained = context_change(scope.results, model.arm, (half, full), full, half)
        yield interval(f"{name}of context", gained, "<", below, [model.arm])


@special
def papers_short_rows(scope: Scope, *, rows: str, at_most: float, base_above: float) -> Iterator[Part]:
    """Mistral: the continued model at its window over the first one's window; the base there is beyond all use."""
    results, (base, first, second) = scope.results, (scope.model(n) for n in ("base", "first", "second"))
    longest, half, full = (scope.window.tokens(n) for n in (rows, "sL", "s'L"))
    if max(m.trained_length or 0 for m in (first, second)) > longest:
        raise NotMeasured(f"{first.arm} and {second.arm} were trained on rows longer than {longest:,} tokens")
    name = f"{label(second)}, perplexity at {full:,} over {half:,} tokens"
    yield interval(name, perplexity_change(results, second.arm, full, half), "<=", at_most, [second.arm])
    name = f"ln perplexity of the base at {full:,} tokens"
    yield interval(name, over_documents(nll(results, base.arm, full)), ">", math.log(base_above), [base.arm])


@special
def other_ramps(scope: Scope, *, negligible: float) -> Iterator[Part]:
    """Another ramp changes the perplexity at sL by a negligible amount, untrained and trained."""
    yield from _untrained_ramps(scope, negligible)
    names = labels(scope.results)
    for model, official in _trained_ramps(scope.results):
        length = int(model.scale * scope.results.original_context)
        change = _size(gap(nll(scope.results, model.arm, length), nll(scope.results, official.arm, length)))
        sources = [f"perplexity:{model.arm}", f"perplexity:{official.arm}"]
        name = f"fine-tuned, {length:,} tokens, |Δ ln ppl| of {names[model.arm]} to {names[official.arm]}"
        yield interval(name, change, "<=", negligible, sources)


@special
def requantised(scope: Scope, *, against: str, widths: float) -> Iterator[Part]:
    """How far each method's gap beyond L moves on a control, against the width of the gap's own interval."""
    for found in moved_gaps(scope.results, against):
        value, low, high = (number(x) for x in (found.own.value, found.own.low, found.own.high))
        span = f"{found.model.original_context:,}–{found.length:,}"
        name = f"s={found.scale:g}, tokens {span}, NLL of {method_label(found.method)} minus {method_label(against)} "
        name += f"({found.model.arm}: {value} [{low}, {high}]), size of its move on {found.control.arm}"
        move = replace(_size(found.move), bounds=partial(_size_at, found.move))  # Student's, for Holm's correction
        yield interval(name, move, "<", widths * (found.own.high - found.own.low), [found.model.arm, found.control.arm])


@special
def official_passkeys(scope: Scope, *, models: dict[str, str], share: float) -> Iterator[Part]:
    """The share of passkeys that published models find by the official protocol; models: name of a part → model."""
    present(scope.results, "passkey_official")
    for who, published in models.items():
        model = scope.model(published)
        own = hits_by_length(scope.results, "passkey_official", model.arm)
        found = accuracy_of(pd.concat(own, axis=1, join="inner"))
        name = f"{who}, passkeys found by the official protocol from {min(own):,} to {max(own):,} tokens"
        yield interval(name, found, ">=", share, [f"passkey_official:{model.arm}"])


def interquartile_range(factors: Array) -> Array:
    """(…, documents) -> (…,); rounded, since 1.3 − 1.2 is not exactly 0.1."""
    low, high = np.percentile(factors, [25, 75], axis=1)
    return np.asarray(np.round(high - low, 9))


def _modes(factors: Array) -> Array:
    """The most frequent factor of each segment: (resamples, documents, segments) -> (resamples, segments)."""
    grid = np.unique(factors)
    counts = np.stack([(factors == factor).sum(axis=1) for factor in grid], axis=-1)
    return np.asarray(grid[counts.argmax(axis=-1)])


def _dynamic(results: Results, column: str, method: str, length: int) -> pd.DataFrame:
    """A measure of the base under a dynamic method at a length: seeds x documents."""
    return cell(results, "dynamic", column, method=method, length=length)


def _dynamic_lengths(results: Results, above: float, end: float) -> list[int]:
    """Lengths in (above, end] at which dynamic scaling was measured."""
    frame = present(results, "dynamic")
    return sorted({int(n) for n in frame["length"] if above < n <= end})


def _swept(results: Results, scale: float) -> float:
    if scale not in set(sweep_of_base(results)["scale"]):
        raise NotMeasured(f"the temperature sweep has no scale {scale:g}")
    return scale


def _between(name: str, estimate: Estimate, ends: list[float], model: Model) -> Iterator[Part]:
    low, high = ends
    yield interval(name, estimate, ">=", low, [model.arm])
    yield interval(name, estimate, "<=", high, [model.arm])


def _measured(results: Results, model: Model, length: int) -> bool:
    return all(
        ((frame["arm"] == model.arm) & (frame["length"] == length)).any()
        for frame in (present(results, "perplexity"), present(results, "passkey"))
    )


def _rank_correlation(results: Results, models: list[Model], lengths: list[int], means: dict[str, float]) -> str:
    rates = [float(hits(results, model.arm, lengths).to_numpy().mean()) for model in models]
    if len(set(rates)) < 2:
        return "–"
    return f"{stats.spearmanr([means[model.arm] for model in models], rates).statistic:.2f}".replace("-", "−")


def _later_and_earlier(a: pd.DataFrame, b: pd.DataFrame, last: int) -> Estimate:
    """Mean of the last steps of one training minus that of another up to another step (seeds x steps), seed by seed."""
    seeds = a.index.intersection(b.index)
    if len(seeds) > 1:
        ends = [log.loc[seeds].to_numpy(float)[:, -last:] for log in (a, b)]
        return mean_of_steps(ends[0] - ends[1], last, unit="difference in nats")
    return difference_of_means(*(mean_of_steps(log.loc[seeds].to_numpy(float), last) for log in (a, b)))


def _counted(value: float, unit: str) -> Estimate:
    return Estimate(value, value, value, 1, "run", unit, "counted")


def _untrained_ramps(scope: Scope, negligible: float) -> Iterator[Part]:
    """Every variant of the base's ramp but those with another temperature, which is not the ramp's shape."""
    results, base = scope.results, scope.model("base")
    tables = cells(results, "ramp", "nll", ("variant", "scale", "length"))
    variants = results.evaluations["ramp"]["variants"]
    for (variant, scale, length), own in tables.items():
        reference = tables.get((REFERENCE_VARIANT, scale, length))
        if variant == REFERENCE_VARIANT or length != scale * results.original_context:
            continue
        if "temperature" in variants.get(variant, {}):
            continue
        if reference is None:
            raise NotMeasured(f"the ramp evaluation has no variant called '{REFERENCE_VARIANT}' to compare with")
        name = f"s={scale:g} at {length:,} tokens, untrained, |Δ ln ppl| of '{variant}' to the official ramp"
        yield interval(name, _size(gap(own, reference)), "<=", negligible, [f"ramp:{base.arm}"])


def _trained_ramps(results: Results) -> list[tuple[Model, Model]]:
    """YaRN arms with another ramp, each with one of the official ramp that was trained alike at one temperature.

    Only arms whose perplexity the study plans.
    """
    arms = [m for m in results.arms().values() if m.method == "yarn" and results.plans("perplexity", m.arm)]
    first = compared_with(results)
    official = sorted((m for m in arms if m.official_ramp), key=lambda m: m != first)
    pairs = []
    for model in (m for m in arms if not m.official_ramp):
        alike = (m for m in official if results.alike(model, m) and model.attention_factor == m.attention_factor)
        pairs += [(model, twin) for twin in islice(alike, 1)]
    return pairs


def _size(e: Estimate) -> Estimate:
    """Absolute value of an estimate: its interval holds the absolute values of the original one."""
    return Estimate(abs(e.value), *_absolute(e.low, e.high), e.n, e.over, f"size of the {e.unit}", e.method)


def _size_at(e: Estimate, confidence: float) -> tuple[float, float]:
    """The interval of an estimate's absolute value at another confidence."""
    return _absolute(*e.at(confidence))


def _absolute(low: float, high: float) -> tuple[float, float]:
    """The interval of absolute values in an interval."""
    return 0.0 if low <= 0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high))
