"""Figures: that each is drawn from its data, in one colour per method, and says so when there is none."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import pytest
import vl_convert
from altair.utils import schemapi

from results.light import light
from results.synthetic import with_frames, write_study
from yarnlab.results.analyse import figure_named, specification, write_figure
from yarnlab.results.charts import bounds
from yarnlab.results.estimates import loss_gap, nll
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.overlay import background, in_tokens
from yarnlab.results.registry import figures, tables
from yarnlab.results.results import Results, ResultsError, load
from yarnlab.results.statistics import mean
from yarnlab.results.style import PUBLISHED, SPARE, STYLES, distinct_styles

FIGURES = figures()
COMMAND = "envs/run snakemake"
TABLES = tables()


@pytest.fixture(scope="module")
def results(results: Results) -> Iterator[Results]:
    """The session's study under few resamples: no test here reads the bounds of an interval."""
    with light(checked=True):
        yield replace(results)  # another identity: what was cached for other tests has all resamples


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Altair's check of every part, which the specifications of the module have passed."""
    monkeypatch.setattr(schemapi, "DEBUG_MODE", False)


@pytest.fixture(scope="module")
def specs(results: Results) -> dict[str, dict[str, Any]]:
    return {name: specification(results, wanted) for name, wanted in FIGURES.items()}


def colours(node: Any) -> dict[str, str]:
    """Every name -> colour of the colour scales in a specification."""
    found: dict[str, str] = {}
    if isinstance(node, list):
        for child in node:
            found |= colours(child)
    elif isinstance(node, dict):
        scale = (node.get("color") or {}).get("scale") if isinstance(node.get("color"), dict) else None
        if scale and "range" in scale:
            found |= dict(zip(scale["domain"], scale["range"], strict=True))
        for child in node.values():
            found |= colours(child)
    return found


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Every row of a specification's data."""
    return [row for rows in spec["datasets"].values() for row in rows]


def test_the_workflow_reads_the_registry_without_pandas() -> None:
    """It is read at every start of Snakemake."""
    heavy = "pandas", "numpy", "altair", "scipy", "jinja2", "vl_convert", "torch"
    code = "import sys; from yarnlab.results.registry import figures, tables; assert tables() and figures(); "
    subprocess.run([sys.executable, "-c", f"{code} assert not set({heavy!r}) & set(sys.modules)"], check=True)


def test_specifications_are_valid_json_with_data(specs: dict[str, dict[str, Any]]) -> None:
    """No figure is empty, holds NaN, or points to the network; Vega-Lite's compiler takes every one."""
    for name, spec in specs.items():
        assert vl_convert.vegalite_to_vega(spec)["marks"], name
        text = json.dumps(spec, allow_nan=False)
        assert any(spec["datasets"].values()), name
        assert "http" not in text, name


def test_a_method_has_one_colour_everywhere(specs: dict[str, dict[str, Any]]) -> None:
    """The same name never stands for two colours, and YaRN's is YaRN's in every figure."""
    seen: dict[str, set[str]] = {}
    for spec in specs.values():
        for name, colour in colours(spec).items():
            seen.setdefault(name.removesuffix(" s=16"), set()).add(colour)
    assert seen["YaRN"] == {STYLES["yarn"].light}
    assert all(len(found) == 1 for found in seen.values())
    assert {"PI", "NTK-aware", "NTK-by-parts", "temperature only"} <= set(seen)


def test_looks_differ_in_black_and_white_too() -> None:
    """Dash and marker together tell methods apart without colour."""
    assert len({(style.dash, style.shape) for style in STYLES.values()}) == len(STYLES)
    assert (
        len({style.light for style in STYLES.values()}) == len({style.dark for style in STYLES.values()}) == len(STYLES)
    )


