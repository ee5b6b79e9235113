"""Which lengths and factors the sweeps run, as plain numbers: the evaluations and the plan of a study ask here."""

from __future__ import annotations

import math

SLOPE = 0.1  # of Eq. 22, whose factor is run beside the grid; the official Mistral code has 0.07
STEP = 8  # recomputations per L tokens; 4 put the NLL of dynamic PI 0.06 nats off that of 8 in the micro study
TOKENS_PER_BATCH = 8192  # of short inputs that are run together; a longer one is a batch by itself


def grid_lengths(original_context: int, scale: float, max_length: int) -> tuple[int, ...]:
    """L, 2L, 4L, … up to the extended context s·L, or to `max_length`."""
    lengths, length = [], original_context
    while length <= min(scale * original_context, max_length):
        lengths.append(length)
        length *= 2
    return tuple(lengths)


def lengths_within(original_context: int, scale: float, max_length: int) -> tuple[int, ...]:
    """L, 2L, 4L, … and the end of the extended context, s·L tokens or `max_length` where that is less."""
    end = min(round(scale * original_context), max_length)
    lengths, length = [], original_context
    while length < end:
        lengths.append(length)
        length *= 2
    return (*lengths, end)


def factors_at(scale: float, grid: tuple[float, ...]) -> list[tuple[str, float]]:
    """(kind, √(1/t)) of every run at one scale: the grid, the formula 0.1 ln s + 1 (paper Eq. 22, official code),
    and √(0.1 ln s + 1), which is what one gets by reading the formula as 1/t."""
    formula = SLOPE * math.log(scale) + 1
    return [*(("grid", factor) for factor in grid), ("formula", formula), ("reading", math.sqrt(formula))]


def recomputed_lengths(original_context: int, length: int, step: int) -> tuple[int, ...]:
    """Input lengths of the passes that recompute `length` tokens under one scale each: L, then every `step` more."""
    reached = [min(length - 1, original_context)]
    while reached[-1] < length - 1:
        reached.append(min(length - 1, reached[-1] + step))
    return tuple(reached)
