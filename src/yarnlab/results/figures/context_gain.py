"""What extending the context is worth: NLL of every model against cutting the text at L, on the same tokens."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import (
    WIDE,
    curves,
    drop_unbounded,
    interval_tooltip,
    rounded,
    scales,
    window_axis,
    with_bounds,
)
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Results
from yarnlab.results.style import INK, style_of
from yarnlab.results.tables import context as context_table

LINEAR = 0.1  # nats around 0 within which the axis is nearly linear: methods differ by less than this, failures by more
TICKS = sorted(sign * x for x in (0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) for sign in ((1, -1) if x else (1,)))


@figure(
    "Is it worth more than cutting the text?",
    needs=("context",),
    section="context",
    place=10,
    parts="bases",
    alt="Lines of the difference in loss to the base with a window of its original context against the position of the "
    "predicted tokens, one per model with its interval; the horizontal line at 0 is cutting the text.",
    caption="Each point is the mean loss of the same tokens, those from half of the position up to it: with all that "
    "precedes them, minus that of the base with a sliding window of L tokens. The line at 0 is that base, which is "
    "what cutting the text gives without any extension: below it a model is better. Bands are 95 % intervals, paired "
    "by document. The vertical axis is logarithmic away from 0.",
)
def context_gain(results: Results) -> Any:
    frame = context_table.tidy(results)
    if "cut" not in frame:
        raise NotMeasured("the base was not measured with a window of L tokens")
    data = frame[frame["whole"] & frame["cut"].notna()]
    if data["segment_end"].nunique() == 1:
        raise NotMeasured("the text was read to 2L only, a single stretch, which makes no line: the table has it")
    data = with_bounds(data, "cut_low", "cut_high", "+.4f").rename(columns={"label": "model", "segment_end": "end"})
    columns = ["model", "end", "segment_start", "cut", "cut_low", "cut_high", "interval", "n"]
    models = {model.arm: model for model in results.arms().values()}
    arms = data[["arm", "model"]].drop_duplicates()
    styles = [style_of(models[arm], results) for arm in arms["arm"]]
    looks = scales(arms["model"].tolist(), styles)
    base = alt.Chart(rounded(data[columns].to_dict("records")))
    x = window_axis("end", results.original_context).title("predicted tokens: from half of this position up to it")
    signed = "datum.value ? format(datum.value, '+~g') : '0'"
    axis = alt.Axis(values=TICKS, tickCount=len(TICKS), labelExpr=signed, labelOverlap=False)
    scale = alt.Scale(type="symlog", constant=LINEAR)
    y = alt.Y("cut:Q", title="NLL minus that of the base cut at L (nats/token)", scale=scale, axis=axis)
    # A copy of the field, as in `dashed`: the legend's markers would be as pale as the bands.
    apart = alt.Scale(domain=[*looks[0].domain, ""], range=[*looks[0].range, INK])
    band = drop_unbounded(base, "cut_low", "cut_high").mark_area(opacity=0.15).transform_calculate(band="datum.model")
    band = band.encode(
        x=x,
        y=alt.Y("cut_low:Q", scale=scale, axis=axis),
        y2="cut_high:Q",
        fill=alt.Fill("band:N", scale=apart, legend=None),
    )
    tips = [
        "model:N",
        alt.Tooltip("segment_start:Q", title="tokens from", format=","),
        alt.Tooltip("end:Q", title="up to", format=","),
        alt.Tooltip("cut:Q", title="against cutting", format="+.4f"),
        *interval_tooltip(),
    ]
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=INK, strokeWidth=1.4).encode(y="zero:Q")
    return alt.layer(band, zero, *curves(base, "model", looks, x, y, tips)).properties(width=WIDE, height=380)
