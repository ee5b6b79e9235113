"""What this study's evaluations measured for a published cell: one function for each kind of protocol.

They raise NotMeasured with the reason where there is nothing, and note on the answer why it is not comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

from yarnlab.lazy import np, pd
from yarnlab.results.estimates import (
    NotMeasured,
    arms_with_hits,
    corpus_of,
    dynamic_nll,
    hits_by_length,
    nll,
    present,
    reported_score,
    scores,
    static_nll,
    windows_of,
)
from yarnlab.results.published.published_text import text_of
from yarnlab.results.published.reference import Reference
from yarnlab.results.published.reference_roles import Role, role_of
from yarnlab.results.published.reference_rows import Cell
from yarnlab.results.results import Results
from yarnlab.results.statistics import Array, Estimate, accuracy, geometric_mean_perplexity

ENOUGH = 0.8  # the paper's passkey context is the largest size with at least this accuracy (v2 p.17)
TASK_METRICS = {"mc2": "acc"}  # lm-eval calls TruthfulQA's mc2 the accuracy of the task truthfulqa_mc2
STRICT = (
    "the teacher-forced passkey test here, for all models of this table or figure: five-digit keys in running text, "
    "every digit to be right"
)


@dataclass(frozen=True, eq=False)
class Ours:
    """Our number for a published cell, in the cell's unit.

    incomparable: why it is not to be compared in value, all reasons; None where it is.
    length: the length in tokens that it was measured at, or up to (passkey over several sizes); None where it has none.
    sources: manifests, relative to the study's folder.
    documents: NLL in nats, seeds x documents, where two cells can be compared document by document; `weights` of them.
    same_documents, same_weights: whether text and model are the very ones of the published number.
    """

    estimate: Estimate
    role: Role | None
    sources: tuple[str, ...] = ()
    incomparable: str | None = None
    length: int | None = None
    documents: pd.DataFrame | None = field(default=None, repr=False)
    weights: Array | None = field(default=None, repr=False)
    same_documents: bool = False
    same_weights: bool = False


def because(*reasons: str | None) -> str | None:
    """All reasons for which a number is not comparable in one; None where there is none."""
    return "; ".join(reason for reason in reasons if reason) or None


def _perplexity(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None and cell.x is not None
    length = role.length(cell.x)
    documents = nll(results, role.model.arm, length)
    return _of_documents(results, reference, cell, role, "perplexity", documents, length)


def _zero_shot(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None and cell.x is not None and cell.scale is not None
    length = role.length(cell.x)
    documents = static_nll(results, role.model.arm, cell.method, cell.scale, length)
    return _of_documents(results, reference, cell, role, "zero_shot", documents, length)


def _dynamic(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    """The dynamic evaluation; without it the static method at s = N/L, which is the same rope for N tokens."""
    assert role is not None and cell.x is not None
    length, arm = role.length(cell.x), role.model.arm
    with suppress(NotMeasured):
        documents = dynamic_nll(results, arm, cell.method, length)
        return _of_documents(results, reference, cell, role, "dynamic", documents, length)
    scale = length / role.original_context
    if scale <= 1:
        return _of_documents(results, reference, cell, role, "perplexity", nll(results, arm, length), length)
    static = {"ntk": "ntk-aware"}.get(name := cell.method.removeprefix("dynamic-"), name)
    documents = static_nll(results, arm, static, scale, length)
    return _of_documents(results, reference, cell, role, "zero_shot", documents, length)


def _sliding_window(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None
    windows = windows_of(results, role.model.arm)
    settings, protocol = results.evaluations["sliding_window"], reference.protocols[cell.protocol]
    length = settings.get("window")
    found = _of_documents(
        results, reference, cell, role, "sliding_window", windows.by_window, length, weights=windows.count
    )
    reasons = [found.incomparable]
    for key in ("window", "stride"):
        own, published = settings.get(key), getattr(protocol, key)
        if own is not None and own != role.length(published):
            reasons.append(f"a {key} of {own:,} tokens here, {published:,} in the paper")
    if settings.get("max_tokens"):
        reasons.append(f"documents are cut to {settings['max_tokens']:,} tokens here")
    return replace(found, incomparable=because(*reasons))


def _of_documents(
    results: Results,
    reference: Reference,
    cell: Cell,
    role: Role,
    kind: str,
    documents: pd.DataFrame,
    length: int | None,
    weights: Array | None = None,
) -> Ours:
    corpus = corpus_of(results, kind, role.model.arm)
    text = text_of(results, corpus, reference.protocols[cell.protocol], documents.shape[1])
    values = np.ascontiguousarray(documents.to_numpy(float))
    shares = None if weights is None else np.asarray(weights, dtype=float).tobytes()
    return Ours(
        _bootstrapped(values.tobytes(), values.shape[0], shares),
        role,
        _manifests(results, kind, role),
        text.other,
        length,
        documents,
        weights,
        same_documents=text.same_documents,
        same_weights=role.model.kind == "hub",
    )


@lru_cache(maxsize=4096)
def _bootstrapped(values: bytes, seeds: int, weights: bytes | None) -> Estimate:
    """Perplexity with its bootstrap interval, once for all cells that one measurement stands beside."""
    nll = np.frombuffer(values).reshape(seeds, -1)
    return geometric_mean_perplexity(nll, None if weights is None else np.frombuffer(weights))


def _manifests(results: Results, kind: str, role: Role) -> tuple[str, ...]:
    return tuple(f"evaluations/{kind}/{name}.manifest.json" for name in results.members(role.model.arm))


def _passkey(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    """Under the official prompt or by the strict test, which is not the same, whichever `_passkey_kind` says."""
    assert role is not None
    kind = _passkey_kind(results, reference, cell.artifact)
    found = hits_by_length(results, kind, role.model.arm)
    grid = None
    if cell.metric == "accuracy":
        assert cell.x is not None
        length = role.length(cell.x)
        if length not in found:
            raise NotMeasured(f"no {kind.replace('_', '-')} trials of {role.model.arm} at {length:,} tokens")
        estimate = accuracy(found[length].to_numpy(float))
    else:
        estimate, length, grid = _passkey_context(cell, role, found)
    reason = because(STRICT if kind == "passkey" else None, grid)
    return Ours(estimate, role, _manifests(results, kind, role), reason, length)


@lru_cache(maxsize=32)
def _passkey_kind(results: Results, reference: Reference, artifact: str) -> str:
    """The one test that a table's or figure's models are shown by: the official prompt if it lacks none that was tried.

    Accuracies of two tests side by side would show the tests' difference as the models'.
    """
    cells = [c for c in reference.of(artifact) if reference.protocols[c.protocol].kind == "passkey_official"]
    roles = [role_of(results, reference.models[name]) for name in {c.model for c in cells}]
    arms = {role.model.arm for role in roles if role is not None}
    strict, official = (arms & arms_with_hits(results, kind) for kind in ("passkey", "passkey_official"))
    return "passkey_official" if strict <= official else "passkey"


PASSKEY_STEP = 8192  # the grid of Table 5, which the multiples of 1/160, 1/140, 1/80 and 1/40 in it give away


def _passkey_context(cell: Cell, role: Role, found: dict[int, pd.DataFrame]) -> tuple[Estimate, int, str | None]:
    """Passkey context in published tokens, or the accuracy in percent over all sizes up to it.

    With our own context in tokens, and why the sizes are not the paper's.
    """
    passed = [length for length, hits in found.items() if hits.to_numpy(float).mean() >= ENOUGH]
    context = max(passed, default=0)
    expected = list(range(PASSKEY_STEP, int(max(found)) + 1, PASSKEY_STEP))
    grid = None if sorted(found) == expected else "other sizes than 8k, 16k, … 128k were tried here"
    if cell.metric == "passkey_context":
        tokens = role.published_length(context)
        estimate = Estimate(tokens, tokens, tokens, len(found), "sizes", "tokens", "largest size with at least 80 %")
        return estimate, context, grid
    if not passed:
        raise NotMeasured(f"{role.model.arm} has no size with at least 80 %")
    tried = pd.concat({n: hits for n, hits in found.items() if n <= context}, axis=1, join="inner")
    return accuracy(tried.to_numpy(float)).map(lambda share: 100 * share, "percent"), context, grid


def benchmark_score(results: Results, reference: Reference, cell: Cell, role: Role | None) -> Ours:
    assert role is not None
    present(results, "benchmarks")
    suite = (results.evaluations.get("benchmarks") or {}).get("suite")
    if suite != "paper":
        raise NotMeasured(f"the suite {suite} is not the paper's four benchmarks")
    metric, error = cell.metric.removesuffix("_stderr"), cell.metric.endswith("_stderr")
    if metric == "mc1":
        raise NotMeasured("the suite has TruthfulQA's mc2 only")
    task = reference.protocols[cell.protocol].task
    found = scores(results, role.model.arm, task, TASK_METRICS.get(metric, metric))
    factor = 100.0 if cell.unit == "percent" else 1.0
    values, errors = (np.array([row[i] for row in found]) for i in (0, 1))
    estimate = reported_score(values, errors, found[0][2], "questions")
    if error:
        value = float(errors.mean())
        estimate = Estimate(value, value, value, estimate.n, estimate.over, "proportion", "lm-eval")
    sources = _manifests(results, "benchmarks", role)
    return Ours(estimate.map(lambda x: factor * x, cell.unit), role, sources, same_weights=role.model.kind == "hub")


MEASURED: dict[str, Callable[[Results, Reference, Cell, Role | None], Ours]] = {
    "perplexity": _perplexity,
    "zero_shot": _zero_shot,
    "dynamic": _dynamic,
    "sliding_window": _sliding_window,
    "passkey_official": _passkey,
    "benchmarks": benchmark_score,
}
