"""The paper's printed numbers, from config/reference/*.csv: the only place they come from.

`load_reference()` reads and checks everything. A published value is a `Cell` of a table or of the text, or a `Point` of
a curve; both are a number at an x. Columns are described in config/reference/README.md. An empty field is None (text
columns: the empty string).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from yarnlab.errors import UserError
from yarnlab.lazy import pd
from yarnlab.provenance import project_root

# File -> the artifact of the paper that it holds, in the order of the paper.
CELL_FILES = {f"table_{n}": f"Table {n}" for n in range(1, 7)}
CELL_FILES |= {f"camera_ready_table_{n}": f"Camera-ready Table {n}" for n in (1, 2, 4, 5)}
CELL_FILES |= {"camera_ready_figure_3": "Camera-ready Figure 3", "benchmarks": "lm-eval results"}
CELL_FILES |= {"stated_values": ""}  # sections, equations, abstract and appendices
SMOOTH = 21  # points of the running median around which a curve scatters


class ReferenceDataError(UserError):
    """A file of config/reference is missing or wrong; the message says which line and what to do."""


def _absent(value: Any) -> Any:
    return None if value == "" else value


def _names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(";") if name.strip()) if isinstance(value, str) else value


Number = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_absent)]
Count = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_absent)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Text = Annotated[str, Field(min_length=1)]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Row = TypeVar("Row", bound=_Row)


class PublishedModel(_Row):
    """A model of the paper's tables or figures; lengths in tokens.

    training: 'none' for a base as it was published, 'fine-tuned' for one extended on purpose, 'pre-trained' for one
    whose long context comes from a much longer continued training.
    native_context: the window that the published configuration has before any scaling; `original_context` is the L of
    the paper's s = L'/L.
    constants: 'paper', or what differs from the paper's constants.
    """

    model: Text
    label: Text
    method: Text
    scale: Number
    original_context: int
    native_context: int
    training: Literal["none", "fine-tuned", "pre-trained"]
    trained_length: Count
    trained_tokens: Count
    trained_steps: Count
    pretraining_tokens: Count
    constants: Text
    trained_by: Literal["authors", "others"]
    aliases: Names
    source: Text
    note: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the paper, its tables or the hub have for it."""
        return (self.model, *self.aliases)


class Protocol(_Row):
    """How a published number was measured. kind: the evaluation that measures it here, or where it comes from.

    selection: 'first' for the first `documents` of at least `min_tokens`, 'unknown' where it was not published which;
    empty where no documents are read.
    """

    protocol: Text
    kind: Text
    title: Text
    datasets: Names
    min_tokens: Count
    documents: Count
    selection: Literal["first", "unknown", ""]
    window: Count
    stride: Count
    task: str
    metric: str
    description: Text


class _Published(_Row):
    """What is said of every published value, of a cell or of a whole curve."""

    artifact: Text
    version: Literal["v2", "camera-ready", "repository"]
    model: str
    method: str
    scale: Number
    protocol: Text
    metric: Text
    unit: Text
    source: Text
    note: str


class Cell(_Published):
    """One number of a table or of the text.

    value: as printed; `relation` '>' for entries such as '>10^2'. None where the table has a question mark.
    decimals: digits after the point, negative for thousands and millions; the half unit follows from it.
    rounding: 'truncated' where the printed digits are cut, 'misprint' where the raw data contradict them, 'exact' where
        the number is not rounded at all.
    exact: the same number in the authors' raw data, in the cell's unit.
    n: documents, trials or questions behind it.
    """

    cell: Text
    x: Number
    x_name: str
    printed: Text
    value: Number
    relation: Literal["=", ">"]
    decimals: Annotated[int | None, BeforeValidator(_absent)]
    rounding: Literal["rounded", "truncated", "exact", "misprint"]
    exact: Number
    n: Count
    exact_source: str

    @property
    def target(self) -> float | None:
        """The number to compare with: the exact one where there is one."""
        return self.value if self.exact is None or self.relation == ">" else self.exact

    @property
    def printed_range(self) -> tuple[float, float]:
        """The numbers that would be printed like this one, (low, high)."""
        if self.value is None:
            return math.nan, math.nan
        if self.relation == ">":
            return self.value, math.inf
        if self.decimals is None:
            return self.value, self.value
        unit = 10.0**-self.decimals
        if self.rounding == "truncated":
            return self.value, self.value + unit
        return self.value - unit / 2, self.value + unit / 2

    @property
    def range(self) -> tuple[float, float]:
        """What the published number can have been: the exact value, or all that print like it."""
        if self.exact is not None and self.relation == "=":
            return self.exact, self.exact
        return self.printed_range


class Curve(_Published):
    """One line of a published figure, or one file of results; its points are in `<file>.csv`.

    segment_start, segment_end: the tokens that the line is about, where it is about a part of the documents.
    error: half width in the curve's unit with which a digitised point was read off.
    blank: points that the authors' file has without a value.
    """

    curve: Text
    file: Text
    model: Text
    method: Text
    x_unit: Text
    segment_start: Count
    segment_end: Count
    rounding: Literal["exact", "digitised"]
    error: Number
    points: int
    blank: int


