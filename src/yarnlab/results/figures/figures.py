"""The study's figures: Altair charts as a self-contained page, SVG and PNG, and embedded in the report."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarnlab.lazy import alt
from yarnlab.results.bases import groups, roots
from yarnlab.results.contents import FIGURE_NEEDS
from yarnlab.results.display import manifests_of
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.figures import (
    plots,
    plots_base,
    plots_published,
    plots_rope,
    plots_sweep,
    plots_temperature,
    plots_training,
)
from yarnlab.results.output import vega, write
from yarnlab.results.results import Results, ResultsError, load
from yarnlab.results.style import CONFIG, GRID, INK, PAPER, QUIET


@dataclass(frozen=True)
class Figure:
    """A figure: what it reads, what a reader who cannot see it is told, and how it is drawn."""

    name: str
    title: str
    alt: str
    needs: tuple[str, ...]
    build: Callable[[Results], Any] = field(repr=False)
    columns: int = 0  # panels side by side on a wide page; 0 for a single panel
    margin: int = 0  # pixels that long axis labels take on the left of the first panel

    def parts(self, results: Results) -> Mapping[str, Results]:
        """What is drawn by itself, by name: each base's tree, the groups of models, or everything."""
        if self.name in OF_ONE_BASE:
            return roots(results)
        return groups(results) if self.name in OF_MODELS else {"": results}


OF_MODELS = ("figure_1", "figure_1_relative", "bucket_nll")  # a curve a model: of several bases too many for one panel
OF_ONE_BASE = ("ablation", "training_loss", "zero_shot", "temperature_sweep", "temperature_curve",
               "temperature_segments", "temperature_histogram", "temperature_documents", "temperature_fit", "ramp",
               "entropy", "dynamic", "dynamic_relative")  # fmt: skip
OF_ABLATION = ("ablation", "training_loss")  # of these, the arms of each base's ablation alone are drawn


def _figure(name: str, title: str, alt: str, columns: int = 0, margin: int = 0, drawn_by: Any = plots) -> Figure:
    return Figure(name, title, alt, FIGURE_NEEDS.get(name, ()), getattr(drawn_by, name), columns, margin)


DRAWN = {
    "figure_1": _figure(
        "figure_1",
        "Perplexity by context window",
        "Lines of perplexity against context window, one per model, both axes logarithmic; vertical rules "
        "mark the windows that models were trained on.",
    ),
    "figure_1_relative": _figure(
        "figure_1_relative",
        "Shape of the paper’s Figure 1",
        "Lines of perplexity divided by its value at the original context, against the context window in units of the "
        "original context, both axes logarithmic; this study's models in colour over the paper's in grey.",
        drawn_by=plots_published,
    ),
    "frequencies": _figure(
        "frequencies",
        "What each method does to RoPE",
        "Two panels over the pair index of a head's dimensions, a line a method: the share of the frequency that is "
        "kept, from 1 down to 1/s, and the wavelength in tokens beside the lengths L and sL.",
        columns=2,
        drawn_by=plots_rope,
    ),
    "bucket_nll": _figure(
        "bucket_nll",
        "Loss by position in the window",
        "Lines of mean negative log-likelihood of the tokens in each stretch of the window, one per model.",
    ),
    "ablation": _figure(
        "ablation",
        "Gap to YaRN at equal budget",
        "Bars of the difference in ln perplexity to YaRN per arm, with 95 % intervals, a panel a length.",
        columns=4,
        margin=120,
    ),
    "training_loss": _figure(
        "training_loss",
        "Training loss of the arms",
        "Two panels over training steps: smoothed loss of every arm, and its paired gap to YaRN.",
        columns=2,
        drawn_by=plots_training,
    ),
    "passkey": _figure(
        "passkey",
        "Passkey retrieval by length and depth",
        "Heat maps of passkey accuracy by prompt length and depth of the key, one panel per model.",
        columns=4,
    ),
    "zero_shot": _figure(
        "zero_shot",
        "Extension without fine-tuning",
        "Lines of perplexity against context window, one per method, one panel per scale.",
        columns=3,
    ),
    "benchmarks": _figure(
        "benchmarks",
        "Short tasks",
        "Bars of the share of right answers per model with 95 % intervals, one panel per task.",
        columns=4,
        margin=120,
        drawn_by=plots_base,
    ),
    "temperature_sweep": _figure(
        "temperature_sweep",
        "The temperature sweep at one scale",
        "Three panels over √(1/t), ours in colour and the paper's in grey: perplexity over its lowest value, relative "
        "change of perplexity in the first and last segment, and shares of the best factor.",
        columns=3,
        drawn_by=plots_sweep,
    ),
    "temperature_curve": _figure(
        "temperature_curve",
        "Perplexity by temperature",
        "Lines of mean perplexity against √(1/t) with bands of one standard deviation, one panel per scale; a dashed "
        "vertical marks the formula's value.",
        columns=3,
        drawn_by=plots_temperature,
    ),
    "temperature_segments": _figure(
        "temperature_segments",
        "Effect of the temperature by position",
        "Lines of the relative change of perplexity against √(1/t), one per segment of the text, one panel per scale.",
        columns=3,
        drawn_by=plots_temperature,
    ),
    "temperature_histogram": _figure(
        "temperature_histogram",
        "Best temperature of each part of each document",
        "Stacked bars of how many documents' segments have their lowest loss at each √(1/t), one panel per scale.",
        columns=3,
        drawn_by=plots_temperature,
    ),
    "temperature_documents": _figure(
        "temperature_documents",
        "Best temperature of each document",
        "Bars of how many documents have the lowest loss of their whole text at each √(1/t), one panel per scale.",
        columns=3,
        drawn_by=plots_temperature,
    ),
    "temperature_fit": _figure(
        "temperature_fit",
        "Best temperature by scale",
        "Points of the best √(1/t) with 95 % intervals against the scale, with the line fitted through them and the "
        "paper's formula.",
        drawn_by=plots_temperature,
    ),
    "ramp": _figure(
        "ramp",
        "Shapes of the ramp",
        "Bars of the difference in ln perplexity to the official ramp per variant, one panel per scale.",
        columns=3,
        margin=120,
        drawn_by=plots_base,
    ),
    "entropy": _figure(
        "entropy",
        "Entropy of the attention by scale",
        "Lines of mean attention entropy against the scale, one per method; a horizontal rule marks the base.",
        drawn_by=plots_base,
    ),
    "dynamic": _figure(
        "dynamic",
        "Dynamic scaling without fine-tuning",
        "Lines of perplexity against length, one per method; left for the end of the text, right for all of it.",
        columns=2,
        drawn_by=plots_base,
    ),
    "dynamic_relative": _figure(
        "dynamic_relative",
        "Shape of the paper’s Figure 5",
        "Lines of perplexity of the end of the text divided by its value at the original context, against the length "
        "in units of the original context; this study's methods in colour over the paper's in grey.",
        drawn_by=plots_published,
    ),
    "cost": _figure(
        "cost",
        "Wall time by stage",
        "Horizontal bars of wall time in minutes by stage, divided into its jobs.",
        drawn_by=plots_training,
    ),
}
FIGURES = {name: DRAWN[name] for name in FIGURE_NEEDS}


