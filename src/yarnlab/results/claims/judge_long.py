"""The long runs: up to the trained window, beyond it, on to twice the scale (claims 23 to 29, acceptance)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from yarnlab.results.claims.claims import Part, interval, reaches
from yarnlab.results.claims.judge_tuned import change, ratio
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.estimates import (
    NotMeasured,
    doublings,
    gap,
    nll,
    paired,
    passkey_lengths,
    retrieval,
    segment,
)
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import mean
from yarnlab.results.style import label


def first_model(results: Results) -> Model:
    """The fine-tuned YaRN model (s=16 in the paper), or NotMeasured."""
    model = results.extended()
    if model is None:
        raise NotMeasured("this study fine-tunes no YaRN model from its base")
    return model


def second_model(results: Results) -> Model:
    """The YaRN model trained on from the first at a larger scale (s=32 in the paper), or NotMeasured."""
    model = results.continued()
    if model is None:
        raise NotMeasured("this study continues no YaRN model at a larger scale")
    return model


def claim_23(results: Results) -> Iterator[Part]:
    """Falling perplexity up to sL."""
    model = first_model(results)
    full = int(model.scale * results.original_context)
    for longer, shorter in ((full, full // 2), (full // 2, full // 8)):
        name = f"{label(model)}, perplexity at {longer:,} over {shorter:,} tokens"
        yield interval(name, change(results, model, longer, shorter), "<", 1.0, [model.arm])


def claim_24(results: Results) -> Iterator[Part]:
    """Collapse beyond sL, in the cumulative perplexity that the paper reports."""
    model = first_model(results)
    full = int(model.scale * results.original_context)
    name = f"{label(model)}, perplexity at {full * 3 // 2:,} over {full:,} tokens"
    yield interval(name, change(results, model, full * 3 // 2, full), ">", 2.0, [model.arm])


def claim_25(results: Results) -> Iterator[Part]:
    """Train short, test long."""
    first, second = first_model(results), second_model(results)
    full = int(first.scale * results.original_context)
    end = int(second.scale * results.original_context)
    _trained_short(second, full)
    name = f"{label(second)}, perplexity at {end:,} over {full:,} tokens"
    yield interval(name, change(results, second, end, full), "<=", 1.0, [second.arm])
    beyond = segment(results, second.arm, full, end)
    inside = segment(results, second.arm, full // 2, full)
    excess = mean(paired(beyond, 1.02 * inside), unit="nats per token")
    name = f"{label(second)}, NLL on {full:,}–{end:,} minus 1.02 × NLL on {full // 2:,}–{full:,} tokens"
    yield interval(name, excess, "<=", 0.0, [second.arm])


def claim_26(results: Results) -> Iterator[Part]:
    """The larger scale costs nothing inside the first window."""
    first, second = first_model(results), second_model(results)
    window = results.original_context
    full = int(first.scale * window)
    for length in sorted({window // 2, full, *doublings(window, full)}):
        name = f"{label(second)} / {label(first)} at {length:,} tokens"
        yield interval(name, ratio(results, second, first, length), "<=", 1.02, [first.arm, second.arm])


def claim_26_control(results: Results) -> Iterator[Part]:
    """The control: PI, moved on to the same larger scale, loses more inside the first window than YaRN does."""
    first, second = first_model(results), second_model(results)
    arms = [m for m in results.arms().values() if m.method == "pi"]
    like_first = [m for m in arms if results.alike(m, first)]
    pairs = [(pi, m) for pi in like_first for m in arms if results.parent_arm(m) == pi.arm]
    pairs = [(pi, moved) for pi, moved in pairs if moved.budget == second.budget]
    if not pairs:
        raise NotMeasured(f"this study trains no PI model like {first.arm} and moves it on like {second.arm}")
    pi, moved = pairs[0]
    window, full = results.original_context, int(first.scale * results.original_context)
    for length in doublings(window, full):
        name = f"{label(moved)} / {label(pi)} over {label(second)} / {label(first)} at {length:,} tokens"
        lost = nll(results, moved.arm, length) - nll(results, pi.arm, length)
        kept = nll(results, second.arm, length) - nll(results, first.arm, length)
        excess = mean(paired(lost, kept), unit="difference in ln perplexity").map(math.exp, "ratio of ratios")
        yield interval(name, excess, ">", 1.0, [moved.arm, pi.arm, second.arm, first.arm])


def claim_29(results: Results) -> Iterator[Part]:
    """Passkey accuracy, averaged over lengths from 2L to sL."""
    for model, threshold in ((second_model(results), 0.99), (first_model(results), 0.95)):
        window = results.original_context
        lengths = passkey_lengths(results, model, 2 * window, model.scale * window)
        name = f"{label(model)}, passkey accuracy over {lengths[0]:,} to {lengths[-1]:,} tokens"
        yield reaches(name, retrieval(results, model.arm, lengths), threshold, [f"passkey:{model.arm}"])


def collapse(results: Results) -> Iterator[Part]:
    """Acceptance: tokens beyond sL are predicted worse than those inside, and at least twice as badly."""
    model = first_model(results)
    full = int(model.scale * results.original_context)
    beyond = segment(results, model.arm, full, 2 * full)
    inside = segment(results, model.arm, full // 2, full)
    estimate = gap(beyond, inside).map(math.exp, "ratio of perplexities")
    name = f"{label(model)}, perplexity of tokens {full:,}–{2 * full:,} over tokens {full // 2:,}–{full:,}"
    yield interval(name, estimate, ">", 1.0, [model.arm])
    yield interval(name, estimate, ">", 2.0, [model.arm])


def keeps_falling(results: Results) -> Iterator[Part]:
    """Acceptance: the continuation, trained on rows of the first window, still falls to its own sL."""
    first, second = first_model(results), second_model(results)
    full = int(first.scale * results.original_context)
    end = int(second.scale * results.original_context)
    _trained_short(second, full)
    middle = (full + end) // 2
    for longer, shorter in ((middle, full), (end, middle)):
        name = f"{label(second)}, perplexity at {longer:,} over {shorter:,} tokens"
        yield interval(name, change(results, second, longer, shorter), "<", 1.0, [second.arm])


def base_retrieves(results: Results) -> Iterator[Part]:
    """Acceptance: the base finds the passkey inside its own window."""
    yield from _at_each_length(results, base_model(results), 0, results.original_context, 0.95)


def first_retrieves(results: Results) -> Iterator[Part]:
    """Acceptance: the first extended model finds it up to sL."""
    model = first_model(results)
    yield from _at_each_length(results, model, 0, model.scale * results.original_context, 0.90)


def second_retrieves(results: Results) -> Iterator[Part]:
    """Acceptance: the continuation finds it at its own sL."""
    model = second_model(results)
    length = model.scale * results.original_context
    yield from _at_each_length(results, model, length, length, 0.80)


def _at_each_length(results: Results, model: Model, low: float, high: float, threshold: float) -> Iterator[Part]:
    for length in passkey_lengths(results, model, low, high):
        name = f"{label(model)}, passkey accuracy at {length:,} tokens"
        yield reaches(name, retrieval(results, model.arm, [length]), threshold, [f"passkey:{model.arm}"])


def _trained_short(model: Model, window: int) -> None:
    if model.trained_length is None or model.trained_length > window:
        raise NotMeasured(f"{model.arm} was not trained on rows of at most {window:,} tokens")
