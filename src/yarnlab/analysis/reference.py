"""The paper's published numbers, from config/reference/: the only place they come from.

`load_reference()` reads and checks everything; `Reference` finds cells, models and the points of figures.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from yarnlab.analysis.reference_rows import Cell, Curve, Protocol, PublishedModel
from yarnlab.errors import UserError
from yarnlab.provenance import project_root

# File -> the artifact of the paper that it holds, in the order of the paper.
CELL_FILES = {
    "table_1": "Table 1",
    "table_2": "Table 2",
    "table_3": "Table 3",
    "table_4": "Table 4",
    "table_5": "Table 5",
    "table_6": "Table 6",
    "camera_ready_table_1": "Camera-ready Table 1",
    "camera_ready_table_2": "Camera-ready Table 2",
    "camera_ready_table_4": "Camera-ready Table 4",
    "camera_ready_table_5": "Camera-ready Table 5",
    "camera_ready_figure_3": "Camera-ready Figure 3",
    "benchmarks": "lm-eval results",
    "stated_values": "",  # sections, equations, abstract and appendices
}

Row = TypeVar("Row", bound=BaseModel)


class ReferenceDataError(UserError):
    """A file of config/reference is missing or wrong; the message says which line and what to do."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Everything published, as read-only rows. `points`: columns curve, x, value (NaN where the file is blank)."""

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

    def model_of(self, cell: Cell | Curve) -> PublishedModel | None:
        """The published model of a cell; None for values that belong to none."""
        return self.models[cell.model] if cell.model else None

    def figure(self, *artifacts: str) -> pd.DataFrame:
        """The points of these figures with what their curves say, one row a point.

        Columns: curve, x, value, error, artifact, model, label, method, scale, original_context, metric, unit, x_unit,
        segment_start, segment_end, rounding, source, note. `error` is 0 for raw data.
        """
        rows: list[dict[str, Any]] = []
        for curve in self.curves:
            if curve.artifact in artifacts:
                rows.append(curve.model_dump(exclude=set(_NOT_SHOWN)))
        about = pd.DataFrame(rows, columns=[n for n in Curve.model_fields if n not in _NOT_SHOWN])
        about = about.assign(
            error=about["error"].fillna(0.0).astype(float),
            label=[self.models[name].label for name in about["model"]],
            original_context=[self.models[name].original_context for name in about["model"]],
        )
        return self.points.merge(about, on="curve", how="inner", validate="many_to_one")


_NOT_SHOWN = ("file", "version", "points", "blank", "protocol")


def reference_folder() -> Path:
    """config/reference of this checkout."""
    return project_root() / "config" / "reference"


@lru_cache(maxsize=4)
def load_reference(folder: Path | None = None) -> Reference:
    """Read and check config/reference (or `folder`).

    Raises ReferenceDataError naming file and line for a missing file, an ill-formed row, an id used twice, a model or
    protocol that is not listed, a curve whose number of points is not what the index says.
    """
    folder = folder or reference_folder()
    models = {row.model: row for row in _rows(folder / "models.csv", PublishedModel)}
    protocols = {row.protocol: row for row in _rows(folder / "protocols.csv", Protocol)}
    cells = tuple(cell for name in CELL_FILES for cell in _rows(folder / f"{name}.csv", Cell))
    curves = tuple(_rows(folder / "curves.csv", Curve))
    _unique("cell", [cell.cell for cell in cells])
    _unique("curve", [curve.curve for curve in curves])
    _unique("name of a model", [name for model in models.values() for name in model.names])
    for model, protocol in [(row.model, row.protocol) for row in cells] + [(row.model, row.protocol) for row in curves]:
        if protocol not in protocols:
            raise ReferenceDataError(f"{folder}: protocol {protocol!r} is not listed in protocols.csv")
        if model and model not in models:
            raise ReferenceDataError(f"{folder}: model {model!r} is not listed in models.csv")
    return Reference(models, protocols, cells, curves, _points(folder, curves))


def _rows(path: Path, kind: type[Row]) -> list[Row]:
    if not path.is_file():
        raise ReferenceDataError(f"{path} is missing: restore it with `git checkout -- config/reference`")
    rows = []
    with path.open(encoding="utf-8", newline="") as lines:
        for number, entry in enumerate(csv.DictReader(lines), 2):
            try:
                rows.append(kind.model_validate(entry))
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"]) or "row"
                raise ReferenceDataError(f"{path}, row {number}, {place}: {first['msg']}") from error
    return rows


def _unique(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ReferenceDataError(f"config/reference: {what} {repeated[0]!r} is used twice")


def _points(folder: Path, curves: tuple[Curve, ...]) -> pd.DataFrame:
    frames = []
    for name in dict.fromkeys(curve.file for curve in curves):
        path = folder / f"{name}.csv"
        if not path.is_file():
            raise ReferenceDataError(f"{path} is missing: restore it with `git checkout -- config/reference`")
        try:
            frame = pd.read_csv(path, dtype={"curve": str, "x": float, "value": float})[["curve", "x", "value"]]
        except (ValueError, KeyError) as error:
            raise ReferenceDataError(f"{path}: {error}") from error
        if frame[["curve", "x"]].isna().any(axis=None):
            raise ReferenceDataError(f"{path} has a point without curve or x")
        frames.append(frame)
    points = pd.concat(frames, ignore_index=True)
    found = points.groupby("curve")["value"].agg(["size", "count"]).to_dict("index")
    for curve in curves:
        if found.pop(curve.curve, None) != {"size": curve.points, "count": curve.points - curve.blank}:
            raise ReferenceDataError(
                f"{folder}: curve {curve.curve!r} should have {curve.points} points, {curve.blank} of them blank"
            )
    if found:
        raise ReferenceDataError(f"{folder}: curve {next(iter(found))!r} is not listed in curves.csv")
    return points
