"""Our number for a published value: `ours(results, cell)`, one function for each kind of protocol.

Cells of tables and points of curves are measured by the same functions. They raise NotMeasured with the reason where
there is nothing, and note on the answer why it is not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from yarnlab.lazy import np, pd
from yarnlab.results import estimates, statistics, temperature
from yarnlab.results.display import manifests_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.counterpart import Counterpart, Text, counterpart_of, text_of
from yarnlab.results.published.data import Cell, Point, Protocol, load_reference
from yarnlab.results.results import Model, Results
from yarnlab.results.statistics import Array, Estimate, Z, proportion
from yarnlab.rope import METHODS, YaRN, make_rope

ENOUGH = 0.8  # the paper's passkey context is the largest size with at least this accuracy (v2 p.17)
PASSKEY_STEP = 8192  # the grid of Table 5, which the multiples of 1/160, 1/140, 1/80 and 1/40 in it give away
TASK_METRICS = {"mc2": "acc"}  # lm-eval calls TruthfulQA's mc2 the accuracy of the task truthfulqa_mc2
SWEEP_BASELINE = 1.05  # √(1/t) of the first plotted point, which the paper's Figure 3 draws as zero
HEAD_DIM = 128  # of every 7B and 13B model of the paper
STRICT = (
    "the teacher-forced passkey test here, for all models of this table or figure: five-digit keys in running text, "
    "every digit to be right"
)


@dataclass(frozen=True, eq=False)
class Ours:
    """Our number for a published value, in its unit.

    incomparable: why it is not to be compared in value, all reasons; None where it is.
    length: the length in tokens that it was measured at, or up to (passkey over several sizes); None where it has none.
    sources: manifests, relative to the study's folder.
    documents: NLL in nats, seeds x documents, where two cells can be compared document by document; `weights` of them.
    same_documents, same_weights: whether text and model are the very ones of the published number.
    """

    estimate: Estimate
    counterpart: Counterpart | None = None
    sources: tuple[str, ...] = ()
    incomparable: str | None = None
    length: int | None = None
    documents: pd.DataFrame | None = field(default=None, repr=False)
    weights: Array | None = field(default=None, repr=False)
    same_documents: bool = False
    same_weights: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """A published value and the study's model that it is set against."""

    results: Results
    cell: Cell | Point
    counterpart: Counterpart

    @property
    def protocol(self) -> Protocol:
        """How the published value was measured."""
        return load_reference().protocols[self.cell.protocol]

    @property
    def arm(self) -> str:
        """The arm of the study's model."""
        return self.counterpart.model.arm

    @property
    def length(self) -> int:
        """The value's x, a length, in tokens of the study's model."""
        assert self.cell.x is not None
        return self.counterpart.length(self.cell.x)

    def sources(self, kind: str) -> tuple[str, ...]:
        """The manifests behind the arm's numbers of this kind."""
        return tuple(manifests_of(self.results, kind, self.arm))

    def text(self, kind: str, documents: int) -> Text:
        """What was read here beside what the paper read. A curve has no tolerance for other documents of one text."""
        text = text_of(self.results, estimates.corpus_of(self.results, kind, self.arm), self.protocol, documents)
        if text.other or text.same_documents or isinstance(self.cell, Cell):
            return text
        unknown = self.protocol.selection == "unknown"
        return Text("which documents the paper read is not known" if unknown else "other documents of the same text")


def ours(results: Results, cell: Cell | Point) -> Ours:
    """Our number for a published value; NotMeasured says why there is none."""
    reference = load_reference()
    if isinstance(cell, Cell) and reference.kind_of(cell) == "formula":
        return Ours(fixed(FORMULAS[cell.metric](cell), cell.unit, "computed from yarnlab.rope"))
    measure, published = MEASURES.get(reference.kind_of(cell)), reference.models[cell.model]
    if measure is None:
        raise NotMeasured(f"nothing here measures {reference.kind_of(cell)}")
    counterpart = counterpart_of(results, published)
    if counterpart is None:
        raise NotMeasured(f"no model of this study stands for {published.label}")
    found = measure(Comparison(results, cell, counterpart))
    return replace(
        found,
        counterpart=counterpart,
        incomparable=because(counterpart.analogue, found.incomparable),
        same_weights=counterpart.model.kind == "hub",
    )


