"""From a study's tables to numbers of one arm: frames of seeds x documents (or trials, items), and estimates of them.

Each kind of table is split once, by all its keys: thousands of published points ask for parts of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from typing import Any, TypeVar

from yarnlab.lazy import np, pd
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import (
    Array,
    Estimate,
    Significance,
    Z,
    accuracy,
    geometric_mean_perplexity,
    mean,
    sign_flip,
    student_half,
)

T = TypeVar("T")
PACKAGE = 3  # parts of a document's name that name its sub-package: distribution, package, sub-package
# How the results of these kinds are split: by these keys, documents across, into this.
ZERO_SHOT = ("arm", "method", "scale", "length"), "document", "nll"
CONTEXT = ("arm", "segment_start", "segment_end", "context"), "document", "nll"
SHORT_TEXTS = ("arm", "length"), "document", "nll"


class NotMeasured(Exception):
    """A model, length or scale that a number needs is not in the results; the message names it."""


def nll(results: Results, arm: str, length: int, column: str = "nll") -> pd.DataFrame:
    """Mean NLL in nats of an arm at `length` tokens: rows are seeds, columns documents.

    `column` is 'nll' (positions 1..length-1) or 'bucket_nll' (the last bucket).
    """
    tables = _tables(results, "perplexity", ("arm", "length"), "document", column)
    return _measured(tables, (arm, length), f"perplexity of {arm} at {length:,} tokens")


def short_text_nll(results: Results, arm: str, length: int) -> pd.DataFrame:
    """Mean NLL in nats of an arm on texts of `length` tokens from all over the documents: seeds x documents."""
    found = _tables(results, "short_texts", *SHORT_TEXTS).get((arm, length))
    if found is None:
        raise NotMeasured(f"no short texts of {length:,} tokens were read by {arm}")
    return found


def segment(results: Results, arm: str, start: int, end: int) -> pd.DataFrame:
    """Mean NLL of the tokens between two window lengths, from the two cumulative means."""
    return between((start, nll(results, arm, start)), (end, nll(results, arm, end)))


def between(shorter: tuple[int, pd.DataFrame], longer: tuple[int, pd.DataFrame]) -> pd.DataFrame:
    """Mean NLL of the tokens between two lengths, each with the mean over all of its targets."""
    # N tokens hold N-1 targets: the first one has no context.
    (start, first), (end, whole) = ((length - 1, mean) for length, mean in (shorter, longer))
    return (whole * end - first * start) / (end - start)


def context_nll(results: Results, arm: str, context: int, start: int, end: int) -> pd.DataFrame:
    """Mean NLL in nats of an arm's tokens in (start, end] from windows of `context` tokens: seeds x documents.

    Where no segment ends beyond it, `context` is all that precedes them; of an arm that `context` gave windows only,
    that is read from the passes over whole texts of another evaluation. NotMeasured names what is absent: a context
    that is measured in some of these tokens' segments only, or borders that are none of a segment.
    """
    parts = []
    for (name, low, high, given), nll in _tables(results, "context", *CONTEXT).items():
        # A window is shorter than any prefix that it is scored on; `context` reaches the end of shorter ones.
        wanted = given == context if context <= low else context >= high and given >= high
        if name == arm and wanted and start <= low and high <= end:
            parts.append((high - low, nll))
    if sum(tokens for tokens, _ in parts) != end - start:
        if context >= end and (whole := _from_whole_texts(results, arm, start, end)) is not None:
            return whole
        raise NotMeasured(f"no NLL of {arm} with {context:,} tokens of context on tokens {start:,} to {end:,}")
    return _joint(parts)


def _from_whole_texts(results: Results, arm: str, start: int, end: int) -> pd.DataFrame | None:
    """Mean NLL of an arm's tokens in (start, end] from all that precedes them, as `perplexity` has it, or of an arm
    with plain RoPE `zero_shot` with the method none; None without either."""
    with suppress(NotMeasured):
        return segment(results, arm, start, end)
    if results.arms()[arm].method == "none" and results.missing(("zero_shot",)) is None:
        swept = results.frame("zero_shot")
        for scale in sorted(swept.loc[(swept["arm"] == arm) & (swept["method"] == "none"), "scale"].unique()):
            with suppress(NotMeasured):
                return between(*((n, static_nll(results, arm, "none", scale, n)) for n in (start, end)))
    return None


def context_gap(results: Results, of: str, over: str, tokens: tuple[int, int], at: int, against: int) -> Estimate:
    """Mean NLL of one arm's tokens in a segment under one context minus that of another's under another.

    With the base and its own L as the other: what extending the context is worth, against cutting the text at L.
    """
    own, other = context_nll(results, of, at, *tokens), context_nll(results, over, against, *tokens)
    return over_documents(paired(own, other), unit="nats per token")


def _joint(parts: list[tuple[int, pd.DataFrame]]) -> pd.DataFrame:
    """Mean NLL of stretches together, each with its number of tokens."""
    return reduce(add, (nll * tokens for tokens, nll in parts)) / sum(tokens for tokens, _ in parts)


def zero_shot(results: Results, method: str, scale: float, length: int) -> pd.DataFrame:
    """Mean NLL in nats of the base with another RoPE and no training: rows are seeds, columns documents."""
    base = results.base()
    return static_nll(results, base.arm if base else "", method, scale, length)


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """a - b, document by document and seed by seed (`of_same_seeds`)."""
    documents = a.columns.intersection(b.columns)
    if documents.empty:
        raise NotMeasured("the two models were not evaluated on the same documents")
    index = (a if len(a) >= len(b) else b).index
    if len(a) > 1 and len(b) > 1:
        index = a.index.intersection(b.index)
    a, b = of_same_seeds(a[documents], b[documents])
    return pd.DataFrame(a.to_numpy(float) - b.to_numpy(float), index=index, columns=documents)


def packages(documents: pd.Index) -> list[str]:
    """What each document is one of: its sub-package, 'sympy/sympy/core' of 'sympy/sympy/core/add.py'.

    A document whose name is no path stands for itself.
    """
    return ["/".join(str(name).split("/")[:PACKAGE]) for name in documents]


def over_documents(frame: pd.DataFrame, *, weights: Array | None = None, unit: str = "nats") -> Estimate:
    """Mean over seeds x documents, with documents of one sub-package counted together."""
    return mean(frame.to_numpy(float), weights=weights, groups=packages(frame.columns), unit=unit)


def perplexity(nll: pd.DataFrame, weights: Array | None = None) -> Estimate:
    """Geometric mean of the perplexities of seeds x documents, from their mean NLL in nats."""
    return geometric_mean_perplexity(nll.to_numpy(float), weights, packages(nll.columns))


def tested_by_document(frame: pd.DataFrame) -> Significance:
    """Is the mean of paired differences (seeds x documents) zero? Signs of sub-packages are flipped."""
    return sign_flip(frame.to_numpy(float), groups=packages(frame.columns))


def of_same_seeds(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables with a row for each seed, row by row: those that both have.

    A single seed, as of a model that is not trained here, stands beside every seed of the other. NotMeasured where both
    have several, and none in common.
    """
    if len(a) == 1 or len(b) == 1:
        rows = np.zeros(max(len(a), len(b)), int)
        return (a.iloc[rows] if len(a) == 1 else a), (b.iloc[rows] if len(b) == 1 else b)
    seeds = a.index.intersection(b.index)
    if seeds.empty:
        raise NotMeasured("the two arms have no seed in common")
    return a.loc[seeds], b.loc[seeds]


