"""Sliding windows, short tasks, and perplexity against retrieval (claims 28, 30, 31 and 32)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from yarnlab.results.claims.claims import Part, interval
from yarnlab.results.claims.judge_long import first_model, second_model
from yarnlab.results.claims.judge_tuned import arms
from yarnlab.results.claims.judge_zero_shot import base_model
from yarnlab.results.estimates import NotMeasured, battery_gap, gap, hits, nll, paired_hits, present, sliding_gap
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import LEVEL, Estimate, holm, mcnemar
from yarnlab.results.style import label


def claim_28(results: Results) -> Iterator[Part]:
    """Under the sliding-window protocol YaRN is no worse than PI, and PI better than NTK-aware."""
    first, pi, aware = arms(results, "pi", "ntk-aware")
    for measure in ("windows pooled", "documents"):
        for (better, worse), sign in (((first, pi), "<="), ((pi, aware), "<")):
            name = f"{measure}, ln perplexity of {label(better)} minus {label(worse)}"
            yield interval(name, sliding_gap(results, better, worse, measure), sign, 0.0, [better.arm, worse.arm])


def claim_30(results: Results) -> Iterator[Part]:
    """Somewhere the model with the higher perplexity retrieves better: pairs of fine-tuned models at the first's sL."""
    length = int(first_model(results).scale * results.original_context)
    models = [m for m in results.arms().values() if m.kind == "finetune" and _measured(results, m, length)]
    if len(models) < 2:
        raise NotMeasured(f"fewer than two fine-tuned models have perplexity and passkey trials at {length:,} tokens")
    pairs = [(a, b) for a, b in permutations(models, 2) if gap(*_nll(results, a, b, length)).value > 0]
    if not pairs:
        raise NotMeasured(f"all fine-tuned models have the same perplexity at {length:,} tokens")
    worse_nll = [gap(*_nll(results, a, b, length)) for a, b in pairs]
    trials = [paired_hits(results, a.arm, b.arm, [length]) for a, b in pairs]
    better_hits = [float((a - b).mean()) for a, b in trials]
    p_values = holm([mcnemar(a, b).p for a, b in trials])
    proven = [e.low > 0 and p < LEVEL for e, p in zip(worse_nll, p_values, strict=True)]
    observed = sum(d > 0 for d in better_hits)
    sure = sum(good and d > 0 for good, d in zip(proven, better_hits, strict=True))
    excluded = sum(good and d < 0 for good, d in zip(proven, better_hits, strict=True))
    name = f"pairs of {len(models)} models at {length:,} tokens in which the one with the higher perplexity retrieves "
    name += f"more (rank correlation of perplexity and retrieval: {_rank_correlation(results, models, length)})"
    method = "proven pairs … pairs not excluded (paired bootstrap; sign-flip test over prompts, Holm over all pairs)"
    found = Estimate(observed, sure, len(pairs) - excluded, len(pairs), "pairs of models", "pairs", method)
    sources = [f"{kind}:{m.arm}" for m in models for kind in ("perplexity", "passkey")]
    yield interval(name, found, ">=", 1.0, sources)


def claim_31(results: Results) -> Iterator[Part]:
    """Short tasks and short texts suffer little from the extension."""
    base, window = base_model(results), results.original_context
    models = [first_model(results), *([second_model(results)] if results.continued() else [])]
    for model in models:
        name = f"{label(model)} minus base, mean share of right answers over the tasks"
        sources = [f"benchmarks:{model.arm}", f"benchmarks:{base.arm}"]
        yield interval(name, battery_gap(results, model.arm, base.arm), ">=", -0.015, sources)
        name = f"{label(model)} minus base, NLL of held-out text of {window:,} tokens"
        loss = gap(nll(results, model.arm, window), nll(results, base.arm, window))
        yield interval(name, loss, "<=", 0.03, [f"perplexity:{model.arm}", f"perplexity:{base.arm}"])


def claim_32(results: Results) -> Iterator[Part]:
    """Moving on to the larger scale costs at most half a percentage point on short tasks."""
    first, second = first_model(results), second_model(results)
    change = battery_gap(results, second.arm, first.arm)
    name = f"{label(second)} minus {label(first)}, mean share of right answers over the tasks"
    yield interval(name, change, ">=", -0.005, [first.arm, second.arm])


def _measured(results: Results, model: Model, length: int) -> bool:
    return all(
        ((frame["arm"] == model.arm) & (frame["length"] == length)).any()
        for frame in (present(results, "perplexity"), present(results, "passkey"))
    )


def _nll(results: Results, a: Model, b: Model, length: int) -> tuple:
    return nll(results, a.arm, length), nll(results, b.arm, length)


def _rank_correlation(results: Results, models: list[Model], length: int) -> str:
    from scipy.stats import spearmanr

    losses = [float(nll(results, model.arm, length).to_numpy().mean()) for model in models]
    rates = [float(hits(results, model.arm, [length]).mean()) for model in models]
    if len(set(rates)) < 2:
        return "–"
    return f"{spearmanr(losses, rates).statistic:.2f}".replace("-", "−")