def because(*reasons: str | None) -> str | None:
    """All reasons for which a number is not comparable in one; None where there is none."""
    return "; ".join(reason for reason in reasons if reason) or None


def fixed(value: float, unit: str, method: str, over: str = "value") -> Estimate:
    """A number that nothing was sampled for."""
    return Estimate(float(value), float(value), float(value), 1, over, unit, method)


def _perplexity(of: Comparison) -> Ours:
    return _over_documents(of, "perplexity", estimates.nll(of.results, of.arm, of.length), of.length)


def _zero_shot(of: Comparison) -> Ours:
    assert of.cell.scale is not None
    documents = estimates.static_nll(of.results, of.arm, of.cell.method, of.cell.scale, of.length)
    return _over_documents(of, "zero_shot", documents, of.length)


def _dynamic(of: Comparison) -> Ours:
    """The dynamic evaluation; without it the static method at s = N/L, which is the same rope for N tokens.

    Not so for Figure 5's single document, of which the paper scores the last tokens of each length.
    """
    results, arm, length, method = of.results, of.arm, of.length, of.cell.method
    if of.protocol.documents is None:
        documents = estimates.dynamic_nll(results, arm, method, length)
        return _over_documents(of, "dynamic", documents, length, "the paper shows one document")
    with suppress(NotMeasured):
        return _over_documents(of, "dynamic", estimates.dynamic_nll(results, arm, method, length), length)
    scale = length / of.counterpart.original_context
    if scale <= 1:
        return _over_documents(of, "perplexity", estimates.nll(results, arm, length), length)
    static = {"ntk": "ntk-aware"}.get(name := method.removeprefix("dynamic-"), name)
    return _over_documents(of, "zero_shot", estimates.static_nll(results, arm, static, scale, length), length)


def _sliding_window(of: Comparison) -> Ours:
    windows, settings = estimates.windows_of(of.results, of.arm), of.results.evaluations["sliding_window"]
    length = settings.get("window")
    reasons = []
    if isinstance(of.cell, Cell):
        for key, published in (("window", of.protocol.window), ("stride", of.protocol.stride)):
            own = settings.get(key)
            if own is not None and published is not None and own != of.counterpart.length(published):
                reasons.append(f"a {key} of {own:,} tokens here, {published:,} in the paper")
        if settings.get("max_tokens"):
            reasons.append(f"documents are cut to {settings['max_tokens']:,} tokens here")
    elif length is not None and length != of.length:
        reasons.append(f"a window of {length:,} tokens here")
    return _over_documents(of, "sliding_window", windows.by_window, length, *reasons, weights=windows.count)


def _over_documents(
    of: Comparison,
    kind: str,
    documents: pd.DataFrame,
    length: int | None,
    *reasons: str | None,
    weights: Array | None = None,
) -> Ours:
    """Perplexity over documents (NLL in nats, seeds x documents); `reasons` why it is no other's beside the text's."""
    text = of.text(kind, documents.shape[1])
    values, packages = np.ascontiguousarray(documents.to_numpy(float)), tuple(estimates.packages(documents.columns))
    if isinstance(of.cell, Point) and weights is None:
        estimate = _by_student(values, packages)
    else:
        shares = None if weights is None else np.asarray(weights, dtype=float).tobytes()
        estimate = _bootstrapped(values.tobytes(), values.shape[0], shares, packages)
    return Ours(
        estimate,
        sources=of.sources(kind),
        incomparable=because(text.other, *reasons),
        length=length,
        documents=documents,
        weights=weights,
        same_documents=text.same_documents,
    )


