"""Figures: that each is drawn from its data, in one colour per method, and says so when there is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.synthetic import with_frames, write_study
from yarnlab.analysis import contents, figures
from yarnlab.analysis.figures import FIGURES, specification, write_figure
from yarnlab.analysis.load import Results
from yarnlab.analysis.style import LOOKS
from yarnlab.analysis.tables import TABLES


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


def test_the_workflow_knows_every_table_and_figure() -> None:
    """The light list that the workflow reads names exactly what can be written."""
    assert set(contents.TABLE_NEEDS) == set(TABLES)
    assert set(contents.FIGURE_NEEDS) == set(FIGURES)


def test_specifications_are_valid_json_with_data(specs: dict[str, dict[str, Any]]) -> None:
    """No figure is empty, holds NaN, or points to the network."""
    for name, spec in specs.items():
        text = json.dumps(spec, allow_nan=False)
        assert any(spec["datasets"].values()), name
        assert "http" not in text, name


def test_a_method_has_one_colour_everywhere(specs: dict[str, dict[str, Any]]) -> None:
    """The same name never stands for two colours, and YaRN's is YaRN's in every figure."""
    seen: dict[str, set[str]] = {}
    for spec in specs.values():
        for name, colour in colours(spec).items():
            seen.setdefault(name.removesuffix(" s=16"), set()).add(colour)
    assert seen["YaRN"] == {LOOKS["yarn"].light}
    assert all(len(found) == 1 for found in seen.values())
    assert {"PI", "NTK-aware", "NTK-by-parts", "temperature only"} <= set(seen)


def test_looks_differ_in_black_and_white_too() -> None:
    """Dash and marker together tell methods apart without colour."""
    assert len({(look.dash, look.shape) for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.light for look in LOOKS.values()}) == len({look.dark for look in LOOKS.values()}) == len(LOOKS)


def test_a_changed_number_changes_its_figures_only(results: Results, specs: dict[str, dict[str, Any]]) -> None:
    """Passkey hits appear in the passkey figure and in no other."""
    frame = results.frame("passkey")
    mutant = with_frames(results, passkey=frame.assign(hit=~frame["hit"]))
    changed = {name for name, wanted in FIGURES.items() if specification(mutant, wanted) != specs[name]}
    assert changed == {"passkey"}


def test_figures_are_written_as_page_svg_and_png(study_dir: Path) -> None:
    """The page is self-contained, the SVG is a drawing with marks, the PNG is a PNG."""
    html, svg, png = write_figure(study_dir, "ablation")
    assert 'src="http' not in html.read_text()
    assert svg.read_text().count("<path") > 10
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_figure_without_results_says_not_run(tmp_path: Path) -> None:
    """All three files exist and say why there is nothing to see."""
    study = write_study(tmp_path / "study", skip=("passkey",))
    html, svg, png = write_figure(study, "passkey")
    assert "not run" in html.read_text() and "not run" in svg.read_text()
    assert png.stat().st_size > 500


def test_an_unknown_figure_is_named() -> None:
    """The message lists what there is."""
    with pytest.raises(figures.ResultsError, match="no figure is called 'x'; there are figure_1"):
        figures.figure("x")