def drawn_as(node: Any) -> dict[str, dict[str, set[str]]]:
    """Channel → series → how the scales of a panel draw it."""
    found: dict[str, dict[str, set[str]]] = {"color": {}, "strokeDash": {}, "shape": {}}
    nodes = [node]
    while nodes:
        part = nodes.pop()
        nodes += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        for channel in found if isinstance(part, dict) else ():
            scale = part[channel].get("scale") or {} if isinstance(part.get(channel), dict) else {}
            for name, value in zip(scale.get("domain", ()), scale.get("range", ()), strict=True):
                found[channel].setdefault(name, set()).add(json.dumps(value))
    return found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name", ["figure_1", "figure_1_relative", "bucket_nll", "training_loss", "zero_shot", "dynamic"]
)
def test_no_two_series_of_a_panel_look_alike(results: Results, name: str) -> None:
    """Colour and dash tell any two lines apart, colour and marker too, in a study with YaRN at three scales."""
    models, again = dict(results.models), {}
    for scale in (2.0, 4.0):
        arm = f"yarn-s{scale:g}"
        models[arm] = replace(models["yarn-s16"], name=arm, arm=arm, scale=scale)
    for kind in ("perplexity", "training"):
        frame = results.frame(kind)
        own = frame[frame["arm"] == "yarn-s16"]
        again[kind] = pd.concat([frame, *(own.assign(arm=arm, model=arm) for arm in ("yarn-s2", "yarn-s4"))])
    found = drawn_as(specification(replace(with_frames(results, **again), models=models), FIGURES[name]))
    for channel in ("strokeDash", "shape"):
        styles = [(found["color"][who], found[channel][who]) for who in found["color"] if who in found[channel]]
        assert all(a != b for a, b in combinations(styles, 2))
    assert name in ("training_loss", "zero_shot", "dynamic") or {"YaRN s=2", "YaRN s=16"} <= set(found["color"])


def test_a_look_is_not_given_twice() -> None:
    """Of forty series of one method no two share dash and marker, all share its colour, and the first has its own look."""
    styles = distinct_styles([STYLES["yarn"], STYLES["pi"], *[STYLES["yarn"]] * 40])
    assert styles[:2] == [STYLES["yarn"], STYLES["pi"]] and {item.light for item in styles[2:]} == {
        STYLES["yarn"].light
    }
    assert len({(item.dash, item.shape) for item in styles}) == len(styles)
    assert len({item.dash for item in styles[:9]}) == 9  # where only lines are drawn
    assert not {dash for dash, _ in SPARE} & {item.dash for item in STYLES.values()}


def tooltip_fields(node: Any) -> set[str]:
    """The quantitative fields of all tooltips of a specification."""
    if isinstance(node, list):
        return {name for child in node for name in tooltip_fields(child)}
    if not isinstance(node, dict):
        return set()
    tips = node.get("tooltip") if isinstance(node.get("tooltip"), list) else []
    own = {tip["field"] for tip in tips if tip.get("type") == "quantitative"}
    return own.union(*(tooltip_fields(child) for child in node.values()))


def test_an_absent_bound_is_never_shown_as_a_number(specs: dict[str, dict[str, Any]]) -> None:
    """Vega shows null as 0: no tooltip has a bound as a number, but for the passkey's, which always has both."""
    for name, spec in specs.items():
        fields = tooltip_fields(spec)
        assert name == "passkey" or not {field for field in fields if field.endswith(("low", "high"))}, name


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["figure_1", "zero_shot", "dynamic", "temperature_segments", "entropy"])
def test_one_document_has_no_interval(results: Results, name: str) -> None:
    """The tooltip says 'none', and no rule is drawn to a bound that is not there."""
    kind = {"figure_1": "perplexity", "temperature_segments": "temperature"}.get(name, name)
    frame = results.frame(kind)
    one = with_frames(results, **{kind: frame[frame["document"] == frame["document"].iloc[0]]})
    spec = specification(one, FIGURES[name])
    assert {row["interval"] for row in rows_of(spec) if "interval" in row} == {"none"}
    assert name != "entropy" or "isValid(datum.low) && isValid(datum.high)" in json.dumps(spec)


def test_a_heat_map_says_how_sure_it_is(specs: dict[str, dict[str, Any]]) -> None:
    """A cell of the passkey figure rests on few trials: its tooltip shows the interval, and its rows hold it."""
    spec = specs["passkey"]
    assert {"low", "high", "n"} <= {tip["field"] for tip in spec["spec"]["encoding"]["tooltip"]}
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows_of(spec))


