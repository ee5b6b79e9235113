"""The map of the library: imports run one way, and what one must hold in mind for a table stays small."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from yarnlab.results.registry import figures, tables
from yarnlab.study.evaluations import KINDS

SOURCE = Path(__file__).resolve().parents[1] / "src" / "yarnlab"
MODULES = {
    ".".join(["yarnlab", *file.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): file
    for file in SOURCE.rglob("*.py")
}
CLOSURE = 20  # modules of ours that a table is made of
FILES = 20  # in one folder


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Names of modules of ours that statements at the head of a module import, not for type checkers only."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yarnlab"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.If):
            yield from imported(node.orelse if "TYPE_CHECKING" in ast.unparse(node.test) else node.body)
        elif isinstance(node, ast.Try | ast.With):
            yield from imported(node.body)


@cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(MODULES[module].read_text(encoding="utf-8")).body))


def closure(module: str) -> set[str]:
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += imports_of(name)
    return found


def test_imports_run_in_no_circle() -> None:
    circles = [module for module in MODULES if any(module in closure(name) for name in imports_of(module))]
    assert circles == []


@pytest.mark.parametrize("name", sorted({t.build.__module__ for t in tables().values()}))
def test_a_table_is_made_of_few_modules(name: str) -> None:
    """All that could be at fault in a cell; the kinds of evaluations are asked for the columns of their files alone."""
    own = {module for module in closure(name) if MODULES[module].stem != "__init__"}
    assert 5 < len(own) <= CLOSURE, sorted(own)


def test_every_module_of_the_rooms_is_registered() -> None:
    """Found by presence: a file beside the others that registers nothing would be a table that nobody sees."""
    used = {t.build.__module__ for t in tables().values()} | {f.draw.__module__ for f in figures().values()}
    rooms = ("yarnlab.results.tables.", "yarnlab.results.figures.")
    assert {module for module in MODULES if module.startswith(rooms)} - used <= {"yarnlab.results.tables.published"}


def test_no_folder_is_a_crowd() -> None:
    """Evaluations, tables and figures are not counted: they are found by presence, so another one moves no file."""
    artefacts = {kind.__module__ for kind in KINDS.values()} | {t.build.__module__ for t in tables().values()}
    artefacts |= {f.draw.__module__ for f in figures().values()}
    files = Counter(file.parent for module, file in MODULES.items() if module not in artefacts)
    crowded = {folder: n for folder, n in files.items() if n > FILES}
    assert crowded == {}