@lru_cache(maxsize=4096)
def _bootstrapped(values: bytes, seeds: int, weights: bytes | None, packages: tuple[str, ...]) -> Estimate:
    """Perplexity with its bootstrap interval, once for all cells that one measurement stands beside."""
    nll = np.frombuffer(values).reshape(seeds, -1)
    return statistics.geometric_mean_perplexity(nll, None if weights is None else np.frombuffer(weights), packages)


def _by_student(values: Array, packages: tuple[str, ...]) -> Estimate:
    """Perplexity with Student's interval over documents: points are many, and a bootstrap of each is slow."""
    return statistics.student_mean(values.mean(axis=0), packages).map(lambda x: math.exp(min(x, 700.0)), "perplexity")


def _passkey(of: Comparison) -> Ours:
    """Under the official prompt or by the strict test, which is not the same, whichever `_passkey_kind` says."""
    kind = _passkey_kind(of.results, of.cell.artifact)
    found = estimates.hits_by_length(of.results, kind, of.arm)
    grid = None
    if of.cell.metric == "accuracy":
        length = of.length
        if length not in found:
            raise NotMeasured(f"no {kind.replace('_', '-')} trials of {of.arm} at {length:,} tokens")
        estimate = estimates.accuracy_of(found[length])
    else:
        estimate, length, grid = _passkey_context(of, found)
    strict = STRICT if kind == "passkey" else None
    return Ours(estimate, sources=of.sources(kind), incomparable=because(strict, grid), length=length)


@lru_cache(maxsize=32)
def _passkey_kind(results: Results, artifact: str) -> str:
    """The one test that a table's or figure's models are shown by: the official prompt if it lacks none that was tried.

    Accuracies of two tests side by side would show the tests' difference as the models'.
    """
    reference = load_reference()
    names = {cell.model for cell in reference.of(artifact) if reference.kind_of(cell) == "passkey_official"}
    found = [counterpart_of(results, reference.models[name]) for name in names]
    arms = {counterpart.model.arm for counterpart in found if counterpart is not None}
    strict, official = (arms & estimates.arms_with_hits(results, kind) for kind in ("passkey", "passkey_official"))
    return "passkey_official" if strict <= official else "passkey"


def _passkey_context(of: Comparison, found: dict[int, pd.DataFrame]) -> tuple[Estimate, int, str | None]:
    """Passkey context in published tokens, or the accuracy in percent over all sizes up to it.

    With our own context in tokens, and why the sizes are not the paper's.
    """
    passed = [length for length, hits in found.items() if hits.to_numpy(float).mean() >= ENOUGH]
    context = max(passed, default=0)
    expected = list(range(PASSKEY_STEP, int(max(found)) + 1, PASSKEY_STEP))
    grid = None if sorted(found) == expected else "other sizes than 8k, 16k, … 128k were tried here"
    if of.cell.metric == "passkey_context":
        tokens = of.counterpart.published_length(context)
        estimate = Estimate(tokens, tokens, tokens, len(found), "sizes", "tokens", "largest size with at least 80 %")
        return estimate, context, grid
    if not passed:
        raise NotMeasured(f"{of.arm} has no size with at least 80 %")
    tried = pd.concat({n: hits for n, hits in found.items() if n <= context}, axis=1, join="inner")
    return estimates.accuracy_of(tried).map(lambda share: 100 * share, "percent"), context, grid


def _benchmark(of: Comparison) -> Ours:
    estimates.present(of.results, "benchmarks")
    suite = (of.results.evaluations.get("benchmarks") or {}).get("suite")
    if suite != "paper":
        raise NotMeasured(f"the suite {suite} is not the paper's four benchmarks")
    metric, error = of.cell.metric.removesuffix("_stderr"), of.cell.metric.endswith("_stderr")
    if metric == "mc1":
        raise NotMeasured("the suite has TruthfulQA's mc2 only")
    found = estimates.scores(of.results, of.arm, of.protocol.task, TASK_METRICS.get(metric, metric))
    values, errors = (np.array([row[i] for row in found]) for i in (0, 1))
    estimate = estimates.reported_score(values, errors, found[0][2], "questions")
    if error:
        value = float(errors.mean())
        estimate = Estimate(value, value, value, estimate.n, estimate.over, "proportion", "lm-eval")
    factor = 100.0 if of.cell.unit == "percent" else 1.0
    estimate = estimate.map(lambda x: factor * x, of.cell.unit)
    return Ours(estimate, sources=of.sources("benchmarks"))