def gap(a: pd.DataFrame, b: pd.DataFrame) -> Estimate:
    """Paired difference of mean NLL, a - b: the logarithm of the ratio of perplexities."""
    return over_documents(paired(a, b), unit="difference in ln perplexity")


def hits(results: Results, arm: str, lengths: list[int]) -> pd.DataFrame:
    """Passkey hits (0 or 1) of an arm at these prompt lengths: seeds x trials (length, filler, trial)."""
    tables = hit_tables(results, "passkey")
    found = {n: _measured(tables, (arm, n), f"passkey trials of {arm} at {n:,} tokens") for n in lengths}
    return pd.concat(found, axis=1, join="inner")


def fillers(trials: pd.DataFrame) -> list[int] | None:
    """The document that fills each passkey prompt: prompts with one filler are no independent trials.

    None for the official prompt, whose filler is one and the same for all.
    """
    if "filler" not in trials.columns.names:
        return None
    return [int(filler) for filler in trials.columns.get_level_values("filler")]


def accuracy_of(trials: pd.DataFrame) -> Estimate:
    """Share of hits (seeds x trials), trials with one filler counted together."""
    return accuracy(trials.to_numpy(float), groups=fillers(trials))


def retrieval(results: Results, arm: str, lengths: list[int]) -> Estimate:
    """Passkey accuracy of an arm over these prompt lengths."""
    return accuracy_of(hits(results, arm, lengths))


