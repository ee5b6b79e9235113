"""Dynamic scaling of the untrained base (claims 6, 11 and 12)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from yarnlab.results.claims.claims import Part, interval
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.estimates import NotMeasured, beyond, cell, gap, present
from yarnlab.results.results import Results
from yarnlab.results.statistics import Estimate
from yarnlab.results.style import method_label

ORDER = ("dynamic-yarn", "dynamic-pi", "none")


def claim_6(results: Results) -> Iterator[Part]:
    """Keys must be cached before the rotation: afterwards costs nothing up to L and something beyond."""
    base, window = base_model(results), results.original_context
    frame = present(results, "key_cache")
    end = int(frame["bucket_end"].max())
    for method in frame["method"].drop_duplicates():
        name = f"{method_label(method)}, NLL with the wrong cache minus with the right one"
        within = gap(*(beyond(results, method, cache, 0, window) for cache in ("post-rope", "pre-rope")))
        yield interval(f"{name}, tokens up to {window:,}", within, "<=", 0.001, [base.arm])
        after = gap(*(beyond(results, method, cache, window, end) for cache in ("post-rope", "pre-rope")))
        yield interval(f"{name}, tokens {window:,}–{end:,}", after, ">", 0.0, [base.arm])


def claim_11(results: Results) -> Iterator[Part]:
    """No blow-up beyond L, and Dynamic YaRN ahead of Dynamic PI ahead of plain RoPE."""
    base, window = base_model(results), results.original_context
    for length in _lengths(results, window, 4 * window):
        for better, worse in pairwise(ORDER):
            name = f"{length:,} tokens, {method_label(better)} / {method_label(worse)}"
            yield interval(name, _ratio(results, "nll", (better, length), (worse, length)), "<", 1.0, [base.arm])
    name = f"Dynamic YaRN, perplexity at {2 * window:,} over {window:,} tokens"
    change = _ratio(results, "nll", ("dynamic-yarn", 2 * window), ("none", window))
    yield interval(name, change, "<=", 1.05, [base.arm])


def claim_12(results: Results) -> Iterator[Part]:
    """More than twice the context without training, for the whole length and for its end."""
    base, window = base_model(results), results.original_context
    lengths = _lengths(results, 2 * window, math.inf)
    if not lengths:
        raise NotMeasured(f"dynamic scaling was not measured beyond {2 * window:,} tokens")
    tail = f"its last {results.evaluations['dynamic']['tail']} tokens"
    for column, text in (("nll", "the whole length"), ("tail_nll", tail)):
        ratios = {n: _ratio(results, column, ("dynamic-yarn", n), ("none", window)) for n in lengths}
        held = max((n for n, e in ratios.items() if e.value <= 1), default=0)
        name = f"Dynamic YaRN, perplexity of {text}, {lengths[0]:,} over {window:,} tokens"
        name += f" (largest length above {2 * window:,} where it is not higher: {f'{held:,}' if held else 'none'})"
        yield interval(name, ratios[lengths[0]], "<=", 1.0, [base.arm])


def _ratio(results: Results, column: str, a: tuple[str, int], b: tuple[str, int]) -> Estimate:
    own, other = (cell(results, "dynamic", column, method=method, length=length) for method, length in (a, b))
    return gap(own, other).map(math.exp, "ratio of perplexities")


def _lengths(results: Results, above: float, end: float) -> list[int]:
    frame = present(results, "dynamic")
    return sorted({int(n) for n in frame["length"] if above < n <= end})
