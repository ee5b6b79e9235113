"""Our curves over the paper's, where absolute perplexities of different models and texts cannot be compared.

Lengths are in units of the original context L and perplexities relative to the same curve's at L, so a curve's shape
is what is compared. The paper's curves are grey with open markers and have a legend of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yarnlab.lazy import alt, np, pd
from yarnlab.results.charts import WIDE, dashed, legend_key, log_axis, rounded, scales
from yarnlab.results.published.counterpart import counterpart_of
from yarnlab.results.published.data import load_reference
from yarnlab.results.results import Results
from yarnlab.results.style import PUBLISHED, QUIET, SPARE, method_label, method_style

TOP = 12.0  # where a curve that explodes leaves the picture, in units of its value at L
MULTIPLE = "datum.value == 1 ? 'L' : datum.value < 1 ? 'L/' + 1 / datum.value : datum.value + 'L'"
FIRST = 0.25  # of L: where the curves of dynamic scaling begin
NEAR = 0.05  # a published curve's point counts as its value at L within this relative distance


def in_tokens(results: Results) -> list[dict[str, Any]]:
    """The published perplexity curves of the models that this study's models stand for, lengths in tokens.

    Empty where the study has analogues only: their perplexities are of other models on other text.
    """
    reference = load_reference()
    frame = reference.figure("Figure 1", "Figure 6", "Camera-ready Figure 3").dropna(subset=["value"])
    rows: list[dict[str, Any]] = []
    for name, curve in frame[frame["metric"] == "perplexity"].groupby("model", sort=False):
        ours = counterpart_of(results, reference.models[str(name)])
        if ours is not None and ours.analogue is None:
            about = {"published": str(curve["label"].iloc[0]), "method": str(curve["method"].iloc[0])}
            rows += [
                about | {"N": int(x), "perplexity": value} for x, value in zip(curve["x"], curve["value"], strict=True)
            ]
    return rows


def background(rows: list[dict[str, Any]], x: Any, y: Any, tips: list[Any]) -> Any:
    """Grey lines with open markers, and the legend of the paper's; rows have published, method and marked."""
    paper = alt.Chart(rounded(rows))
    names = list(dict.fromkeys(row["published"] for row in rows))
    theirs = {row["published"]: method_style(row["method"]) for row in rows}
    dashes, shapes = _distinct([theirs[name].shape for name in names])
    legend = alt.Legend(
        title="the paper’s", orient="top", columns=4, symbolStrokeWidth=1.4, symbolFillColor="transparent"
    )
    open_marks = alt.Shape("published:N", scale=alt.Scale(domain=names, range=shapes), legend=legend)
    tips = [alt.Tooltip("published:N", title="the paper’s"), *tips]
    points = paper.transform_filter(alt.datum.marked).mark_point(clip=True, size=45, color=PUBLISHED, strokeWidth=1.4)
    lines = paper.mark_line(clip=True, strokeWidth=1.2, color=PUBLISHED).encode(x=x, y=y, detail="published:N")
    return alt.layer(
        dashed(lines, "published", alt.Scale(domain=names, range=dashes)),
        points.encode(x=x, y=y, shape=open_marks, tooltip=tips),
    )


def relative(frame: pd.DataFrame, by: str) -> list[dict[str, Any]]:
    """Published points from FIRST·L on in units of L, relative to the point nearest to L."""
    rows: list[dict[str, Any]] = []
    for _, curve in frame.dropna(subset=["value"]).groupby("curve", sort=False):
        first = curve.iloc[0]
        x = curve["x"].to_numpy(float) / float(first["original_context"])
        at = int(np.abs(x - 1).argmin())
        if abs(x[at] - 1) > NEAR:
            continue
        values = curve["value"].to_numpy(float)
        name = str(first["label"]) if by == "model" else method_label(str(first["method"]))
        for position, value in zip(x, values / values[at], strict=True):
            if position >= FIRST:
                rows.append({"published": name, "method": str(first["method"]), "x": position, "y": value})
    return rows


def overlaid(
    rows: Sequence[Mapping[str, Any]], styles: dict[str, Any], published: list[dict[str, Any]], title: str
) -> Any:
    ends = pd.Series([row["x"] for row in [*rows, *published]])
    ticks = [2.0**k for k in range(-2, 8) if ends.min() <= 2.0**k <= ends.max()]
    ours = alt.Chart(rounded(_marked(rows, "model", ticks)))
    lowest = min(row["y"] for row in [*rows, *published])
    highest = min(TOP, max(row["y"] for row in [*rows, *published]))
    x = alt.X(
        "x:Q",
        title="context window N in units of the original context L",
        scale=alt.Scale(type="log", base=2, nice=False, domain=[float(ends.min()), float(ends.max())]),
        axis=alt.Axis(values=ticks, labelExpr=MULTIPLE, labelOverlap=True),
    )
    y = alt.Y(
        "y:Q", title=title, axis=log_axis(), scale=alt.Scale(type="log", nice=False, domain=[lowest / 1.05, highest])
    )
    colour, dash, shape = scales(list(styles), list(styles.values()))
    hue = alt.Color("model:N", scale=colour, legend=_own_key())
    foreground = alt.layer(
        dashed(ours.mark_line(clip=True).encode(x=x, y=y, color=hue), "model", dash),
        ours.transform_filter(alt.datum.marked)
        .mark_point(clip=True, filled=True, size=55, opacity=1)
        .encode(
            x=x,
            y=y,
            color=hue,
            shape=alt.Shape("model:N", scale=shape, legend=_own_key()),
            tooltip=[alt.Tooltip("model:N", title="ours"), *_tips(), alt.Tooltip("n:Q", title="n")],
        ),
    )
    rule = alt.Chart(alt.Data(values=[{"y": 1}])).mark_rule(color=QUIET, strokeDash=[4, 4]).encode(y="y:Q")
    chart = alt.layer(
        rule, background(_marked(published, "published", ticks), x, y, _tips()), foreground
    ).resolve_scale(shape="independent", color="independent", strokeDash="independent")
    return chart.properties(width=WIDE, height=360)


def _marked(rows: Sequence[Mapping[str, Any]], who: str, ticks: list[float]) -> list[dict[str, Any]]:
    """The rows, each curve's nearest point to every tick marked."""
    out = [{**row, "marked": False} for row in rows]
    for name in dict.fromkeys(row[who] for row in out):
        own = [row for row in out if row[who] == name]
        for tick in ticks:
            nearest = min(own, key=lambda row: abs(row["x"] - tick))
            nearest["marked"] |= abs(nearest["x"] / tick - 1) <= NEAR
    return out


def _own_key() -> Any:
    legend = legend_key()
    legend.title = "ours"
    return legend


def _tips() -> list[Any]:
    return [alt.Tooltip("x:Q", title="N/L", format=".3~g"), alt.Tooltip("y:Q", title="relative", format=".3f")]


def _distinct(shapes: list[str]) -> tuple[list[list[int]], list[str]]:
    """A dash and a marker for each line of one colour, from its method's marker.

    Where that is taken it is another one, as long as there are any; then the line is dashed.
    """
    spare = ["cross", "square", "triangle-down", "triangle-left", "triangle-right", "diamond", "triangle-up", "circle"]
    dashes: list[list[int]] = []
    out: list[str] = []
    for shape in shapes:
        free = (s for s in spare if s not in out and s not in shapes)
        found = shape if shape not in out else next(free, shape)
        dashes.append([1, 0] if found not in out else list(SPARE[out.count(found) - 1][0]))
        out.append(found)
    return dashes, out
