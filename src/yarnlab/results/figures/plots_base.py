"""How ramp, entropy, dynamic scaling and the short tasks are drawn."""

from __future__ import annotations

from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured, group, reported
from yarnlab.results.figures.marks import (
    WIDE,
    bounded,
    colour_scale,
    dashed,
    decades,
    key,
    legend,
    log_scale,
    panels_of,
    powers,
    rounded,
    scales,
    sure,
    tokens,
    tooltip,
    with_bounds,
)
from yarnlab.results.results import Results
from yarnlab.results.style import INK, LOOKS, QUIET, labels, look, method_label, method_look, methods_of
from yarnlab.results.tables import tidy_dynamic, tidy_mechanism, tidy_protocols


def ramp(results: Results) -> Any:
    """Gap of every variant to the official ramp at the longest length of each scale, a scale a panel."""
    frame = tidy_mechanism.ramp(results)
    if "delta" not in frame:
        raise NotMeasured("the ramp evaluation has nothing to compare with its official variant")
    frame = frame[frame["length"] == frame.groupby("scale")["length"].transform("max")].dropna(subset=["delta"])
    frame = frame.assign(
        panel=[
            f"s = {s:g}, N = {windows(n, results.original_context)}"
            for s, n in zip(frame["scale"].tolist(), frame["length"].tolist(), strict=True)
        ]
    )
    frame = with_bounds(frame, "delta_low", "delta_high", "+.3f")
    data = rounded(frame[["variant", "panel", "delta", "delta_low", "delta_high", "interval", "n"]].to_dict("records"))
    base = alt.Chart(data).encode(y=alt.Y("variant:N", sort=list(frame["variant"].unique()), title=None))
    bars = base.mark_bar(height={"band": 0.62}, color=LOOKS["ntk-by-parts"].light).encode(
        x=alt.X("delta:Q", title="Δ ln perplexity to the official ramp", axis=alt.Axis(tickCount=4)),
        tooltip=["variant:N", alt.Tooltip("delta:Q", title="gap", format="+.3f"), *sure()],
    )
    ticks = bounded(base, "delta_low", "delta_high").mark_rule(strokeWidth=1.6, color=INK)
    ticks = ticks.encode(x="delta_low:Q", x2="delta_high:Q")
    zero = base.mark_rule(color=QUIET).encode(x=alt.datum(0))
    panels = panels_of(list(dict.fromkeys(frame.sort_values("scale")["panel"])))
    return alt.layer(bars, ticks, zero).properties(width=WIDE // 3 - 45, height=150).facet(panels, columns=3)


def entropy(results: Results) -> Any:
    """Mean attention entropy by scale, a method a line; the rule is the unchanged base."""
    frame = tidy_mechanism.entropy(results)
    reference = frame[(frame["method"] == "none") & (frame["scale"] == 1)]
    curves = frame[frame["method"] != "none"]
    if curves.empty:
        raise NotMeasured("the entropy was measured on the unchanged base only")
    shown = methods_of(curves)
    curves = curves.assign(method=curves["method"].map(method_label))
    colour, dash, shape = scales([method_label(m) for m in shown], [method_look(m) for m in shown])
    x = alt.X(
        "scale:Q",
        title="scale s",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=sorted(curves["scale"].unique().tolist()), format="~g"),
    )
    y = alt.Y("entropy:Q", title="mean entropy of the attention (nats)", scale=alt.Scale(zero=False))
    columns = ["method", "scale", "entropy", "low", "high", "interval", "n"]
    base = alt.Chart(rounded(with_bounds(curves)[columns].to_dict("records")))
    common = {"x": x, "y": y, "color": legend("method:N", colour)}
    lines = dashed(base.mark_line().encode(**common), "method", dash)
    whiskers = bounded(base).mark_rule().encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=legend("method:N", colour))
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        shape=alt.Shape("method:N", scale=shape, legend=key()),
        tooltip=[
            "method:N",
            alt.Tooltip("scale:Q", title="s"),
            alt.Tooltip("entropy:Q", format=".4g"),
            *sure(),
        ],
        **common,
    )
    layers = [whiskers, lines, points]
    if not reference.empty:
        marks = alt.Chart(rounded([{"entropy": reference["entropy"].iloc[0], "text": "base, plain RoPE"}]))
        layers.append(marks.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(y="entropy:Q"))
        layers.append(
            marks.mark_text(align="left", baseline="top", dx=4, dy=4, color=QUIET).encode(
                x=alt.value(0), y="entropy:Q", text="text:N"
            )
        )
    return alt.layer(*layers).properties(width=WIDE, height=300)


