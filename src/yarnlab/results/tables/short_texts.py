"""NLL of short texts from all over the documents: every model, what it changes against the base, and against its
control, which was trained alike with RoPE unchanged."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import (
    DisplayTable,
    by_length,
    captioned,
    cell,
    delta_cell,
    own_cell,
    signed,
    with_interval,
)
from yarnlab.results.estimates import NotMeasured, gap, over_documents, short_text_nll
from yarnlab.results.registry import table
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import difference, head, named_arms, numbers
from yarnlab.results.statistics import Estimate


def tidy(results: Results) -> pd.DataFrame:
    """One row per model and length; delta: against the base, net: against the control, in nats."""
    frame, base = results.frame("short_texts"), results.base()
    rows: list[dict[str, Any]] = []
    for model, name in named_arms(results):
        for length in sorted(set(frame.loc[frame["arm"] == model.arm, "length"])):
            own = short_text_nll(results, model.arm, length)
            row = head(model, name) | {"length": int(length)} | numbers("nll", over_documents(own))
            if (change := _against(results, own, base, model, length)) is not None:
                row |= difference(change)
            control = results.control(model) if model.kind == "finetune" else None
            if (net := _against(results, own, control, model, length)) is not None:
                row |= net.columns("net")
            rows.append(row)
    return pd.DataFrame(rows)


@table(
    "Short texts",
    tidy,
    needs=("short_texts",),
    section="short-context",
    place=5,
    per_base=True,
    opened=1,
    caption="Whole documents cut into texts of L tokens, one after another, each read by itself: what a model that was "
    "extended makes of texts that the base could read. The arm with RoPE unchanged was trained on the same batches, so "
    "the difference to it is what the method does, without what fine-tuning does.",
)
def short_texts(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """Against the control; against the base; and the NLL themselves."""
    paired_by = captioned("on the same texts of N tokens, in nats a token, paired by document", frame)
    sections = []
    if "net" in frame:
        caption = f"NLL minus that of the arm trained alike with RoPE unchanged, {paired_by} Below 0: better."
        part = frame[frame["net"].notna()]
        sections.append(by_length(results, "short_texts", caption, part, cell(signed, "net")))
    if "delta" in frame:
        caption = f"NLL minus that of the base, {paired_by}"
        sections.append(by_length(results, "short_texts", caption, frame[frame["delta"].notna()], delta_cell))
    caption = captioned("NLL of texts of N tokens in nats a token", frame)
    return [*sections, by_length(results, "short_texts", caption, frame, own_cell(with_interval, "nll"))]


def _against(results: Results, own: pd.DataFrame, other: Model | None, model: Model, length: int) -> Estimate | None:
    """NLL minus another model's on the same texts; None for the same model, for none, and where it has none."""
    if other is None or other.arm == model.arm:
        return None
    try:
        return gap(own, short_text_nll(results, other.arm, length))
    except NotMeasured:
        return None
