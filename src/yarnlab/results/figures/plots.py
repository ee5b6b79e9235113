"""How each figure is drawn. Every function takes results and returns an Altair chart in light colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.results.display import windows
from yarnlab.results.estimates import NotMeasured, nll
from yarnlab.results.figures import plots_published
from yarnlab.results.figures.marks import (
    WIDE,
    bounded,
    bounds,
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
from yarnlab.results.results import Model, Results
from yarnlab.results.rows import named_arms
from yarnlab.results.statistics import geometric_mean_perplexity, mean
from yarnlab.results.style import INK, PAPER, QUIET, labels, look, method_label, method_look, methods_of
from yarnlab.results.tables import tidy


def figure_1(results: Results) -> Any:
    """Perplexity of the whole window against its length, over the paper's for models that stand for published ones."""
    rows: list[dict[str, Any]] = []
    marked = powers(results.original_context)
    for model, name in named_arms(results):
        for length in _lengths(results, model):
            table = nll(results, model.arm, length).to_numpy()
            row = {"model": name, "N": length, "n": table.size}
            if length in marked:  # only markers show an interval
                e = geometric_mean_perplexity(table)
                rows.append(row | {"perplexity": e.value, "interval": bounds(e.low, e.high)})
            else:
                rows.append(row | {"perplexity": math.exp(min(table.mean(), 700.0))})
    title = "perplexity (geometric mean over documents)"
    return _curves(results, rounded(rows), "perplexity", title, log=True, published=plots_published.in_tokens(results))


def bucket_nll(results: Results) -> Any:
    """Mean NLL of each stretch of the window, which cumulative perplexity smooths over."""
    rows = []
    marked = powers(results.original_context)
    for model, name in named_arms(results):
        for length in _lengths(results, model):
            table = nll(results, model.arm, length, "bucket_nll").to_numpy()
            row = {"model": name, "N": length, "nll": float(table.mean()), "n": table.size}
            if length in marked:  # only markers show an interval
                e = mean(table)
                row |= {"interval": bounds(e.low, e.high)}
            rows.append(row)
    return _curves(results, rounded(rows), "nll", "mean NLL of the stretch that ends here (nats/token)", log=False)


