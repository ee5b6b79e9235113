"""config/reference: every published number is there once, typed, sourced and consistent with the raw data."""

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from yarnlab.results.published.data import CELL_FILES, Cell, ReferenceDataError, load_reference, reference_folder

REFERENCE = load_reference()
ROOT = Path(__file__).resolve().parents[2]


def test_every_published_number_is_there() -> None:
    """489 cells and 3,061 points, as counted in the paper (v2 and camera-ready) and the official repository."""
    assert {name: len(REFERENCE.of(name)) for name in REFERENCE.artifacts if "able" in name or "lm-eval" in name} == {
        "Table 1": 18, "Table 2": 35, "Table 3": 36, "Table 4": 7, "Table 5": 21, "Table 6": 20,
        "Camera-ready Table 1": 20, "Camera-ready Table 2": 20, "Camera-ready Table 4": 7, "Camera-ready Table 5": 97,
        "lm-eval results": 165,
    }  # fmt: skip
    assert len(REFERENCE.cells) == 489
    assert len(REFERENCE.points) == sum(curve.points for curve in REFERENCE.curves) == 3061
    assert sum(curve.blank for curve in REFERENCE.curves) == REFERENCE.points["value"].isna().sum() == 43


def test_every_cell_has_a_source_and_a_number() -> None:
    """The one cell without a number is the question mark of the camera-ready's Table 4."""
    assert [cell.printed for cell in REFERENCE.cells if cell.value is None] == ["?"]
    for cell in REFERENCE.cells:
        assert re.search(r"arXiv:2309\.00071v[23]|jquesnelle/yarn .*@(995db5b|ebe1e23)", cell.source), cell.cell
        digits = re.fullmatch(r"[\d.]+", cell.printed)
        if digits and cell.unit not in ("tokens", "A100 hours"):
            assert float(cell.printed) == cell.value, cell.cell
        power = re.fullmatch(r">10\^(\d)", cell.printed)
        assert (cell.relation == ">") == bool(power)
        if power:
            assert cell.value == 10.0 ** int(power[1])


def test_ids_are_used_once_and_keys_are_listed() -> None:
    """Cells, curves and all names of models; every model and protocol of a value has its row."""
    names = [name for model in REFERENCE.models.values() for name in model.names]
    for ids in ([cell.cell for cell in REFERENCE.cells], [curve.curve for curve in REFERENCE.curves], names):
        assert len(ids) == len(set(ids)), [name for name in ids if ids.count(name) > 1]
    for row in (*REFERENCE.cells, *REFERENCE.curves):
        assert row.protocol in REFERENCE.protocols and row.model in {"", *REFERENCE.models}, row


def test_raw_numbers_are_printed_as_the_page_has_them() -> None:
    """By the cell's rounding, but for misprints, which say so; digits are counted of rounded values alone."""
    for cell in REFERENCE.cells:
        assert (cell.decimals is None) == (cell.rounding == "exact" or cell.value is None), cell.cell
        if cell.rounding == "misprint":
            assert cell.note and cell.exact is not None, cell.cell
        elif cell.relation == ">" and cell.exact is not None:
            assert cell.value is not None and cell.exact > cell.value, cell.cell
        elif cell.rounding != "exact" and cell.exact is not None:
            low, high = cell.printed_range
            assert low - 1e-6 * (high - low) <= cell.exact <= high + 1e-6 * (high - low), cell.cell


def test_no_point_of_a_curve_is_missing() -> None:
    """As many as the index says, and no others; digitised ones have an error of reading, raw data none."""
    found = REFERENCE.points.groupby("curve")["value"].agg(["size", "count"]).to_dict("index")
    assert found == {c.curve: {"size": c.points, "count": c.points - c.blank} for c in REFERENCE.curves}
    assert not REFERENCE.points["x"].isna().any()
    assert all((curve.rounding == "digitised") == (curve.error is not None) for curve in REFERENCE.curves)
    names = [*csv_rows("curve_*.csv", "curve")]
    assert set(names) == set(found) and len(names) == len(REFERENCE.points)


def csv_rows(pattern: str, column: str) -> Iterator[str]:
    for path in reference_folder().glob(pattern):
        with path.open() as lines:
            yield from (row[column] for row in csv.DictReader(lines))


def test_truncated_cells_and_misprints_are_known() -> None:
    """Found by setting the tables against data/*.csv and data/*.json of the official repository."""
    truncated = {cell.cell for cell in REFERENCE.cells if cell.rounding == "truncated"}
    assert {f"t1.yarn-llama-2-7b-8k.{n}" for n in (2048, 4096, 8192, 10240)} <= truncated
    assert not any("llongma" in name or "t1.ntk" in name for name in truncated)
    misprints = {cell.cell: (cell.value, cell.exact) for cell in REFERENCE.cells if cell.rounding == "misprint"}
    assert misprints == {
        "cr-t5.yarn-llama-7b-32k.8192": (3.30, pytest.approx(3.6046, abs=1e-4)),
        "cr-t2.ntk-llama-7b-32k.mmlu.acc": (27.7, pytest.approx(28.72, abs=1e-2)),
    }
    blind = {c.cell for c in REFERENCE.of("Table 2", "Table 6") if c.relation == ">" and c.exact is None}
    assert blind == {"t2.yarn-llama-2-7b-64k.131072", "t6.mistral-7b-v0.1.131072"}


