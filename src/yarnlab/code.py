"""Which code a result depends on, as one short key per stage: the sources without comments and docstrings.

Editing a comment reruns nothing; editing code reruns the stages that import it, directly or through others.
Training is the exception: its key is a VERSION bumped by hand, since a refactoring must not cost a training run.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "yarnlab"
SOURCE = Path(__file__).resolve().parent

# Stage -> the module that runs it (evaluations: the one of that name). What it imports from yarnlab counts too.
ENTRY = {
    "tokenizer": "corpus.tokenizer",
    "corpus": "corpus.build",
    "table": "analysis.tables",
    "figure": "analysis.figures",
    "claims": "analysis.claims",
    "report": "report.render",
}
# Code that every stage passes through but no result depends on.
NEUTRAL = {"progress", "provenance", "tracking", "code", "study.check", "study.load", "study.evaluations"}
# Stage -> the module whose VERSION is its key.
VERSIONED = {"train": "training.version", "asset": "hub.version"}


def code_key(stage: str) -> str:
    """The key of a stage's code: `v<N>` for versioned stages, else 12 hex digits of a sha256."""
    if stage in VERSIONED:
        return f"v{_version(VERSIONED[stage])}"
    digest = hashlib.sha256()
    for module in sorted(_closure(*_entries(stage))):
        digest.update(module.encode() + b"\0" + _stripped(module))
        for template in _templates(module):
            digest.update(template.name.encode() + b"\0" + template.read_bytes())
    return digest.hexdigest()[:12]


def _version(module: str) -> int:
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "VERSION":
            return int(ast.literal_eval(node.value))
    raise ValueError(f"{PACKAGE}.{module} has no VERSION")


def _entries(stage: str) -> tuple[str, ...]:
    return (ENTRY[stage],) if stage in ENTRY else (f"evaluation.{stage}", "stages.evaluate")


def _closure(*entries: str) -> set[str]:
    found, todo = set(), [*entries]
    while todo:
        module = todo.pop()
        if module in found or module in NEUTRAL:
            continue
        found.add(module)
        todo.extend(_imports(module))
    return found


@cache
def _imports(module: str) -> tuple[str, ...]:
    return tuple(_imported(module))


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            base = node.module.removeprefix(PACKAGE).lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                if _file(inner) is not None:
                    yield inner
                elif base:
                    yield base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{PACKAGE}."):
                    yield alias.name.removeprefix(f"{PACKAGE}.")


def _file(module: str) -> Path | None:
    path = SOURCE.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _tree(module: str) -> ast.Module:
    file = _file(module)
    if file is None:
        raise ValueError(f"there is no module {PACKAGE}.{module}")
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _stripped(module: str) -> bytes:
    """The module's syntax tree without docstrings (comments are not in a tree to begin with)."""
    tree = _tree(module)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or not body:
            continue
        first = body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:]
    return ast.dump(tree).encode()


def _templates(module: str) -> list[Path]:
    file = _file(module)
    folder = file.parent / "templates" if file is not None else None
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder is not None and folder.is_dir() else []