def paired_hits(results: Results, arm: str, rival: str, lengths: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hits of two arms on the same prompts, of the trials that both have, seed by seed: seeds x trials each."""
    a, b = (hits(results, name, lengths) for name in (arm, rival))
    trials = a.columns.intersection(b.columns)
    if trials.empty:
        raise NotMeasured(f"{arm} and {rival} have no passkey trials in common")
    return of_same_seeds(a[trials], b[trials])


def losses(results: Results, arm: str) -> pd.Series:
    """Training loss of an arm by step in nats, averaged over its seeds."""
    return _log(results, arm).groupby("step")["loss"].mean()


def losses_by_seed(results: Results, arm: str) -> pd.DataFrame:
    """Training loss of an arm in nats: seeds x steps, of the steps that every seed has."""
    return split(_log(results, arm), ["arm"], "step", "loss")[(arm,)]


def paired_losses(results: Results, arm: str, rival: str) -> pd.DataFrame:
    """Loss of `rival` minus loss of `arm` on the same batches: seeds x steps, of those that both have."""
    own, other = losses_by_seed(results, arm), losses_by_seed(results, rival)
    steps, seeds = own.columns.intersection(other.columns), own.index.intersection(other.index)
    return other.loc[seeds, steps] - own.loc[seeds, steps]


def warmup(results: Results, arm: str) -> int:
    """The last step of an arm's warm-up: the one before its learning rate is highest for the first time."""
    rows = _log(results, arm)
    rates = rows[rows["seed"] == rows["seed"].iloc[0]].set_index("step")["lr"]
    return int(rates.idxmax()) - 1


def loss_gap(results: Results, arm: str, rival: str) -> pd.Series:
    """Mean of `paired_losses` over seeds by step."""
    return paired_losses(results, arm, rival).mean().dropna()


def passkey_lengths(results: Results, model: Model, low: float, high: float) -> list[int]:
    """Prompt lengths from low to high (tokens, both included) tried on this arm; `high` must be one."""
    frame = present(results, "passkey")
    lengths = sorted({int(n) for n in frame.loc[frame["arm"] == model.arm, "length"] if low <= n <= high})
    if high not in lengths:
        raise NotMeasured(f"no passkey trials of {model.arm} at {high:,.0f} tokens")
    return lengths


def _log(results: Results, arm: str) -> pd.DataFrame:
    return _own(results, "training", arm, "training log")


def _own(results: Results, need: str, arm: str, what: str) -> pd.DataFrame:
    """An arm's rows, or NotMeasured: it has no `what`."""
    frame = present(results, need)
    rows = frame[frame["arm"] == arm]
    if rows.empty:
        raise NotMeasured(f"no {what} of {arm}")
    return rows


def rows_of_base(results: Results, need: str, what: str) -> pd.DataFrame:
    """The base's rows, or NotMeasured: it has no `what`."""
    base = results.base()
    return _own(results, need, base.arm if base else "the base", what)


def _measured(tables: Mapping[Any, T], key: Any, what: str) -> T:
    """The entry of this key, or NotMeasured: there is no `what`."""
    if key not in tables:
        raise NotMeasured(f"no {what}")
    return tables[key]


def present(results: Results, need: str) -> pd.DataFrame:
    """The frame called `need`, or NotMeasured with the reason why there is none."""
    reason = results.missing((need,))
    if reason is not None:
        raise NotMeasured(reason)
    return results.frame(need)


def split(rows: pd.DataFrame, keys: list[str], columns: str | list[str], values: str) -> dict[Any, pd.DataFrame]:
    """For each combination of `keys` a table of seeds by `columns`, without columns that any seed lacks."""
    # One pivot for all: thousands of small ones take seconds.
    wide = rows.pivot(index=[*keys, "seed"], columns=columns, values=values).astype(float)
    numbers, seeds = wide.to_numpy(), wide.index.get_level_values("seed")
    places: dict[Any, list[int]] = {}
    for place, key in enumerate(zip(*(wide.index.get_level_values(k) for k in keys), strict=True)):
        places.setdefault(key, []).append(place)
    tables = {}
    for key, at in places.items():
        kept = ~np.isnan(numbers[at]).any(axis=0)
        tables[key] = pd.DataFrame(numbers[at][:, kept], index=seeds[at], columns=wide.columns[kept])
    return tables


REFERENCE_VARIANT = "official"  # the ramp variant that the others are compared with


def cell(results: Results, kind: str, column: str, **where: Any) -> pd.DataFrame:
    """One cell of the base's results of `kind`: seeds x documents of `column`, where its keys have these values.

    Entropy is averaged over layers and heads. NotMeasured names the cell that is absent.
    """
    named = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in where.items())
    tables = cells(results, kind, column, tuple(where))
    return _measured(tables, tuple(where.values()), f"{kind.replace('_', '-')} results for {named}")


