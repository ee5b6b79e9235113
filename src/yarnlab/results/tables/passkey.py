"""Passkey accuracy of every arm by prompt length: over all depths, then by tenth of the depth.

Over all depths also, as evaluation/passkey.py defines them: expected, the mean expected accuracy; margin, the
median margin in nats, with the interval of its bootstrap over trials.
"""

from __future__ import annotations

from functools import lru_cache

from yarnlab.lazy import np, pd
from yarnlab.results.bases import tree_of
from yarnlab.results.display import (
    INTERVAL,
    DisplayTable,
    by_length,
    cell,
    count,
    extended_of,
    mark_note,
    own_cell,
    percent,
    percent_points,
    same_base,
    signed,
    tested,
)
from yarnlab.results.estimates import NotMeasured, accuracy_of, fillers, paired_hits, retrieval, split
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.rows import head, named_arms, numbers, with_base, with_holm
from yarnlab.results.statistics import Array, mcnemar, paired_difference_of_proportions, resampled, share


@lru_cache(maxsize=4)
def tidy(results: Results) -> pd.DataFrame:
    frame = results.frame("passkey")
    expected, margins = (split(frame, ["arm", "length"], "trial", name) for name in ("expected_accuracy", "margin"))
    tenth = np.minimum((frame["depth"].to_numpy(float) * 10).astype(int), 9)
    tables = split(frame.assign(tenth=tenth), ["arm", "length", "tenth"], ["filler", "trial"], "hit")
    rows = []
    for model, name in named_arms(results):
        for length in sorted({n for arm, n, _ in tables if arm == model.arm}):
            overall = retrieval(results, model.arm, [int(length)])
            row = head(model, name) | {"length": int(length)}
            whole = row | {"depth_low": 0.0, "depth_high": 1.0} | numbers("accuracy", overall)
            whole |= share(expected[model.arm, length].to_numpy()).columns("expected")
            by_trial = margins[model.arm, length].to_numpy().T
            rows.append(whole | resampled(by_trial, _median, unit="nats", over="trials").columns("margin"))
            for k in range(10):
                part = tables.get((model.arm, length, k))
                if part is not None and part.size:
                    depth = {"depth_low": k / 10, "depth_high": (k + 1) / 10}
                    rows.append(row | depth | numbers("accuracy", accuracy_of(part)))
    return with_base(results, pd.DataFrame(rows))


def _median(margins: Array) -> Array:
    """(resamples, trials, seeds) -> (resamples,)."""
    return np.asarray(np.median(margins, axis=(1, 2)))


@table("Passkey retrieval", tidy, needs=("passkey",), section="passkey", place=20)
def passkey(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Accuracy over all depths, arms by prompt length; then what is continuous where that is 0 or 1."""
    overall = frame[(frame["depth_low"] == 0) & (frame["depth_high"] == 1)]
    caption = f"Passkey accuracy at prompts of N tokens, n = {count(overall)} a cell. {INTERVAL} (Wilson)."
    sections = [by_length(results, "passkey", caption, overall, own_cell(percent, "accuracy"))]
    caption = "Expected accuracy at prompts of N tokens: the probability that sampling as the released checkpoints do "
    caption += f"gives the key and no digit more, mean over n = {count(overall)} a cell. {INTERVAL} (bootstrap)."
    sections.append(by_length(results, "passkey", caption, overall, cell(percent, "expected")))
    caption = "Margin at prompts of N tokens: by how many nats the key's least certain token leads its best rival, "
    caption += f"median over n = {count(overall)} a cell (below 0: at least half of the keys are missed). {INTERVAL} "
    caption += "(bootstrap)."
    sections.append(by_length(results, "passkey", caption, overall, cell(signed, "margin")))
    return sections


@lru_cache(maxsize=4)
def compared(results: Results) -> pd.DataFrame:
    """Every other arm's passkey accuracy minus that of YaRN from the same base on the same prompts, by length.

    p: of `test`, McNemar's exact one for one seed; p_holm: corrected over all comparisons of the table.
    """
    frame, rows = results.frame("passkey"), []
    for model, name in named_arms(results):
        first = tree_of(results, model.arm).extended()
        if first is None or model.arm == first.arm:
            continue
        for length in sorted(frame.loc[frame["arm"] == model.arm, "length"].unique()):
            try:
                own, reference = paired_hits(results, model.arm, first.arm, [int(length)])
            except NotMeasured:
                continue
            both, same = (own.to_numpy(), reference.to_numpy()), fillers(own)
            row = head(model, name) | {"length": int(length)}
            row |= numbers("delta", paired_difference_of_proportions(*both, groups=same))
            rows.append(row | mcnemar(*both, groups=same).columns())
    return with_base(results, with_holm(pd.DataFrame(rows)))


@table(
    "Passkey retrieval beside YaRN's",
    compared,
    needs=("passkey",),
    section="passkey",
    place=30,
    fold="Every model beside YaRN, on the same prompts",
)
def passkey_comparison(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Differences to YaRN, arms by prompt length."""
    against = " or ".join(extended_of(results, frame["arm"]))
    caption = f"Passkey accuracy minus that of {against} on the same prompts, in percentage points (below 0: that is "
    caption += f"better), n = {count(frame)} a cell. {INTERVAL} (Newcombe, paired). "
    caption += mark_note(frame, " or ".join(frame["test"].unique())) + same_base(frame)
    return [by_length(results, "passkey", caption, frame, tested(own_cell(percent_points, "delta")))]