def test_a_heat_map_states_the_trials_of_a_cell(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """On the picture itself, which has no tooltip: 50 trials a length are 5 in a tenth of the depths."""
    assert specs["passkey"]["spec"]["encoding"]["y"]["title"][1] == "5 trials a cell"
    frame = results.frame("passkey")
    fewer = frame[(frame["trial"] != 0) | (frame["length"] != 512)]
    spec = specification(with_frames(results, passkey=fewer), FIGURES["passkey"])
    assert spec["spec"]["encoding"]["y"]["title"][1] == "4 to 5 trials a cell"


def test_every_document_has_one_best_factor(specs: dict[str, dict[str, Any]]) -> None:
    """The bars of whole documents add up to the number of documents at each scale."""
    rows = rows_of(specs["temperature_documents"])
    counts = {panel: sum(r["documents"] for r in rows if r["panel"] == panel) for panel in {r["panel"] for r in rows}}
    assert set(counts) == {f"s = {s}" for s in (2, 4, 8, 16, 32)} and set(counts.values()) == {12}
    assert {r["n"] for r in rows} == {12}


def test_a_curves_marker_says_how_sure_it_is(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """Loss by position: the interval over documents that `mean` gives; of an unbounded one the bound is no number."""
    marked = [row for row in rows_of(specs["bucket_nll"]) if "interval" in row]
    row = next(row for row in marked if (row["model"], row["N"]) == ("YaRN s=16", 4096))
    e = mean(nll(results, "yarn-s16", 4096, "bucket_nll").to_numpy())
    assert row["interval"] == f"{e.low:.3f} to {e.high:.3f}" and len(marked) == 9 * 7
    assert '"field": "interval"' in json.dumps(specs["bucket_nll"])
    assert bounds(1.0718, math.inf) == "1.072 to ∞" and bounds(-0.1, 0.2, "+.1%") == "−10.0% to +20.0%"
    assert bounds(-math.inf, math.inf) == bounds(0.0, math.inf) == bounds(math.nan, 1.0) == "none"


def test_a_smoothed_loss_says_how_sure_it_is(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """Every tenth step has Student's interval of the ten losses whose mean it is."""
    rows = [row for row in rows_of(specs["training_loss"]) if row["model"] == "PI s=16" and "minus" in row["panel"]]
    marked = {row["step"]: row["interval"] for row in rows if "interval" in row}
    assert list(marked) == list(range(10, 101, 10)) and len(rows) == 100
    ten = loss_gap(results, "yarn-s16", "pi-s16").to_numpy()[10:20]
    half = 2.262 * ten.std(ddof=1) / 10**0.5  # Student's 97.5 % quantile with 9 degrees of freedom
    low, high = (float(x) for x in marked[20].split(" to "))
    assert (low, high) == (pytest.approx(ten.mean() - half, abs=2e-4), pytest.approx(ten.mean() + half, abs=2e-4))


def test_the_share_of_a_best_factor_says_how_sure_it_is(specs: dict[str, dict[str, Any]]) -> None:
    """Documents are resampled, not their segments: n is 12 documents, and the paper's shares have no interval."""
    rows = [row for row in rows_of(specs["temperature_sweep"]) if "value" in row and "line" not in row and "who" in row]
    ours = [row for row in rows if row["who"] == "ours"]
    assert ours and sum(row["value"] for row in ours) == pytest.approx(1)
    for row in ours:
        low, high = (float(x) for x in row["interval"].split(" to "))
        assert 0 <= low <= row["value"] + 1e-4 and row["value"] - 1e-4 <= high <= 1 and row["n"] == 12
    assert not any("interval" in row for row in rows if row["who"] != "ours")


@pytest.mark.usefixtures("unchecked")
def test_a_changed_number_changes_its_figures_only(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """Passkey hits appear in the passkey figure and in no other."""
    frame = results.frame("passkey")
    mutant = with_frames(results, passkey=frame.assign(hit=~frame["hit"]))
    changed = {name for name, wanted in FIGURES.items() if specification(mutant, wanted) != specs[name]}
    assert changed == {"passkey"}


@pytest.mark.usefixtures("unchecked")
def test_a_changed_sweep_changes_its_figures_only(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """Losses of the temperature sweep appear in its figures and in no other, the paper's points staying as they are."""
    frame = results.frame("temperature")
    mutant = with_frames(results, temperature=frame.assign(nll=frame["nll"] + 0.01 * frame["factor"] * frame["scale"]))
    wanted = {name for name in FIGURES if name.startswith("temperature_")}
    spec = {name: specification(mutant, FIGURES[name]) for name in wanted | {"frequencies", "entropy"}}
    assert {name for name in spec if spec[name] != specs[name]} == wanted
    theirs = [
        [row for row in rows_of(s["temperature_sweep"]) if row.get("who") == "the paper’s"] for s in (specs, spec)
    ]
    assert theirs[0] == theirs[1] and len(theirs[0]) > 20


def test_the_papers_curves_lie_behind_ours_in_grey(specs: dict[str, dict[str, Any]]) -> None:
    """Every point of the paper's Figure 1 is the authors' divided by their value at L; ours is 1 at L by construction."""
    rows = rows_of(specs["figure_1_relative"])
    ours = {row["model"]: row["y"] for row in rows if "model" in row and row["x"] == 1}
    assert set(ours.values()) == {1.0} and {"base", "YaRN s=16", "YaRN s=32", "PI s=16"} <= set(ours)
    raw = load_reference().figure("Figure 1")
    curve = raw[raw["model"] == "NousResearch/Yarn-Llama-2-7b-64k"].set_index("x")["value"]
    theirs = {row["x"]: row["y"] for row in rows if row.get("published") == "YaRN 7B s=16"}
    assert theirs[16] == pytest.approx(curve[65536] / curve[4096], rel=1e-4)
    assert len({row["published"] for row in rows if "published" in row}) == raw["model"].nunique()
    text = json.dumps(specs["figure_1_relative"])
    assert text.count(PUBLISHED) >= 2 and PUBLISHED not in {style.light for style in STYLES.values()}


def test_an_analogue_is_never_drawn_over_the_paper_in_tokens(results: Results, tmp_path: Path) -> None:
    """Absolute perplexities of other models on other text stay out; those of a model that stands for one come in."""
    assert in_tokens(results) == []
    study = write_study(tmp_path / "study", ablation=False, skip=("training", "passkey", "zero_shot"))
    plan = json.loads((study / "study.json").read_text())
    plan["models"]["yarn-s16"] |= {"published": ["NousResearch/Yarn-Llama-2-7b-64k"], "original_context": 4096}
    (study / "study.json").write_text(json.dumps(plan))
    rows = in_tokens(load(study))
    assert {row["published"] for row in rows} == {"YaRN 7B s=16"}
    assert "YaRN 7B s=16" in json.dumps(specification(load(study), FIGURES["figure_1"]))


def test_more_published_curves_than_shapes_are_drawn(unchecked: None) -> None:
    """A study of the released checkpoints has a dozen in one panel: once all shapes are taken, a line is dashed."""
    rows = [{"published": f"YaRN {i}", "method": "yarn", "N": 1, "perplexity": 1.0, "marked": True} for i in range(12)]
    spec = background(rows, alt.X("N:Q"), alt.Y("perplexity:Q"), []).to_dict()
    scale = spec["layer"][1]["encoding"]["shape"]["scale"]
    assert len(scale["range"]) == len(scale["domain"]) == 12 and len(set(scale["range"][:8])) == 8
    dashes = spec["layer"][0]["encoding"]["strokeDash"]["scale"]["range"][:12]
    assert len({(shape, *dash) for shape, dash in zip(scale["range"], dashes, strict=True)}) == 12


def test_the_picture_of_frequencies_is_what_the_models_get(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """PI divides all by s; NTK-aware keeps the first and divides the last; YaRN's are NTK-by-parts' (paper §3)."""
    rows = [row for row in rows_of(specs["frequencies"]) if "method" in row]
    kept = {(row["method"], row["d"]): row["kept"] for row in rows}
    last = max(row["d"] for row in rows)
    assert {kept["PI", d] for d in range(last + 1)} == {1 / 16}
    assert {kept["RoPE", d] for d in range(last + 1)} == {1}
    assert kept["NTK-aware", 0] == 1 and kept["NTK-aware", last] == pytest.approx(1 / 16, rel=1e-4)
    assert all(kept["YaRN", d] == kept["NTK-by-parts", d] for d in range(last + 1))
    assert kept["YaRN", 0] == 1 and kept["YaRN", last] == 1 / 16


def test_the_head_is_the_models_own(results: Results) -> None:
    """The axis names D and b of the base as study.json has them, and there is a point for each of its D/2 pairs."""
    base = replace(results.models["base"], head_dim=32, rope_theta=500_000.0)
    spec = specification(replace(results, models=results.models | {"base": base}), FIGURES["frequencies"])
    assert "pair index d (D = 32, b = 500,000)" in json.dumps(spec)
    assert {row["d"] for rows in spec["datasets"].values() for row in rows if "d" in row} == set(range(16))


def test_figures_are_written_as_page_svg_and_png(study_dir: Path) -> None:
    """The page is self-contained, the SVG is a drawing with marks, the PNG is a PNG."""
    html, svg, png, _ = write_figure(load(study_dir), FIGURES["ablation"], COMMAND)
    page = html.read_text()
    assert 'src="http' not in page
    assert 0 < page.index("window.vegaEmbed=") < page.index("vegaEmbed('#vega-chart'")
    assert svg.read_text().count("<path") > 10
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_figure_without_results_says_not_run(tmp_path: Path) -> None:
    """All three files exist and say why there is nothing to see."""
    study = write_study(tmp_path / "study", skip=("passkey",))
    html, svg, png, _ = write_figure(load(study), FIGURES["passkey"], COMMAND)
    assert "not run" in html.read_text() and "not run" in svg.read_text()
    assert png.stat().st_size > 500


def test_an_unknown_figure_is_named() -> None:
    """The message lists what there is."""
    with pytest.raises(ResultsError, match="no figure is called 'x'; there are ablation, "):
        figure_named("x")