def test_tables_and_raw_data_are_the_same_numbers() -> None:
    """A cell's exact value is the point of its curve, and a table of the paper the file that it was made from."""
    points = {(c.artifact, c.model): c.curve for c in REFERENCE.curves}
    values = REFERENCE.points.set_index(["curve", "x"])["value"]
    checked = 0
    for cell in REFERENCE.cells:
        figure = {"Table 2": "Figure 1", "Table 1": "Table 1", "Table 6": "Figure 6", "Table 4": "Table 4"}
        if cell.artifact in figure and cell.metric == "perplexity" and cell.exact is not None:
            assert values[points[figure[cell.artifact], cell.model], cell.x] == pytest.approx(cell.exact)
            checked += 1
    assert checked == 77 - 2  # all perplexities of v2's tables but the two that the files end before
    scores = {(c.model, c.protocol, c.metric): c.value for c in REFERENCE.of("lm-eval results")}
    for cell in REFERENCE.of("Table 3", "Camera-ready Table 2"):
        raw = scores.get((cell.model, cell.protocol, cell.metric))
        assert (cell.exact is None) == (raw is None)
        if raw is not None:
            assert cell.exact == pytest.approx(100 * raw)


def test_printed_range() -> None:
    """Half a unit for rounded, a unit upwards for truncated, nothing for exact, everything above for '>'."""
    ranges = {name: REFERENCE.cell(name) for name in ("t1.llongma-2-7b.2048", "t1.yarn-llama-2-7b-8k.2048")}
    assert ranges["t1.llongma-2-7b.2048"].printed_range == pytest.approx((3.915, 3.925))
    assert ranges["t1.yarn-llama-2-7b-8k.2048"].printed_range == pytest.approx((3.91, 3.92))
    assert REFERENCE.cell("t1.yarn-llama-2-7b-8k.tokens").printed_range == (3.5e8, 4.5e8)
    assert REFERENCE.cell("stated.yarn-llama-2-7b-64k.lr").printed_range == (2e-5, 2e-5)
    assert REFERENCE.cell("t2.llama-2-7b-32k.131072").printed_range == (1e4, float("inf"))


@pytest.mark.parametrize("study", ["paper", "released"])
def test_studies_name_published_models(study: str) -> None:
    """Every name under `published:` is one that the paper's tables or the hub have for a model."""
    known = {name for model in REFERENCE.models.values() for name in model.names}
    models = yaml.safe_load((ROOT / f"config/studies/{study}.yaml").read_text())["models"]
    named = {name for model in models.values() if model for name in model.get("published") or ()}
    assert named and named <= known


def test_the_readme_describes_every_file_and_column() -> None:
    """Somebody who uses the CSV files alone finds what each column means."""
    text = (reference_folder() / "README.md").read_text()
    for path in reference_folder().glob("*.csv"):
        assert f"`{path.name}`" in text or path.name.startswith("curve_"), path.name
        with path.open() as lines:
            for column in next(csv.reader(lines)):
                assert f"`{column}`" in text, (path.name, column)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("table_1.csv", ",3.92,3.92,=,", ",3.92,about four,=,", r"table_1\.csv, row 3, value: Input should be a valid number"),
        ("table_1.csv", ",3.92,3.92,=,", ",3.92,3.92,<,", r"table_1\.csv, row 3, relation"),
        ("table_1.csv", "arXiv:2309.00071v2 p.9", "", r"row 2, source"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    """File, row and column."""
    folder = Path(shutil.copytree(reference_folder(), tmp_path / "reference"))
    text = (folder / file).read_text()
    (folder / file).write_text(text.replace(old, new))
    assert old in text
    with pytest.raises(ReferenceDataError, match=message):
        load_reference(folder)


def test_missing_files_and_unknown_ids(tmp_path: Path) -> None:
    """The message says how to get the file back, and where ids are."""
    with pytest.raises(ReferenceDataError, match=r"models\.csv is missing: restore it"):
        load_reference(tmp_path)
    with pytest.raises(ReferenceDataError, match=r"no published cell is called 'x'"):
        REFERENCE.cell("x")


def test_figure_points_carry_their_curve() -> None:
    """What a figure needs beside ours: values, reading error, segment, L of the published model."""
    frame = REFERENCE.figure("Figure 3")
    assert len(frame) == 80 and set(frame["error"]) == {0.3} and set(frame["original_context"]) == {2048}
    assert sorted(frame["segment_start"].unique()) == [2048 * i for i in range(8)]
    one = REFERENCE.figure("Figure 1")
    assert len(one) == 448 and set(one["error"]) == {0.0} and one["label"].nunique() == 7


def test_files_hold_what_they_are_called() -> None:
    """A table's file has that table's cells and no others."""
    for name, artifact in CELL_FILES.items():
        with (reference_folder() / f"{name}.csv").open() as lines:
            found = {row["artifact"] for row in csv.DictReader(lines)}
        assert found == {artifact} if artifact else not any("able" in each for each in found)
    assert set(Cell.model_fields) == set(csv.DictReader((reference_folder() / "table_1.csv").open()).fieldnames or ())