def _temperature(of: Comparison) -> Ours:
    """A statistic of the temperature sweep at √(1/t) = x, as in the paper's Figures 2 to 4 (App. A.2, Eq. 26)."""
    point = of.cell
    assert isinstance(point, Point)
    sweep = (of.results, of.arm, point.method, float(point.scale or 0))
    rows = _sweep(*sweep)
    documents = int(rows["document"].nunique())
    if point.segment_start is None:
        row = _at(_statistic(*sweep, "perplexity"), point.x).iloc[0]
        offset = {"mean_perplexity": 0.0, "mean_minus_sd": -1.0, "mean_plus_sd": 1.0}[point.metric]
        # The error of mean ± sd for about normal values: that of the mean and of the sd together.
        half = Z * row["sd"] / math.sqrt(row["documents"]) * math.sqrt(1 + offset**2 / 2)
        value = float(row["perplexity"] + offset * row["sd"])
        bounds, method = (value - half, value + half), "normal approximation"
        estimate = Estimate(value, *bounds, int(row["documents"]), "documents", "perplexity", method)
    elif point.metric == "mean_change":
        row = _at(_statistic(*sweep, "change"), point.x, _segment(rows, point)).iloc[0]
        change, low, high = (100 * float(row[name]) for name in ("change", "low", "high"))
        estimate = Estimate(change, low, high, documents, "documents", "percent", "bootstrap over documents")
    else:
        best, segment = _statistic(*sweep, "best"), _segment(rows, point)
        found = best[(best["segment"] == segment) & ((best["factor"] - point.x).abs() < 1e-6)]
        share = proportion(int(found["documents"].sum()), documents)
        estimate = share.map(lambda x: documents * x, "documents")
    text = of.text("temperature", documents)
    sources, same = of.sources("temperature"), text.same_documents
    return Ours(estimate, sources=sources, incomparable=text.other, same_documents=same)


@lru_cache(maxsize=8)
def _sweep(results: Results, arm: str, method: str, scale: float) -> pd.DataFrame:
    frame = estimates.present(results, "temperature")
    rows = frame[(frame["arm"] == arm) & (frame["method"] == method) & (frame["scale"] == scale)]
    if rows.empty:
        raise NotMeasured(f"no temperature sweep of {arm} with {method} at s = {scale:g}")
    return rows


@lru_cache(maxsize=24)
def _statistic(results: Results, arm: str, method: str, scale: float, name: str) -> pd.DataFrame:
    """A sweep's perplexity by factor, its change by factor and segment, or the documents best at each of these."""
    rows = _sweep(results, arm, method, scale)
    if name == "perplexity":
        return temperature.perplexity_by_factor(rows)
    if name == "best":
        return temperature.histogram(temperature.best_by_document(rows, by_segment=True))
    try:
        return temperature.relative_change(rows, SWEEP_BASELINE)
    except ValueError as absent:
        raise NotMeasured(str(absent)) from absent


def _at(frame: pd.DataFrame, factor: float, segment: int | None = None) -> pd.DataFrame:
    rows = frame[(frame["kind"] == "grid") & ((frame["factor"] - factor).abs() < 1e-6)]
    rows = rows if segment is None else rows[rows["segment"] == segment]
    if rows.empty:
        raise NotMeasured(f"the sweep has no √(1/t) = {factor:g}")
    return rows


def _segment(rows: pd.DataFrame, point: Point) -> int:
    """The segment of the same share of the document: the paper cuts 16,384 tokens into 8."""
    assert point.segment_start is not None and point.segment_end is not None
    segments = int(rows["segment"].max()) + 1
    if segments != 8:
        raise NotMeasured(f"the sweep has {segments} segments, the paper 8")
    return point.segment_start // (point.segment_end - point.segment_start)


