"""The registry of what a study's results are shown as: a module of `tables/` or `figures/` for each.

A module registers its functions by `@table(…)` and `@figure(…)`; an artefact's name is the function's. Nothing else
lists tables, figures or what they need. The Snakefile reads this at every start, so the modules import nothing heavy
(`lazy`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from yarnlab.provenance import project_root
from yarnlab.study.fields import Form

if TYPE_CHECKING:
    from yarnlab.lazy import pd
    from yarnlab.results.display import DisplayTable
    from yarnlab.results.results import Results

PAPER = ("scale-free", "full-scale")  # forms of studies that judge the paper's claims

Build: TypeAlias = "Callable[[Results], tuple[pd.DataFrame, list[DisplayTable]]]"
Tidy: TypeAlias = "Callable[[Results], pd.DataFrame]"
Show: TypeAlias = "Callable[[Results, pd.DataFrame], list[DisplayTable]]"
Draw: TypeAlias = "Callable[[Results], Any]"


@dataclass(frozen=True)
class Artefact:
    """What tables and figures have in common.

    needs: kinds of results that it reads: evaluations, their further tables ('benchmarks.samples'), 'training' (step
    logs), 'manifests'. A study that plans none of the first has no such artefact; the others add to it.
    section, place: where the report shows it: the section's id, and its rank there.
    fold: the words of the folded part that it stands in; '' for what is open.
    caption: what the report says below a figure or above a table.
    of_paper: it shows the paper's printed numbers: made where the study stands for the paper (`claims.published`).
    of_control: it sets models beside their controls: made where the study has some (`control_of` of a model).
    forms: the forms of studies (study/fields.py: Form) that have it; by default all.
    paper_names: its targets by the paper's numbering, such as `table_2`.
    timed: columns, or a point's fields, whose numbers are times or sizes of memory: other ones in every run.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    section: str
    place: int
    fold: str = ""
    caption: str = ""
    of_paper: bool = False
    of_control: bool = False
    forms: tuple[str, ...] = get_args(Form)
    paper_names: tuple[str, ...] = ()
    timed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table(Artefact):
    """A table: `build` gives its tidy form (numbers, written as CSV) and its displayed one (strings).

    per_base: it is about one base; a study with several has its rows for each.
    opened: how many displayed tables the report shows open; the rest is folded.
    """

    build: Build = field(repr=False)
    per_base: bool = False
    opened: int = 1


@dataclass(frozen=True, kw_only=True)
class Figure(Artefact):
    """A figure: `draw` gives an Altair chart in light colours.

    alt: what a reader who cannot see it is told. columns: panels side by side on a wide page, 0 for a single panel.
    margin: pixels that long axis labels take on the left of the first panel.
    parts: what is drawn by itself, one below the other: everything together, each base's tree, or groups of models (a
    curve a model: of several bases too many for one panel). ablation: only the arms of each base's ablation are drawn.
    """

    draw: Draw = field(repr=False)
    alt: str = ""
    columns: int = 0
    margin: int = 0
    parts: Literal["all", "bases", "groups"] = "all"
    ablation: bool = False


Made = TypeVar("Made", Table, Figure)
_TABLES: dict[str, Table] = {}
_FIGURES: dict[str, Figure] = {}


def table(
    title: str, tidy: Tidy, *, needs: Iterable[str], section: str, place: int, **options: Any
) -> Callable[[Show], Show]:
    """Register the decorated function, which displays the rows that `tidy` gives, as the table of its name.

    `options`: further fields of `Table`. A table without rows displays nothing.
    """

    def register(show: Show) -> Show:
        def build(results: Results) -> tuple[pd.DataFrame, list[DisplayTable]]:
            frame = tidy(results)
            return frame, show(results, frame) if len(frame) else []

        build.__module__ = show.__module__  # where the table stands, for whoever asks the registry
        add(Table(show.__name__, title, tuple(needs), section, place, build=build, **options))
        return show

    return register


def add(table: Table) -> None:
    """Register a table that is built in one step. TypeError where another module has one of its name."""
    _only(_TABLES.setdefault(table.name, table).build, table.build, table.name)
    _TABLES[table.name] = table


def figure(title: str, *, needs: Iterable[str], section: str, place: int, **options: Any) -> Callable[[Draw], Draw]:
    """Register the decorated function as the figure of its name; `options` are the further fields of `Figure`."""

    def register(draw: Draw) -> Draw:
        drawn = Figure(draw.__name__, title, tuple(needs), section, place, draw=draw, **options)
        _only(_FIGURES.setdefault(drawn.name, drawn).draw, draw, drawn.name)
        _FIGURES[drawn.name] = drawn
        return draw

    return register


def _only(first: Any, second: Any, name: str) -> None:
    if first.__module__ != second.__module__:
        raise TypeError(f"{name} is registered by {first.__module__} and by {second.__module__}: give one another name")


@cache
def tables() -> dict[str, Table]:
    """Every table by its name."""
    _import_all("yarnlab.results.tables")
    return dict(sorted(_TABLES.items()))


@cache
def figures() -> dict[str, Figure]:
    """Every figure by its name."""
    _import_all("yarnlab.results.figures")
    return dict(sorted(_FIGURES.items()))


def made_of(
    registered: Mapping[str, Made], kinds: Iterable[str], *, form: str, of_paper: bool, of_control: bool
) -> dict[str, Made]:
    """Those of the registered tables or figures that a study of this form has; kinds: its evaluations, and 'training'.

    of_paper: it stands for the paper, and has the paper's own ones whatever it measures. of_control: it has controls.
    """
    present = {*kinds, "manifests"}
    return {
        name: each
        for name, each in registered.items()
        if form in each.forms
        and (of_control or not each.of_control)
        and (of_paper if each.of_paper else each.needs[0].partition(".")[0] in present)
    }


def criteria_file(form: str) -> Path:
    """The claims that a study of this form is judged by, with their criteria."""
    return project_root() / "config" / ("claims.yaml" if form in PAPER else "extension.yaml")


def paper_targets() -> dict[str, str]:
    """What the paper calls its tables and figures → the files that hold ours, relative to the study's folder."""
    found = {name: f"tables/{table.name}.csv" for table in tables().values() for name in table.paper_names}
    return found | {name: f"figures/{figure.name}.svg" for figure in figures().values() for name in figure.paper_names}


def _import_all(package: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