@lru_cache(maxsize=64)
def cells(results: Results, kind: str, column: str, keys: tuple[str, ...]) -> dict[Any, pd.DataFrame]:
    """All cells of the base's results of `kind` by the values of `keys`."""
    rows = rows_of_base(results, kind, f"{kind.replace('_', '-')} results")
    if kind == "entropy":
        rows = rows.groupby([*keys, "seed", "document"], sort=False)[column].mean().reset_index()
    return split(rows, list(keys), "document", column)


def beyond(results: Results, method: str, cache: str, start: int, end: int) -> pd.DataFrame:
    """Mean NLL in nats of the tokens in [start, end) of a decoding with this cache: seeds x documents."""
    tables = cells(results, "key_cache", "nll", ("method", "cache", "bucket_start", "bucket_end"))
    parts = [
        (high - low, nll)
        for (found, kind, low, high), nll in tables.items()
        if (found, kind) == (method, cache) and start <= low and high <= end
    ]
    if not parts:
        raise NotMeasured(f"no {cache} decoding of {method} on tokens {start:,} to {end:,}")
    return _joint(parts)


# The paper reports these tasks by accuracy normalised by length, all others by plain accuracy (Table 3).
NORMALISED = ("arc_challenge", "hellaswag")
MMLU = "mmlu"


@dataclass(frozen=True, eq=False)
class Windows:
    """Sliding windows of one arm: mean NLL in nats, seeds x documents.

    by_window: windows of a document with equal weight; by_token: with the tokens they score; count: windows a
    document has, which is its weight in the official pooled value (eval/perplexity.py:75, 86).
    """

    by_window: pd.DataFrame
    by_token: pd.DataFrame
    count: Array


@lru_cache(maxsize=64)
def windows_of(results: Results, arm: str) -> Windows:
    """The sliding windows of an arm, or NotMeasured."""
    rows = _own(results, "sliding_window", arm, "sliding windows")
    rows = rows.assign(weighted=rows["nll"] * rows["tokens"])
    keys = ["arm", "seed", "document"]
    grouped = rows.groupby(keys, as_index=False).agg(
        nll=("nll", "mean"), weighted=("weighted", "sum"), tokens=("tokens", "sum"), windows=("nll", "size")
    )
    grouped["weighted"] /= grouped["tokens"]
    by_window, by_token, count = (
        split(grouped, ["arm"], "document", column)[(arm,)] for column in ("nll", "weighted", "windows")
    )
    return Windows(by_window, by_token, count.to_numpy()[0])


def tasks(results: Results) -> list[str]:
    """Names of the multiple-choice tasks, in the order of the file; MMLU's subjects are tasks."""
    return [str(name) for name in present(results, "benchmarks.samples")["task"].drop_duplicates()]


def reported(task: str) -> str:
    """The metric that counts for a task: acc_norm or acc."""
    return "acc_norm" if task in NORMALISED else "acc"


def group(task: str) -> str:
    """What a task counts as in a mean over tasks: MMLU's subjects are one task together."""
    return MMLU if task.startswith(f"{MMLU}_") else task


def answers(results: Results, arm: str, names: list[str], metric: str | None = None) -> tuple[pd.DataFrame, Array]:
    """Scores of an arm (seeds x items, 1 for a right answer) and each item's weight.

    Groups weigh the same, tasks in a group the same, items in a task the same. `metric`: acc or acc_norm; None: the
    one that is reported for each task.
    """
    found, weights = [], []
    size = Counter(group(task) for task in names)
    for task in names:
        kept = _tables(results, "benchmarks.samples", ("arm", "task"), "item", metric or reported(task))
        table = _measured(kept, (arm, task), f"answers of {arm} to {task}")
        found.append(table)
        weights.append(np.full(table.shape[1], 1 / (table.shape[1] * size[group(task)])))
    joined = pd.concat(dict(zip(names, found, strict=True)), axis=1, join="inner")
    return joined, np.concatenate(weights)