def _setting(of: Comparison) -> Ours:
    if of.cell.metric == "documents":
        found = estimates.present(of.results, "temperature")
        rows = found[found["arm"] == of.arm]
        if rows.empty:
            raise NotMeasured(f"no temperature sweep of {of.arm}")
        documents = fixed(rows["document"].nunique(), of.cell.unit, "as read")
        return Ours(documents, sources=of.sources("temperature"))
    model = of.counterpart.model
    phase = _trained(of.results, model)["spec"]["phases"][-1]
    if of.cell.metric == "training_data_context":
        own = phase["seq_len"]
        tokens = fixed(of.counterpart.published_length(own), of.cell.unit, "as set")
        return Ours(tokens, sources=_manifests([model]), length=own)
    settings = phase | dict(zip(("beta1", "beta2"), phase["betas"], strict=True))
    return Ours(fixed(settings[of.cell.metric], of.cell.unit, "as set"), sources=_manifests([model]))


def _training(of: Comparison) -> Ours:
    """The loss of a step, or the tokens of all fine-tuning up to the model."""
    if isinstance(of.cell, Point):
        steps, step = estimates.loss_by_step(of.results, of.arm), int(of.cell.x)
        if step not in steps:
            raise NotMeasured(f"{of.arm} has no step {step}")
        return Ours(fixed(steps[step], "nats", "one step", "steps"), sources=of.sources("training"))
    chain = _fine_tuned(of)
    tokens = fixed(_tokens(of.results, chain), of.cell.unit, "steps x rows x tokens")
    return Ours(tokens, sources=_manifests(chain))


def _cost(of: Comparison) -> Ours:
    """GPUs x hours of the training stages of all fine-tuning up to the model."""
    chain = _fine_tuned(of)
    hours, devices = 0.0, set()
    for model in chain:
        manifest = _trained(of.results, model)
        names = manifest.get("hardware", {}).get("gpu")
        if not names:
            raise NotMeasured(f"{model.arm} was not trained on GPUs")
        devices |= set(names)
        parallel = manifest["spec"]["phases"][-1]["parallel"]
        hours += float(manifest["seconds"]) / 3600 * parallel["processes"] * parallel["nodes"]
    other = sorted(name for name in devices if "A100" not in name)
    reason = f"trained on {other[0]}, the paper on A100" if other else None
    return Ours(fixed(hours, "GPU-hours", "GPUs x hours"), sources=_manifests(chain), incomparable=reason)


def _derived(of: Comparison) -> Ours:
    """A number that the paper derives from others: a share of, or a ratio to, what another model was trained on."""
    metric, models = of.cell.metric, load_reference().models
    if metric == "mean_drop":
        return _mean_drop(of)
    if of.counterpart.analogue is not None:
        raise NotMeasured(f"a ratio to a published budget says nothing of another model: {of.counterpart.analogue}")
    chain = _fine_tuned(of)
    own, published = _tokens(of.results, chain), models["NousResearch/CodeLlama-7b-hf"].trained_tokens
    method = "published tokens over ours"
    if metric == "step_reduction":
        own = sum(_trained(of.results, model)["spec"]["phases"][-1]["steps"] for model in chain)
        published, method = models["LLaMA 7B (Chen et al.)"].trained_steps, "published steps over ours"
    if metric == "pretraining_share":
        published, method = models[of.cell.model].pretraining_tokens, "tokens over 2 T"
    assert published is not None
    ratio = 100 * own / published if metric == "pretraining_share" else published / own
    return Ours(fixed(ratio, of.cell.unit, method), sources=_manifests(chain))


