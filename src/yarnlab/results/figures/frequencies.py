"""Left: the share of each pair's frequency that a method keeps. Right: the wavelengths, beside L and sL."""

from __future__ import annotations

import math
from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.charts import WIDE, curves, method_scales, rounded
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import figure
from yarnlab.results.results import Model, Results
from yarnlab.results.style import METHOD_LABELS, QUIET, method_label
from yarnlab.rope import METHODS, options

# NTK-by-parts comes last: its dashes then lie on YaRN's line, which has the same frequencies.
SHOWN = ("none", "pi", "ntk-aware", "yarn", "ntk-by-parts")
SIZE = {"width": WIDE // 2 - 60, "height": 280}
MARKERS = 16  # markers along a line


@figure(
    "What each method does to RoPE",
    needs=("manifests",),
    section="method",
    place=10,
    columns=2,
    alt="Two panels over the pair index of a head's dimensions, a line a method: the share of the "
    "frequency that is kept, from 1 down to 1/s, and the wavelength in tokens beside the lengths L "
    "and sL.",
    caption="Each pair d of a head’s dimensions turns by h(θ) radians a token. PI divides every frequency by "
    "s; NTK-aware divides the low ones more; NTK-by-parts keeps pairs that turn often within L and "
    "divides those that do not complete a turn. YaRN has the frequencies of NTK-by-parts and sharpens "
    "the attention by the temperature as well.",
)
def frequencies(results: Results) -> Any:
    """Left: the share of each pair's frequency that a method keeps. Right: the wavelengths, beside L and sL.

    The frequencies are those that the models get (`yarnlab.rope`); YaRN's are NTK-by-parts'.
    """
    base, scale, methods = results.base(), _scale(results), _methods(results)
    if base is None:
        raise NotMeasured("this study has no base")
    plain = _inv_freq("none", 1.0, base)
    rows: list[dict[str, Any]] = []
    for method in methods:
        for d, (own, first) in enumerate(zip(_inv_freq(method, scale, base), plain, strict=True)):
            # A pair that does not turn at all has no place on a logarithmic axis.
            drawn = {"kept": own / first, "wavelength": 2 * math.pi / own} if own else {}
            rows.append({"method": method_label(method), "d": d} | drawn)
    context = base.original_context
    halves = [2.0**-k for k in range(round(math.log2(scale)) + 1)]
    tens = [10.0**k for k in range(1, 9) if 10**k <= max(row.get("wavelength", 0.0) for row in rows)]
    fraction = "datum.value < 1 ? '1/' + round(1 / datum.value) : '1'"
    kept = alt.Axis(values=halves, labelExpr=fraction)
    long = alt.Axis(values=tens, format="~s")
    reach = [{"value": context, "text": f"L = {context:,}"}]
    reach.append({"value": scale * context, "text": f"sL = {scale * context:,.0f}"})
    panels = [
        _panel(rows, methods, base, "kept", "frequency kept, h(θ) / θ", kept, []),
        _panel(rows, methods, base, "wavelength", "wavelength 2π / h(θ) (tokens)", long, reach),
    ]
    return alt.concat(*panels, columns=2, spacing=24)


def _methods(results: Results) -> list[str]:
    """SHOWN, and the study's own methods whose frequencies are the same at every length."""
    own = dict.fromkeys(model.method for model in results.models.values() if model.method not in METHOD_LABELS)
    # A method with options is left out: what a model has for them is not known here.
    own_known = [method for method in own if method in METHODS and not options(method)]
    return [*SHOWN, *(method for method in own_known if not METHODS[method].dynamic)]


def _panel(
    rows: list[dict[str, Any]], methods: list[str], base: Model, column: str, title: str, axis: Any, marks: list[Any]
) -> Any:
    step = max(1, base.head_dim // 2 // MARKERS)
    x = alt.X(
        "d:Q",
        title=f"pair index d (D = {base.head_dim}, b = {base.rope_theta:,.0f})",
        axis=alt.Axis(format="d", tickMinStep=1, tickCount=6),
        scale=alt.Scale(nice=False),
    )
    y = alt.Y(f"{column}:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=axis)
    tips = ["method:N", alt.Tooltip("d:Q", title="pair"), alt.Tooltip(f"{column}:Q", format=",.4~g")]
    chart, marked = alt.Chart(rounded(rows)), f"datum.d % {step} == 0"
    layers = curves(chart, "method", method_scales(methods), x, y, tips, marked=marked, size=34)
    if not marks:
        return alt.layer(*layers).properties(**SIZE)
    reach = alt.Chart(rounded(marks))
    rules = reach.mark_rule(color=QUIET, strokeDash=[4, 4]).encode(y="value:Q")
    words = reach.mark_text(align="right", baseline="bottom", dx=-4, dy=-3, color=QUIET)
    words = words.encode(x=alt.value("width"), y="value:Q", text="text:N")
    return alt.layer(rules, *layers, words).properties(**SIZE)


def _scale(results: Results) -> float:
    """The ablation's scale; without an ablation the largest that the study has."""
    first = results.extended()
    scale = first.scale if first else max((m.scale for m in results.models.values()), default=1.0)
    if scale <= 1:
        raise NotMeasured("no model of this study has a scale above 1")
    return scale


def _inv_freq(method: str, scale: float, base: Model) -> list[float]:
    found: list[float] = base.head.make_rope(method, scale).inv_freq().double().tolist()
    return found