def paired_answers(
    results: Results, arm: str, rival: str, names: list[str], metric: str | None = None
) -> tuple[Array, Array, Array]:
    """Scores of two arms on the same items (seeds x items each) and the items' weights."""
    (a, weights), (b, _) = (answers(results, one, names, metric) for one in (arm, rival))
    items = a.columns.intersection(b.columns, sort=False)
    if len(items) != a.shape[1] or len(items) != b.shape[1]:
        raise NotMeasured(f"{arm} and {rival} did not answer the same items")
    a, b = of_same_seeds(a[items], b[items])
    return np.asarray(a.to_numpy(float)), np.asarray(b.to_numpy(float)), weights


def reported_score(values: Array, errors: Array, n: int, over: str) -> Estimate:
    """Mean over seeds of lm-eval's scores, with its standard error of each; n: the items (`over`) of one seed.

    Seeds answer the same items, so that their errors do not average out; the spread of the seeds comes on top.
    """
    value, seeds = float(values.mean()), len(values)
    half = math.hypot(Z * math.sqrt(float((errors**2).mean())), student_half(values) if seeds > 1 else 0.0)
    method = "normal, lm-eval's standard error"
    if seeds > 1:
        over, method = f"{over} x seeds ({n} x {seeds})", f"{method}; Student's t over seeds (MOVER)"
    return Estimate(value, value - half, value + half, n * seeds, over, "proportion", method)


def mean_score(results: Results, arm: str) -> Estimate:
    """Unweighted mean over tasks of the reported metric, items resampled with their weights."""
    found, weights = answers(results, arm, tasks(results))
    return mean(found.to_numpy(), weights=weights, over="items", unit="proportion")


def score_gap(results: Results, arm: str, rival: str, names: list[str] | None = None) -> Estimate:
    """Mean over tasks of the reported metric, arm minus rival on the same items."""
    a, b, weights = paired_answers(results, arm, rival, names or tasks(results))
    return mean(a - b, weights=weights, over="items", unit="difference of proportions")


def static_nll(results: Results, arm: str, method: str, scale: float, length: int) -> pd.DataFrame:
    """Mean NLL in nats at `length` tokens of a model under another rope, without training: seeds x documents."""
    what = f"zero-shot perplexity of {arm} with {method} at s = {scale:g} and {length:,} tokens"
    return _measured(_tables(results, "zero_shot", *ZERO_SHOT), (arm, method, scale, length), what)


@dataclass(frozen=True)
class Moved:
    """The gap of a method to another one on a model, and on the control whose weights are quantised once more.

    NLL of the tokens in (L, length], length = sL, without training, in nats per token: `own` on the model, `again` on
    the control, `move` their difference, all paired by document.
    """

    model: Model
    control: Model
    method: str
    scale: float
    length: int
    own: Estimate
    again: Estimate
    move: Estimate

    @property
    def half_width(self) -> float:
        """Half of the interval of the gap on the model."""
        return (self.own.high - self.own.low) / 2


def moved_gaps(results: Results, against: str) -> list[Moved]:
    """For every model with a control, every scale and every method: the gap to `against`, of what both were measured
    under up to sL. NotMeasured where one of the two has no results at all."""
    frame, found = present(results, "zero_shot"), []
    for model, control in results.requantised():
        absent = [arm.arm for arm in (model, control) if not (frame["arm"] == arm.arm).any()]
        if absent:
            raise NotMeasured(f"no zero-shot results of {' and '.join(absent)}")
        cells = frame.loc[(frame["arm"] == model.arm) & (frame["scale"] > 1), ["method", "scale"]].drop_duplicates()
        for method, scale in cells[cells["method"] != against].itertuples(index=False):
            span = (model.original_context, int(scale * model.original_context))
            with suppress(NotMeasured):
                own, again = (
                    paired(*(_static_segment(results, arm.arm, name, scale, span) for name in (method, against)))
                    for arm in (model, control)
                )
                gaps = (over_documents(gap, unit="nats per token") for gap in (own, again, paired(again, own)))
                found.append(Moved(model, control, str(method), float(scale), span[1], *gaps))
    return found