def _mean_drop(of: Comparison) -> Ours:
    """Mean fall of the eight scores of Table 3 from s=16 to s=32, in percentage points."""
    reference = load_reference()
    differences, variance, sources = [], 0.0, []
    scores = [cell for cell in reference.of("Table 3") if cell.method == "yarn"]
    for size in ("7b", "13b"):
        pair = [reference.models[f"NousResearch/Yarn-Llama-2-{size}-{window}"] for window in ("64k", "128k")]
        if None in [counterpart_of(of.results, model) for model in pair]:
            raise NotMeasured(f"no model of this study stands for both {pair[0].label} and {pair[1].label}")
        for first in (cell for cell in scores if cell.model == pair[0].model):
            second = next(c for c in scores if c.model == pair[1].model and c.protocol == first.protocol)
            both = [ours(of.results, cell) for cell in (first, second)]
            differences.append(both[0].estimate.value - both[1].estimate.value)
            variance += sum(((o.estimate.high - o.estimate.value) / Z) ** 2 for o in both)
            sources += [path for o in both for path in o.sources]
    mean, half = sum(differences) / len(differences), Z * math.sqrt(variance) / len(differences)
    estimate = Estimate(mean, mean - half, mean + half, len(differences), "scores", of.cell.unit, "normal, unpaired")
    return Ours(estimate, sources=tuple(dict.fromkeys(sources)))


def _fine_tuned(of: Comparison) -> list[Model]:
    """The model and its ancestors as far as they are fine-tuned, the first one first."""
    chain: list[Model] = []
    here: Model | None = of.counterpart.model
    while here is not None and here.kind == "finetune":
        chain.insert(0, here)
        here = of.results.models.get(here.parent or "")
    if not chain:
        raise NotMeasured(_NOT_TRAINED_HERE.format(of.arm))
    return chain


_NOT_TRAINED_HERE = "{} is taken over as published; its training is not part of this study"


def _trained(results: Results, model: Model) -> dict[str, Any]:
    """The manifest of a model's training."""
    if model.kind != "finetune":
        raise NotMeasured(_NOT_TRAINED_HERE.format(model.arm))
    manifest = results.manifest(_manifests([model])[0])
    if not manifest.get("spec", {}).get("phases"):
        raise NotMeasured(f"{model.arm} is not trained yet")
    return manifest


def _tokens(results: Results, chain: list[Model]) -> int:
    phases = [phase for model in chain for phase in _trained(results, model)["spec"]["phases"]]
    return sum(phase["steps"] * phase["global_batch"] * phase["seq_len"] for phase in phases)


def _manifests(chain: list[Model]) -> tuple[str, ...]:
    return tuple(f"models/{model.name}/manifest.json" for model in chain)


def _yarn(scale: float) -> YaRN:
    rope = make_rope("yarn", scale=scale, original_context=4096, head_dim=HEAD_DIM)
    assert isinstance(rope, YaRN)
    return rope


def _ntk_scale(cell: Cell) -> float:
    """s of a given base, by Eq. 16 turned round: s = (b'/b)^((D−2)/D)."""
    assert cell.x is not None
    plain = METHODS["none"](original_context=4096, head_dim=HEAD_DIM)
    return float((cell.x / plain.base) ** ((HEAD_DIM - 2) / HEAD_DIM))


FORMULAS: dict[str, Callable[[Cell], float]] = {
    "alpha": lambda cell: _yarn(16.0).alpha,
    "beta": lambda cell: _yarn(16.0).beta,
    "temperature_slope": lambda cell: _yarn(math.e).attention_factor - 1.0,
    "attention_factor": lambda cell: _yarn(cell.x or 1.0).attention_factor,
    "ntk_scale": _ntk_scale,
    "ntk_context": lambda cell: _ntk_scale(cell) * 4096,
}
MEASURES: dict[str, Callable[[Comparison], Ours]] = {
    "perplexity": _perplexity,
    "zero_shot": _zero_shot,
    "dynamic": _dynamic,
    "sliding_window": _sliding_window,
    "passkey_official": _passkey,
    "benchmarks": _benchmark,
    "temperature": _temperature,
    "setting": _setting,
    "training": _training,
    "cost": _cost,
    "derived": _derived,
}