class Point(Curve):
    """One point of a curve, with all that is said of the curve.

    target: its value, NaN where the authors' file has none. scatter: twice the standard deviation of the curve's values
    around their running median, in its unit: what a loss differs by from one batch to the next.
    """

    x: float
    target: float
    scatter: float
    relation: ClassVar[Literal["="]] = "="

    @property
    def range(self) -> tuple[float, float]:
        """What the published number can have been: its value, or all that the picture can be read as."""
        error = self.error or 0.0
        return self.target - error, self.target + error


@dataclass(frozen=True, eq=False)
class Reference:
    """Everything published, as read-only rows. `points`: one row a point, with what its curve says.

    Columns of `points`: curve, x, value (NaN where the file is blank), label and original_context of the model, and the
    fields of `Curve`; `error` is 0 for raw data.
    """

    models: dict[str, PublishedModel]
    protocols: dict[str, Protocol]
    cells: tuple[Cell, ...]
    curves: tuple[Curve, ...]
    points: pd.DataFrame = field(repr=False)

    def cell(self, name: str) -> Cell:
        """The cell with this id; ReferenceDataError when there is none."""
        found = next((cell for cell in self.cells if cell.cell == name), None)
        if found is None:
            raise ReferenceDataError(f"no published cell is called {name!r}; the ids are in config/reference/*.csv")
        return found

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Tables, figures and sections that have cells, in the order of the files."""
        return tuple(dict.fromkeys(cell.artifact for cell in self.cells))

    def of(self, *artifacts: str) -> tuple[Cell, ...]:
        """The cells of these tables, figures or sections, in the paper's order."""
        return tuple(cell for cell in self.cells if cell.artifact in artifacts)

    def model_of(self, value: Cell | Point) -> PublishedModel | None:
        """The published model of a value; None for values that belong to none."""
        return self.models[value.model] if value.model else None

    def kind_of(self, value: Cell | Curve) -> str:
        """The evaluation that measures a value here, or where else it comes from."""
        return self.protocols[value.protocol].kind

    def figure(self, *artifacts: str) -> pd.DataFrame:
        """The rows of `points` of these figures."""
        return self.points[self.points["artifact"].isin(artifacts)].reset_index(drop=True)

    def points_of(self, curve: Curve) -> list[Point]:
        """The points of a curve, in the order of its file."""
        rows = self.points[self.points["curve"] == curve.curve]
        values = rows.sort_values("x")["value"]
        scatter = 2 * float((values - values.rolling(SMOOTH, center=True, min_periods=1).median()).std())
        shared = dict(curve) | {"scatter": scatter}
        pairs = zip(rows["x"].tolist(), rows["value"].tolist(), strict=True)
        return [Point.model_construct(**shared, x=x, target=value) for x, value in pairs]


def reference_folder() -> Path:
    """config/reference of this checkout."""
    return project_root() / "config" / "reference"


@lru_cache(maxsize=4)
def load_reference(folder: Path | None = None) -> Reference:
    """Read and check config/reference (or `folder`).

    Raises ReferenceDataError naming file and line for a missing file or an ill-formed row. That ids are used once, that
    models and protocols are listed, and that no point is missing, is tested of the files (tests/results/).
    """
    folder = folder or reference_folder()
    models = {row.model: row for row in _rows(folder / "models.csv", PublishedModel)}
    protocols = {row.protocol: row for row in _rows(folder / "protocols.csv", Protocol)}
    cells = tuple(cell for name in CELL_FILES for cell in _rows(folder / f"{name}.csv", Cell))
    curves = tuple(_rows(folder / "curves.csv", Curve))
    about = pd.DataFrame([dict(curve) for curve in curves])
    about = about.assign(
        error=about["error"].fillna(0.0).astype(float),
        label=[models[curve.model].label for curve in curves],
        original_context=[models[curve.model].original_context for curve in curves],
    )
    files = [_present(folder / f"{name}.csv") for name in dict.fromkeys(curve.file for curve in curves)]
    rows = [pd.read_csv(file, dtype={"curve": str, "x": float, "value": float}) for file in files]
    points = pd.concat(rows, ignore_index=True)[["curve", "x", "value"]]
    points = points.merge(about, on="curve", how="inner", validate="many_to_one")
    return Reference(models, protocols, cells, curves, points)


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    rows = []
    with _present(path).open(encoding="utf-8", newline="") as lines:
        for number, entry in enumerate(csv.DictReader(lines), 2):
            try:
                rows.append(kind.model_validate(entry))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"]) or "row"
                raise ReferenceDataError(f"{path}, row {number}, {place}: {first['msg']}") from error
    return rows


def _present(path: Path) -> Path:
    if not path.is_file():
        raise ReferenceDataError(f"{path} is missing: restore it with `git checkout -- config/reference`")
    return path
