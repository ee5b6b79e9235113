"""Which code a result depends on, as one short key per stage: the sources without comments and docstrings.

Editing a comment reruns nothing; editing code reruns the stages that import it, directly or through others.
Training is the exception: its key is a VERSION bumped by hand, since a refactoring must not cost a training run.

Every start of Snakemake asks for all keys, on a cluster two more in each job. What is read out of a source is therefore
kept beside the interpreter's own bytecode, under the hash of the source's bytes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "yarnlab"
SOURCE = Path(__file__).resolve().parent

# Stage -> the module that runs it (evaluations: the one of that name). What it imports from yarnlab counts too.
ENTRY = {
    "tokenizer": "corpus.tokenizer",
    "corpus": "corpus.build",
    "table": "results.tables.tables",
    "figure": "results.figures.figures",
    "claims": "results.claims.judge",
    "report": "results.report.render",
    "crate": "crate",
}
# Code that every stage passes through but no result depends on.
NEUTRAL = {"progress", "provenance", "tracking", "code"}
NEUTRAL |= {f"study.{name}" for name in ("check", "check_evaluations", "check_held_out", "load", "read", "evaluations")}
# Stage -> the module whose VERSION is its key.
VERSIONED = {"train": "training.version", "asset": "hub.version"}


def code_key(stage: str) -> str:
    """The key of a stage's code: `v<N>` for versioned stages, else 12 hex digits of a sha256."""
    known = _sources()
    if stage in VERSIONED:
        return f"v{known[VERSIONED[stage]]['version']}"
    digest = hashlib.sha256()
    for module in sorted(_closure(known, *_entries(stage))):
        digest.update(f"{module}\0{known[module]['code']}".encode())
        for template in _templates(module):
            digest.update(template.name.encode() + b"\0" + template.read_bytes())
    return digest.hexdigest()[:12]


def _entries(stage: str) -> tuple[str, ...]:
    return (ENTRY[stage],) if stage in ENTRY else (f"evaluation.{stage}", "stages.evaluate")


def _closure(known: dict[str, dict[str, Any]], *entries: str) -> set[str]:
    found, todo = set(), [*entries]
    while todo:
        module = todo.pop()
        if not module or module in found or module in NEUTRAL:
            continue
        found.add(module)
        for base, name in known[module]["imports"]:
            inner = f"{base}.{name}".strip(".")
            todo.append(inner if inner in known else base)
    return found


@cache
def _sources() -> dict[str, dict[str, Any]]:
    """Module (without the package's name) → what `_read` found in its source."""
    files = {_module(file): file.read_bytes() for file in sorted(SOURCE.rglob("*.py"))}
    # Syntax trees are Python's own, and this file decides what is read out of them.
    reader = hashlib.sha256(sys.version.encode() + Path(__file__).read_bytes()).hexdigest()
    place = SOURCE / "__pycache__" / f"sources.{sys.implementation.cache_tag}.json"
    kept: dict[str, Any] = {}
    with suppress(OSError, ValueError, TypeError, KeyError):  # nothing there, or something else
        found = json.loads(place.read_text(encoding="ascii"))
        kept = found["files"] if found["reader"] == reader else {}
    digests = {module: hashlib.sha256(source).hexdigest() for module, source in files.items()}
    read = {digest: kept.get(digest) or _read(files[module]) for module, digest in digests.items()}
    if read != kept:
        _keep(place, json.dumps({"reader": reader, "files": read}))
    return {module: read[digest] for module, digest in digests.items()}


def _module(file: Path) -> str:
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def _read(source: bytes) -> dict[str, Any]:
    """A source's imports from this package, the hash of its code, and its VERSION, None without one."""
    tree = ast.parse(source)
    imports = sorted(set(_imports(tree)))
    version = next((number for node in tree.body if (number := _version(node)) is not None), None)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and body and _is_text(body[0]):
            node.body = body[1:]  # a docstring; comments are not in a tree to begin with
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return {"imports": [list(pair) for pair in imports], "code": code, "version": version}


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from this package; the name may be a module of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            for alias in node.names:
                yield node.module.removeprefix(PACKAGE).lstrip("."), alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{PACKAGE}."):
                    yield alias.name.removeprefix(f"{PACKAGE}."), ""


def _version(node: ast.stmt) -> int | None:
    if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "VERSION":
        return getattr(node.value, "value", None)
    return None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _keep(place: Path, text: str) -> None:
    """Write for the next start; without a word where that is impossible, since it only saves time."""
    draft = place.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(exist_ok=True)
        try:
            draft.write_text(text, encoding="ascii")
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def _templates(module: str) -> list[Path]:
    file = SOURCE.joinpath(*module.split("."))
    folder = (file if file.is_dir() else file.parent) / "templates"
    return sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
