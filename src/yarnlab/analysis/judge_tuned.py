"""Comparisons of models fine-tuned on the same budget (claims 17 to 22)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from yarnlab.analysis.claims import Part, interval, tested
from yarnlab.analysis.hypothesis import holm, mcnemar
from yarnlab.analysis.judge_zero_shot import base_model
from yarnlab.analysis.load import Model, Results
from yarnlab.analysis.measure import (
    NotMeasured,
    doublings,
    gap,
    loss_gap,
    nll,
    paired_hits,
    passkey_lengths,
)
from yarnlab.analysis.statistics import Estimate, mean, paired_difference_of_proportions
from yarnlab.analysis.style import METHOD_LABELS, label

RIVALS = ("ntk-by-parts", "ntk-aware", "pi")
WINDOW = 20


def arms(results: Results, *methods: str) -> list[Model]:
    """The ablation's YaRN arm and its rivals with these methods; NotMeasured names the first absent one."""
    first = results.extended()
    if first is None:
        raise NotMeasured("this study fine-tunes no YaRN model from its base")
    found = {m.method: m for m in reversed(results.ablation())}
    for method in methods:
        if method not in found:
            raise NotMeasured(f"this study has no {METHOD_LABELS[method]} arm fine-tuned at s={first.scale:g}")
    return [first, *(found[method] for method in methods)]


def ratio(results: Results, a: Model, b: Model, length: int) -> Estimate:
    """Perplexity of model a over that of model b at `length` tokens, paired by document."""
    difference = gap(nll(results, a.arm, length), nll(results, b.arm, length))
    return difference.map(math.exp, "ratio of perplexities")


def change(results: Results, model: Model, length: int, reference: int) -> Estimate:
    """Perplexity of one model at `length` over that at `reference` tokens, paired by document."""
    difference = gap(nll(results, model.arm, length), nll(results, model.arm, reference))
    return difference.map(math.exp, "ratio of perplexities")


def claim_17(results: Results) -> Iterator[Part]:
    """Training loss: the worst stretch of 20 steps for YaRN against each rival."""
    first, *rivals = arms(results, *RIVALS)
    for rival in rivals:
        gaps = loss_gap(results, first.arm, rival.arm, WINDOW)
        if len(gaps) < WINDOW:
            raise NotMeasured(f"{rival.arm} and {first.arm} share {len(gaps)} steps; {WINDOW} are needed")
        end = int(gaps["smooth"].argmin())
        stretch = gaps["gap"].to_numpy()[end - WINDOW + 1 : end + 1]
        steps = gaps.index[[end - WINDOW + 1, end]]
        where = f"smallest {WINDOW}-step mean (steps {steps[0]}–{steps[1]})"
        name = f"training loss, {label(rival)} minus YaRN, {where}"
        yield interval(
            name,
            mean(stretch, over="steps", unit="nats"),
            ">",
            0.0,
            [f"training:{first.arm}", f"training:{rival.arm}"],
        )


def claim_18(results: Results) -> Iterator[Part]:
    """Perplexity at sL after fine-tuning."""
    first, parts, aware, pi = arms(results, *RIVALS)
    length = int(first.scale * results.original_context)
    yield _ratio_part(results, first, parts, length, "<=")
    yield _ratio_part(results, parts, pi, length, "<")
    name = f"{label(aware)}, perplexity at {length:,} over {length // 2:,} tokens"
    yield interval(name, change(results, aware, length, length // 2), ">", 1.0, [aware.arm])


def claim_19(results: Results) -> Iterator[Part]:
    """NTK-aware against PI after fine-tuning, at sL and below."""
    first, aware, pi = arms(results, "ntk-aware", "pi")
    length = int(first.scale * results.original_context)
    yield _ratio_part(results, aware, pi, length, ">")
    for n in doublings(results.original_context, length / 2):
        yield _ratio_part(results, aware, pi, n, "<")


def claim_20(results: Results) -> Iterator[Part]:
    """Short contexts after fine-tuning, against the base."""
    base = base_model(results)
    first, parts, aware, pi = arms(results, *RIVALS)
    window = results.original_context
    for length in (window // 2, window):
        name = f"{label(first)} / base at {length:,} tokens"
        yield interval(name, ratio(results, first, base, length), "<=", 1.04, [first.arm, base.arm])
    yield _ratio_part(results, parts, first, window, "<=")
    yield _ratio_part(results, first, aware, window, "<")
    yield _ratio_part(results, aware, pi, window, "<")


def claim_21(results: Results) -> Iterator[Part]:
    """Passkey accuracy at the same budget, pooled over lengths up to sL/2."""
    first, *rivals = arms(results, *RIVALS)
    lengths = passkey_lengths(results, first, 0, first.scale * results.original_context / 2)
    trials = [paired_hits(results, first.arm, rival.arm, lengths) for rival in rivals]
    p_values = holm([mcnemar(own, other).p for own, other in trials])
    for rival, (own, other), p in zip(rivals, trials, p_values, strict=True):
        name = f"passkey accuracy up to {lengths[-1]:,} tokens, YaRN minus {label(rival)} (p = {p:.2g})"
        estimate = paired_difference_of_proportions(own, other)
        yield tested(name, estimate, p, [f"passkey:{first.arm}", f"passkey:{rival.arm}"])


def claim_22(results: Results) -> Iterator[Part]:
    """s = 2: a tie inside the window, YaRN ahead beyond it."""
    yarn, pi = results.tuned("yarn", 2.0), results.tuned("pi", 2.0)
    if yarn is None or pi is None:
        raise NotMeasured("this study has no YaRN and PI arms fine-tuned at s=2")
    window = results.original_context
    for length in (window, 2 * window):
        name = f"{label(yarn)} / {label(pi)} at {length:,} tokens"
        estimate = ratio(results, yarn, pi, length)
        yield interval(name, estimate, "<=", 1.01, [yarn.arm, pi.arm])
        yield interval(name, estimate, ">=", 0.99, [yarn.arm, pi.arm])
    yield _ratio_part(results, yarn, pi, int(2.5 * window), "<")


def order(results: Results) -> Iterator[Part]:
    """Acceptance: YaRN <= NTK-by-parts < PI at sL."""
    first, parts, pi = arms(results, "ntk-by-parts", "pi")
    length = int(first.scale * results.original_context)
    for (better, worse), sign in zip(pairwise((first, parts, pi)), ("<=", "<"), strict=True):
        yield _ratio_part(results, better, worse, length, sign)


def _ratio_part(results: Results, a: Model, b: Model, length: int, sign: str) -> Part:
    name = f"{label(a)} / {label(b)} at {length:,} tokens"
    return interval(name, ratio(results, a, b, length), sign, 1.0, [a.arm, b.arm])