def _static_segment(results: Results, arm: str, method: str, scale: float, span: tuple[int, int]) -> pd.DataFrame:
    """Mean NLL of an arm's tokens between two lengths under a method without training: seeds x documents."""
    start, end = ((length, static_nll(results, arm, method, scale, length)) for length in span)
    return between(start, end)


def dynamic_nll(results: Results, arm: str, method: str, length: int) -> pd.DataFrame:
    """Mean NLL in nats of `length` tokens under dynamic scaling: seeds x documents."""
    tables = _tables(results, "dynamic", ("arm", "method", "length"), "document", "nll")
    return _measured(tables, (arm, method, length), f"dynamic results of {arm} with {method} at {length:,} tokens")


@lru_cache(maxsize=64)
def loss_by_step(results: Results, arm: str) -> dict[int, float]:
    """Step → training loss in nats, averaged over seeds."""
    return {int(str(step)): float(loss) for step, loss in losses(results, arm).items()}


@lru_cache(maxsize=256)
def corpus_of(results: Results, kind: str, arm: str) -> str:
    """The corpus that an evaluation of an arm read."""
    frame = present(results, kind)
    return str(frame["corpus"].to_numpy()[(frame["arm"] == arm).to_numpy().argmax()])


def scores(results: Results, arm: str, task: str, metric: str) -> list[tuple[float, float, int]]:
    """(value, standard error, questions) of a benchmark for each seed."""
    return _measured(_scores(results), (arm, task, metric), f"{metric} of {arm} on {task}")


def hits_by_length(results: Results, kind: str, arm: str) -> dict[int, pd.DataFrame]:
    """Length in tokens → hits (0 or 1), seeds x trials; `kind` is passkey or passkey_official."""
    tables = {length: table for (name, length), table in hit_tables(results, kind).items() if name == arm}
    if not tables:
        raise NotMeasured(f"no {kind.replace('_', '-')} trials of {arm}")
    return dict(sorted(tables.items()))


def arms_with_hits(results: Results, kind: str) -> frozenset[str]:
    """The arms that have trials of `kind`, passkey or passkey_official."""
    return frozenset(arm for arm, _ in hit_tables(results, kind)) if results.has(kind) else frozenset()


@lru_cache(maxsize=128)  # some of each kind, for each base of a study
def _tables(results: Results, kind: str, keys: tuple[str, ...], columns: str, values: str) -> dict[Any, pd.DataFrame]:
    """`split` of all results of a kind."""
    return split(present(results, kind), list(keys), columns, values)


@lru_cache(maxsize=8)
def _scores(results: Results) -> dict[tuple[str, str, str], list[tuple[float, float, int]]]:
    frame = present(results, "benchmarks")
    found: dict[tuple[str, str, str], list[tuple[float, float, int]]] = {}
    columns = (frame[name].tolist() for name in ("arm", "task", "metric", "value", "stderr", "n"))
    for arm, task, metric, value, error, n in zip(*columns, strict=True):
        found.setdefault((arm, task, metric), []).append((float(value), float(error), int(n)))
    return found


@lru_cache(maxsize=8)
def hit_tables(results: Results, kind: str) -> dict[tuple[str, int], pd.DataFrame]:
    """(arm, length in tokens) → hits (0 or 1), seeds x trials; `kind` is passkey or passkey_official."""
    columns = ["filler", "trial"] if kind == "passkey" else "trial"
    return split(present(results, kind), ["arm", "length"], columns, "hit")


def sliding_gap(results: Results, a: Model, b: Model, measure: str) -> Estimate:
    """ln perplexity of a minus that of b over the same windows, paired by document."""
    own, other = windows_of(results, a.arm), windows_of(results, b.arm)
    if not np.array_equal(own.count, other.count):
        raise NotMeasured(f"{a.arm} and {b.arm} were not evaluated on the same windows")
    values, weights = windows_measured(own, measure)
    differences = paired(values, windows_measured(other, measure)[0])
    return over_documents(differences, weights=weights, unit="difference in ln perplexity")


def windows_measured(windows: Windows, measure: str) -> tuple[pd.DataFrame, Array | None]:
    """Mean NLL and weights of documents: 'windows pooled' as the official code does, else every document the same."""
    return (windows.by_window, windows.count) if measure == "windows pooled" else (windows.by_token, None)
