"""One name, colour, dash and marker per method, the same in every table and figure.

Colours are a colour-blind-safe set (after Okabe and Ito), darkened for white paper; each has a lighter twin
for dark pages. Lines differ in dash and marker too, so that figures survive black-and-white printing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from yarnlab.lazy import pd
from yarnlab.results.bases import tree_of
from yarnlab.results.results import Model, Results

METHOD_LABELS = {
    "none": "RoPE",
    "pi": "PI",
    "ntk-aware": "NTK-aware",
    "ntk-by-parts": "NTK-by-parts",
    "temperature": "temperature only",
    "yarn": "YaRN",
    "dynamic-pi": "Dynamic PI",
    "dynamic-ntk": "Dynamic NTK",
    "dynamic-yarn": "Dynamic YaRN",
}


@dataclass(frozen=True)
class SeriesStyle:
    """Colour on a light and on a dark page, dash pattern in pixels, Vega marker shape."""

    light: str
    dark: str
    dash: tuple[int, ...]
    shape: str


STYLES = {
    "yarn": SeriesStyle("#c7430b", "#ff8b52", (1, 0), "circle"),
    "ntk-by-parts": SeriesStyle("#0b62a8", "#6cb4f5", (6, 2), "square"),
    "ntk-aware": SeriesStyle("#007a58", "#3ccfa0", (2, 2), "triangle-up"),
    "pi": SeriesStyle("#a0438a", "#e79bd3", (8, 2, 2, 2), "diamond"),
    "temperature": SeriesStyle("#946c00", "#e6c34a", (3, 3), "triangle-down"),
    "none": SeriesStyle("#68707c", "#a7afbd", (1, 2), "triangle-left"),
    "base": SeriesStyle("#14181f", "#f1f3f6", (10, 3), "cross"),
    "continued": SeriesStyle("#7a1f4b", "#ffc2a3", (12, 2), "triangle-right"),
    "rotations": SeriesStyle("#3f5f12", "#b5d96b", (4, 1), "stroke"),
    "own": SeriesStyle("#4a3fb0", "#b0a6ff", (7, 1), "wedge"),  # a method that yarnlab does not bring
}

# Dash and marker of further series in a colour that a panel has already; no method has one of these dashes.
_DASHES = ((5, 5), (12, 3, 3, 3), (3, 1), (9, 5), (2, 4), (14, 4, 2, 4), (6, 1, 1, 1), (1, 4))
_SHAPES = ("square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-left", "circle")
SPARE = tuple((_DASHES[i % 8], _SHAPES[i % 7]) for i in range(56))  # 8 and 7 have no common divisor: no pair twice

# Chart furniture that the page recolours in dark mode, beside the methods' colours.
INK, QUIET, GRID, PAPER = "#1d2430", "#5b6472", "#e3e6eb", "#ffffff"
PUBLISHED = "#8a929f"  # the paper's own curves, behind ours
DARK = {INK: "#e8ebf0", QUIET: "#a3acba", GRID: "#333b48", PAPER: "#151a22", PUBLISHED: "#7f8998"}
DARK |= {style.light: style.dark for style in STYLES.values()}
# Vega-Lite's config of every figure.
CONFIG = {
    "font": "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": QUIET,
        "titleColor": INK,
        "gridColor": GRID,
        "domainColor": QUIET,
        "tickColor": QUIET,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {
        "labelColor": INK,
        "titleColor": QUIET,
        "labelFontSize": 12,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "orient": "bottom",
        "symbolSize": 90,
        "symbolStrokeWidth": 2,
        "labelLimit": 240,
        "columnPadding": 18,
    },
    "header": {
        "labelColor": INK,
        "titleColor": QUIET,
        "labelFontSize": 12,
        "labelFontWeight": 600,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "title": {"color": INK, "fontSize": 13, "anchor": "start"},
    "line": {"strokeWidth": 2},
}


def label(model: Model) -> str:
    """What readers see for a model: 'YaRN s=16', 'base', 'PI s=2, untrained'."""
    if _is_base(model):
        return "base"
    if model.method == "none":
        return "RoPE unchanged"
    text = f"{method_label(model.method)} s={model.scale:g}"
    text += ", untrained" if model.kind == "zero-shot" else ""
    return f"{text}, ramp of Eq. 18" if model.ramp == "rotations" else text


def labels(results: Results) -> dict[str, str]:
    """Label of every arm; arms that would share one carry their own name as well."""
    short = {arm: label(model) for arm, model in results.arms().items()}
    repeated = {text for text in short.values() if list(short.values()).count(text) > 1}
    return {arm: f"{text} ({arm})" if text in repeated else text for arm, text in short.items()}


def style_of(model: Model, results: Results) -> SeriesStyle:
    """The style of a model: its method's; the base, the continued YaRN and the ramp of Eq. 18 have their own."""
    if _is_base(model):
        return STYLES["base"]
    if model.ramp == "rotations":
        return STYLES["rotations"]
    continued = tree_of(results, model.arm).continued()
    if continued is not None and model.arm == continued.arm:
        return STYLES["continued"]
    return method_style(model.method)


def distinct_styles(styles: Sequence[SeriesStyle]) -> list[SeriesStyle]:
    """The styles of one panel's series, no two alike: where one is taken, its colour with a spare dash and marker.

    A style is repeated only after all of SPARE.
    """
    found: list[SeriesStyle] = []
    for item in styles:
        taken = {(style.dash, style.shape) for style in found}
        pairs = [(item.dash, item.shape), *(pair for pair in SPARE if pair[1] != item.shape)]
        dash, shape = next((pair for pair in pairs if pair not in taken), pairs[0])
        found.append(replace(item, dash=dash, shape=shape))
    return found


def _is_base(model: Model) -> bool:
    """Pretrained here or taken as published, its rope unchanged."""
    return model.kind == "pretrain" or (model.kind == "hub" and model.method == "none")


def method_label(method: str) -> str:
    """What readers see for a method: its usual name, or for a method of the user's own the name in the study."""
    return METHOD_LABELS.get(method, method)


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods in a frame's column `method`, in the order of METHOD_LABELS, the user's own after them."""
    found = list(dict.fromkeys(frame["method"]))
    return [method for method in METHOD_LABELS if method in found] + [m for m in found if m not in METHOD_LABELS]


def method_style(method: str) -> SeriesStyle:
    """The style of a method; dynamic methods share that of their static form."""
    return STYLES.get(method.replace("dynamic-ntk", "ntk-aware").removeprefix("dynamic-"), STYLES["own"])
