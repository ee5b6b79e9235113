"""`yarnlab why`: number ← table ← evaluation ← model ← parent and data, each with what decided it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from yarnlab.audit.cells import Cell
from yarnlab.audit.folder import Folder
from yarnlab.provenance import sha256_of
from yarnlab.results.lineage import lineage
from yarnlab.results.origin import commit_of, machine_of


def chain(folder: Folder, cell: Cell) -> str:
    """The chain of a number as text; its last line is the command that makes the number from nothing."""
    made = lineage(folder.path, cell.sources)
    file = f"{cell.file}, sha256 {sha256_of(folder.path / cell.file)[:16]}"
    made_by = f"{folder.analysis.get('ended', '')}, commit {commit_of(folder.analysis) or 'unknown'}"
    lines = [
        f"number    {cell.shown}",
        f"          {cell.what}",
        f"file      {file}, written by the analysis {made_by}",
    ]
    if cell.timed:
        lines.append("          a time or a size of memory on that machine: made again, it is another number")
    if not made:
        lines.append("          no result stands behind it: formulas, settings or the paper's printed numbers do")
    for name, manifest in reversed(made.items()):
        lines += ["", *_stage(folder, name, manifest)]
    lines += ["", "to make it again, step by step, from nothing (what is there already is kept):"]
    lines += [f"  {folder.making(name)}" for name in made]
    lines += [f"  {folder.making(cell.target)}"]
    return "\n".join(lines)


def _stage(folder: Folder, name: str, manifest: dict[str, Any]) -> Iterator[str]:
    """What decided one stage's results, a line each."""
    packages = manifest.get("packages", {})
    versions = ", ".join(f"{package} {packages[package]}" for package in ("python", "torch") if package in packages)
    versions += f", lock file {str(manifest.get('lock_sha256') or 'none')[:16]}"
    facts = {key: value for key, value in manifest.get("facts", {}).items() if isinstance(value, str | int | float)}
    yield f"← {manifest.get('stage')} {manifest.get('name')}: {folder.path / name}"
    yield f"  code      {manifest.get('code')}; commit {commit_of(manifest) or 'unknown'}; {versions}"
    yield f"  settings  {json.dumps(manifest.get('spec', {}), ensure_ascii=False, separators=(', ', ': '))}"
    yield f"  seeds     {', '.join(f'{key} {value}' for key, value in manifest.get('seeds', {}).items()) or 'none'}"
    yield f"  machine   {machine_of(manifest) or 'unknown'}; {', '.join(f'{k} {v}' for k, v in facts.items())}"
    yield f"  made      {manifest.get('ended', '')}, in {manifest.get('seconds', 0)} s"
    for path in manifest.get("inputs", ()):
        yield f"  from      {path}"
    for path, output in manifest.get("outputs", {}).items():
        yield f"  holds     {path}, sha256 {output['sha256'][:16]}"