def figure(name: str) -> Figure:
    """The figure called `name`; ResultsError lists the names when there is none."""
    if name not in FIGURES:
        raise ResultsError(f"no figure is called {name!r}; there are {', '.join(FIGURES)}")
    return FIGURES[name]


def specification(results: Results, wanted: Figure) -> dict[str, Any]:
    """The Vega-Lite specification, in light colours; NotMeasured when there is nothing to draw."""
    reason = results.missing(wanted.needs)
    if reason is not None:
        raise NotMeasured(reason)
    # Every part was checked against Vega-Lite's schema when it was made; the whole need not be once more.
    spec: dict[str, Any] = _drawn(results, wanted).to_dict(validate=False)
    spec.pop("$schema", None)
    spec["background"] = PAPER
    spec["description"] = wanted.alt
    spec["config"] = CONFIG
    options = {"actions": False, "renderer": "svg"}
    spec["usermeta"] = {"columns": wanted.columns, "margin": wanted.margin, "embedOptions": options}
    return spec


def _drawn(results: Results, wanted: Figure) -> Any:
    """The chart; of several parts one below the other under their names, without those that have nothing to draw."""
    parts = wanted.parts(results)
    if len(parts) == 1:
        return wanted.build(results)
    charts, absent = [], []
    for name, part in parts.items():
        if part.missing(wanted.needs) is None:
            try:
                charts.append(wanted.build(part).properties(title=name))
            except NotMeasured as reason:
                absent.append(reason)
    if not charts:
        raise absent[0]
    if len(charts) == 1:
        return charts[0]
    below = alt.vconcat(*charts, spacing=36)
    return below.resolve_scale(color="independent", shape="independent", strokeDash="independent")


def sources(results: Results, wanted: Figure) -> list[str]:
    """Manifests of the results that a figure is drawn from, relative to the study's folder.

    Empty for a figure of the manifests themselves.
    """
    compared = [model.arm for tree in roots(results).values() for model in tree.ablation()]
    shown = compared if wanted.name in OF_ABLATION else list(results.arms())
    kinds = {need: set(results.frame(need)["arm"]) for need in wanted.needs if need in results.frames}
    found = [(kind, arm) for kind, measured in kinds.items() for arm in shown if arm in measured]
    return [path for kind, arm in found for path in manifests_of(results, kind, arm)]


def write_figure(study_dir: Path, name: str) -> list[Path]:
    """Write figures/<name>.{html,svg,png}. Where there is nothing to draw the files say 'not run'."""
    import vl_convert

    wanted, results = figure(name), load(study_dir)
    base = Path(study_dir) / "figures"
    try:
        spec = specification(results, wanted)
    except NotMeasured as absent:
        svg = _notice(f"{wanted.title}: not run", str(absent))
        png = vl_convert.svg_to_png(svg)
        head = f'<html lang="en"><meta charset="utf-8"><title>{wanted.title}</title>'
        page = f"<!doctype html>{head}{svg}</html>\n"
    else:
        text = json.dumps(spec)
        svg = vl_convert.vegalite_to_svg(text)
        png = vl_convert.svg_to_png(svg, scale=2)
        page = _LOADED.sub(lambda _: f"<script>{vega(base)}</script>", vl_convert.vegalite_to_html(text), count=1)
    files: dict[str, str | bytes] = {"html": page, "svg": svg, "png": png}
    return [write(base / f"{name}.{suffix}", data) for suffix, data in files.items()]


def _notice(title: str, reason: str) -> str:
    from xml.sax.saxutils import escape

    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="720" height="90" font-family="Arial, sans-serif">'
        f'<rect width="720" height="90" fill="{PAPER}" stroke="{GRID}"/>'
        f'<text x="20" y="38" font-size="16" fill="{INK}">{escape(title)}</text>'
        f'<text x="20" y="64" font-size="13" fill="{QUIET}">{escape(reason)}</text></svg>'
    )


_LOADED = re.compile(r'(?:\s*<script src="[^"]+"></script>)+')  # what a page would fetch from the network
