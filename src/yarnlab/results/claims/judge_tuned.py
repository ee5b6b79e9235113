"""Comparisons of models fine-tuned on the same budget (claims 17 to 22)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from yarnlab.results.bases import compared_with
from yarnlab.results.claims.claims import Part, interval, tested
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.estimates import (
    NotMeasured,
    doublings,
    gap,
    loss_gap,
    nll,
    paired_hits,
    paired_losses,
    passkey_lengths,
)
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Estimate, holm, mcnemar, mean, paired_difference_of_proportions
from yarnlab.results.style import label, method_label

RIVALS = ("ntk-by-parts", "ntk-aware", "pi")
WINDOW = 20


def arms(results: Results, *methods: str, as_long: bool = True) -> list[Model]:
    """The ablation's YaRN arm and the arms with these methods that were trained like it (`Results.alike`).

    NotMeasured names the first absent one.
    """
    first = compared_with(results)
    if first is None:
        raise NotMeasured("this study fine-tunes no YaRN model from its base at the scale that its methods share")
    return [first, *(_rival(results, first, method, as_long) for method in methods)]


def arms_at(results: Results, scale: float, *methods: str) -> list[Model]:
    """A YaRN arm fine-tuned at this scale, and arms with these methods that were trained like it; or NotMeasured."""
    for first in results.arms().values():
        if first.kind == "finetune" and (first.method, first.scale) == ("yarn", scale):
            found = [results.beside(first, method) for method in methods]
            rivals = [model for model in found if model is not None]
            if len(rivals) == len(methods):
                return [first, *rivals]
    names = " and ".join(method_label(method) for method in ("yarn", *methods))
    raise NotMeasured(f"this study has no {names} arms fine-tuned alike at s={scale:g}")


def _rival(results: Results, first: Model, method: str, as_long: bool) -> Model:
    rival = results.beside(first, method, as_long=as_long)
    if rival is None:
        wanted = f"from {results.parent_arm(first)} at s={first.scale:g}, rows of {first.trained_length or 0:,} tokens"
        wanted += f", {first.steps:,} steps" if as_long and first.steps else ""
        wanted += ", the same corpus, kinds of rows and rows a batch"
        raise NotMeasured(f"this study has no {method_label(method)} arm fine-tuned like {first.arm}: {wanted}")
    return rival


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
        steps = gaps.index[end - WINDOW + 1 : end + 1]
        stretch = paired_losses(results, first.arm, rival.arm)[steps].to_numpy()
        where = f"smallest {WINDOW}-step mean (steps {steps[0]}–{steps[-1]})"
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
        chance = f"{p:.2g}".replace("-", "−")
        name = f"passkey accuracy up to {lengths[-1]:,} tokens, YaRN minus {label(rival)} (p = {chance})"
        estimate = paired_difference_of_proportions(own, other)
        yield tested(name, estimate, p, [f"passkey:{first.arm}", f"passkey:{rival.arm}"])


def claim_22(results: Results) -> Iterator[Part]:
    """s = 2: a tie inside the window, YaRN ahead beyond it."""
    yarn, pi = arms_at(results, 2.0, "pi")
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