def dynamic(results: Results) -> Any:
    """Perplexity by length, a method a line: the tail alone (as the paper's Fig. 5) and the whole length."""
    frame = tidy_dynamic.dynamic(results)
    titles = {
        "tail": f"last {results.evaluations['dynamic']['tail']} tokens of N",
        "whole length": "all N tokens",
    }
    methods = methods_of(frame)
    data = with_bounds(frame)[["method", "length", "perplexity", "interval", "n"]].copy()
    data["panel"] = frame["measure"].map(titles)
    data["method"] = data["method"].map(method_label)
    data["window"] = results.original_context
    colour, dash, shape = scales([method_label(m) for m in methods], [method_look(m) for m in methods])
    base = alt.Chart(rounded(data.to_dict("records")))
    common = {
        "x": alt.X(
            "length:Q",
            title="context window N (tokens)",
            scale=alt.Scale(type="log", base=2, nice=False),
            axis=tokens(values=powers(results.original_context)),
        ),
        "y": alt.Y("perplexity:Q", scale=log_scale(data["perplexity"]), title="perplexity", axis=decades()),
        "color": legend("method:N", colour),
    }
    lines = dashed(base.mark_line(clip=True).encode(**common), "method", dash)
    points = base.mark_point(filled=True, size=34, opacity=1, clip=True).encode(
        shape=alt.Shape("method:N", scale=shape, legend=key()), tooltip=tooltip("method"), **common
    )
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="max(window):Q")
    chart = alt.layer(rule, lines, points).properties(width=WIDE // 2 - 50, height=260)
    return chart.facet(panels_of(list(titles.values())), columns=2).resolve_axis(x="independent")


def benchmarks(results: Results) -> Any:
    """Share of right answers, a model a bar, a task a panel (the metric that is reported for it)."""
    frame = tidy_protocols.benchmarks(results)
    kept = [
        task == "mean" or (metric == reported(task) and group(task) == task)
        for task, metric in zip(frame["task"].tolist(), frame["metric"].tolist(), strict=True)
    ]
    frame = frame[pd.Series(kept, index=frame.index, dtype=bool)]
    frame = frame.assign(
        panel=["mean of the tasks" if r.task == "mean" else f"{r.task}, {r.metric}" for r in frame.itertuples()]
    )
    names = labels(results)
    arms = [model for model in results.arms().values() if model.arm in set(frame["arm"])]
    colour = colour_scale([names[m.arm] for m in arms], [look(m, results) for m in arms])
    columns = ["label", "panel", "accuracy", "low", "high", "interval", "n"]
    base = alt.Chart(rounded(with_bounds(frame, form=".1%")[columns].to_dict("records"))).encode(
        y=alt.Y("label:N", sort=[names[m.arm] for m in arms], title=None)
    )
    bars = base.mark_bar(height={"band": 0.62}).encode(
        x=alt.X("accuracy:Q", title="right answers", axis=alt.Axis(format="%", tickCount=3, labelOverlap=True)),
        color=alt.Color("label:N", scale=colour, legend=None),
        tooltip=[
            alt.Tooltip("label:N", title="model"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            *sure(),
        ],
    )
    ticks = bounded(base).mark_rule(strokeWidth=1.6, color=INK).encode(x="low:Q", x2="high:Q")
    order = sorted(frame["panel"].unique(), key=lambda panel: panel != "mean of the tasks")
    return alt.layer(bars, ticks).properties(width=WIDE // 4 - 45, height=150).facet(panels_of(order), columns=4)