def ablation(results: Results) -> Any:
    """Gap to YaRN in ln perplexity, an arm a bar, a length a panel."""
    frame = tidy.ablation(results)
    if frame.empty or "delta" not in frame or frame["delta"].isna().all():
        raise NotMeasured("no arm was fine-tuned beside YaRN at the same scale")
    arms = [model for model in results.ablation() if model.method != "yarn"]
    frame = frame[frame["arm"].isin([model.arm for model in arms])].dropna(subset=["delta"])
    frame = with_bounds(frame, "delta_low", "delta_high", "+.3f")
    names = labels(results)
    colour = colour_scale([names[m.arm] for m in arms], [look(m, results) for m in arms])
    frame["panel"] = [f"N = {windows(n, results.original_context)}" for n in frame["length"]]
    columns = ["label", "panel", "length", "delta", "delta_low", "delta_high", "interval", "n"]
    data = rounded(frame[columns].to_dict("records"))
    base = alt.Chart(data).encode(y=alt.Y("label:N", sort=[names[m.arm] for m in arms], title=None))
    tip = [
        alt.Tooltip("label:N", title="arm"),
        alt.Tooltip("length:Q", title="N", format=","),
        alt.Tooltip("delta:Q", title="gap", format="+.3f"),
        *sure(),
    ]
    first = tidy.compared_with(results)
    against = names[first.arm] if first else method_label("yarn")
    x = alt.X("delta:Q", title=["Δ ln perplexity", f"to {against}"], axis=alt.Axis(tickCount=4))
    bars = base.mark_bar(height={"band": 0.62}).encode(
        x=x, color=alt.Color("label:N", scale=colour, legend=None), tooltip=tip
    )
    ticks = bounded(base, "delta_low", "delta_high").mark_rule(strokeWidth=1.6, color=INK)
    ticks = ticks.encode(x="delta_low:Q", x2="delta_high:Q")
    zero = base.mark_rule(color=QUIET).encode(x=alt.datum(0))
    panels = panels_of(list(dict.fromkeys(frame.sort_values("length")["panel"])))
    return alt.layer(bars, ticks, zero).properties(width=WIDE // 4 - 45, height=150).facet(panels, columns=4)


def passkey(results: Results) -> Any:
    """Accuracy by prompt length and tenth of the depth, a model a panel."""
    frame = tidy.passkey(results)
    cells = frame[(frame["depth_high"] - frame["depth_low"]) < 0.5].copy()
    cells["panel"] = cells["label"]
    cells["depth"] = (cells["depth_low"] * 100).round().astype(int)
    fewest, most = int(cells["n"].min()), int(cells["n"].max())
    trials = f"{most} trials a cell" if fewest == most else f"{fewest} to {most} trials a cell"
    data = rounded(cells[["panel", "length", "depth", "accuracy", "low", "high", "n"]].to_dict("records"))
    present = [name for _, name in named_arms(results) if name in set(cells["label"])]
    chart = (
        alt.Chart(data)
        .mark_rect(stroke=PAPER, strokeWidth=1)
        .encode(
            x=alt.X("length:O", title="prompt length N (tokens)", axis=tokens(labelAngle=0)),
            y=alt.Y("depth:O", title=["depth of the key (%),", trials], axis=alt.Axis(values=[0, 20, 40, 60, 80])),
            color=alt.Color(
                "accuracy:Q",
                title="accuracy",
                scale=alt.Scale(scheme="cividis", domain=[0, 1]),
                legend=alt.Legend(format="%", gradientLength=180, direction="horizontal"),
            ),
            tooltip=[
                alt.Tooltip("panel:N", title="model"),
                alt.Tooltip("length:Q", title="N", format=","),
                alt.Tooltip("depth:Q", title="depth from %"),
                alt.Tooltip("accuracy:Q", format=".0%"),
                alt.Tooltip("low:Q", title="95 % from", format=".0%"),
                alt.Tooltip("high:Q", title="to", format=".0%"),
                alt.Tooltip("n:Q", title="trials"),
            ],
        )
    )
    cells_of = chart.properties(width=WIDE // 4 - 40, height=150)
    # With a shared axis the empty cells of the grid's last row would get one too.
    return cells_of.facet(panels_of(present), columns=4).resolve_axis(x="independent")


def zero_shot(results: Results) -> Any:
    """Perplexity against window, a method a line, a scale a panel; the rule marks N = sL."""
    frame = tidy.zero_shot(results)
    methods = methods_of(frame)
    data = with_bounds(frame)[["method", "scale", "length", "perplexity", "interval", "n"]].copy()
    data["target"] = (data["scale"] * results.original_context).astype(int)
    data["panel"] = [f"s = {s:g}" for s in data["scale"]]
    data["method"] = data["method"].map(method_label)
    looks = [method_look(m) for m in methods]
    colour, dash, shape = scales([method_label(m) for m in methods], looks)
    x = alt.X(
        "length:Q",
        title="context window N (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=tokens(values=powers(results.original_context)),
    )
    base = alt.Chart(rounded(data.to_dict("records")))
    enc = {
        "x": x,
        "y": alt.Y("perplexity:Q", scale=log_scale(data["perplexity"]), title="perplexity", axis=decades()),
        "color": legend("method:N", colour),
    }
    lines = dashed(base.mark_line(clip=True).encode(**enc), "method", dash)
    points = base.mark_point(filled=True, size=34, opacity=1).encode(
        shape=alt.Shape("method:N", scale=shape, legend=key()), tooltip=tooltip("method"), **enc
    )
    rule = base.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="max(target):Q")
    panels = panels_of([f"s = {s:g}" for s in sorted(set(data["scale"]))])
    chart = alt.layer(rule, lines, points).properties(width=WIDE // 3 - 45, height=190)
    return chart.facet(panels, columns=3).resolve_axis(x="independent")


def _curves(
    results: Results, data: Any, column: str, title: str, log: bool, published: Sequence[dict[str, Any]] = ()
) -> Any:
    arms = [m for m, name in named_arms(results) if any(row["model"] == name for row in data.values)]
    names = labels(results)
    colour, dash, shape = scales([names[m.arm] for m in arms], [look(m, results) for m in arms])
    x = alt.X(
        "N:Q",
        title="context window N (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=tokens(values=powers(results.original_context)),
    )
    values = pd.Series([row[column] for row in data.values], dtype=float)
    scale = log_scale(values) if log else alt.Scale(zero=False)
    y = alt.Y(f"{column}:Q", title=title, scale=scale, axis=decades() if log else alt.Axis())
    base = alt.Chart(data)
    lines = dashed(base.mark_line(clip=True).encode(x=x, y=y, color=legend("model:N", colour)), "model", dash)
    points = (
        base.mark_point(filled=True, size=55, opacity=1, clip=True)
        .transform_filter(alt.FieldOneOfPredicate(field="N", oneOf=powers(results.original_context)))
        .encode(
            x=x,
            y=y,
            color=legend("model:N", colour),
            shape=alt.Shape("model:N", scale=shape, legend=key()),
            tooltip=tooltip("model", column),
        )
    )
    chart = alt.layer(lines, points)
    if reach := _windows(results):
        marks = alt.Chart(alt.Data(values=reach))
        rules = marks.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(x="N:Q")
        text = marks.mark_text(angle=270, align="right", baseline="bottom", dx=-4, dy=-4, color=QUIET).encode(
            x="N:Q", y=alt.value(0), text="text:N"
        )
        chart = alt.layer(rules, lines, points, text)
    if published:
        behind = [row | {"marked": row["N"] in powers(results.original_context)} for row in published]
        tips = [alt.Tooltip("N:Q", format=","), alt.Tooltip("perplexity:Q", format=".4g")]
        chart = alt.layer(plots_published.background(behind, x, y, tips), chart)
        chart = chart.resolve_scale(shape="independent", color="independent", strokeDash="independent")
    return chart.properties(width=WIDE, height=400)


def _windows(results: Results) -> list[dict[str, Any]]:
    """Windows that models were trained on, each once, with the reason."""
    marks: dict[int, str] = {}
    for model in results.arms().values():
        if model.trained_length is not None:
            what = "pretraining rows" if model.kind == "pretrain" else "fine-tuning rows"
            marks.setdefault(model.trained_length, f"{what}: {windows(model.trained_length, results.original_context)}")
    return [{"N": n, "text": text} for n, text in sorted(marks.items())]


def _lengths(results: Results, model: Model) -> list[int]:
    frame = results.frame("perplexity")
    return sorted(int(n) for n in frame.loc[frame["arm"] == model.arm, "length"].unique())
