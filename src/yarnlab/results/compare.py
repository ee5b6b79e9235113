"""Two studies, or two commits' results of one study, side by side: what changed in settings and in results.

Only written files are read (`study.json`, manifests, `claims.json`, `tables/*.csv`): each side says what it reported,
by the code that it reported it with. Nothing is measured again.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarnlab.results.compare_tables import Number, numbers
from yarnlab.results.results import ResultsError

ABSENT = "–"
# Of study.json: what only names the study or follows from other settings.
NOT_SETTINGS = ("study", "title", "notes", "study_sha256")
# Of a manifest: where and by what it was made.
ORIGIN = ("git.commit", "git.dirty", "code", "lock_sha256", "hardware.cpu", "hardware.gpu", "hardware.threads")


@dataclass(frozen=True)
class Side:
    """One of the two: its folder, names, and how many of its stages left a manifest."""

    directory: Path
    study: str
    title: str
    original_context: int
    stages: int


@dataclass(frozen=True)
class Difference:
    """One setting that differs, as JSON text; '–' where a side has no such setting. `place`: study, a stage, origin."""

    place: str
    key: str
    a: str
    b: str


@dataclass(frozen=True)
class ClaimPair:
    """A claim's verdict on both sides; `criterion_changed`: they were not judged by the same words."""

    id: str
    title: str
    a: str
    b: str
    a_text: str
    b_text: str
    criterion_changed: bool

    @property
    def changed(self) -> bool:
        return self.a != self.b


@dataclass(frozen=True)
class NumberPair:
    """A number of a table on both sides: which row (`key`) and column."""

    table: str
    key: str
    column: str
    a: Number | None
    b: Number | None

    @property
    def difference(self) -> float:
        """b − a; NaN where one is absent."""
        return self.b.value - self.a.value if self.a and self.b else math.nan

    @property
    def verdict(self) -> str:
        """'only in a/b', 'same', 'apart' (the intervals do not meet), 'within intervals', 'changed' (no interval)."""
        if self.a is None or self.b is None:
            return "only in a" if self.b is None else "only in b"
        if self.a == self.b:
            return "same"
        bounds = (self.a.low, self.a.high, self.b.low, self.b.high)
        if any(math.isnan(bound) for bound in bounds):
            return "same" if self.a.value == self.b.value else "changed"
        return "within intervals" if self.a.low <= self.b.high and self.b.low <= self.a.high else "apart"


@dataclass(frozen=True)
class Comparison:
    """Everything that was found; `lengths`: 'tokens', or 'L' where the two have different original contexts."""

    a: Side
    b: Side
    settings: tuple[Difference, ...]
    origins: tuple[Difference, ...]
    claims: tuple[ClaimPair, ...]
    numbers: tuple[NumberPair, ...] = field(repr=False)
    lengths: str = "tokens"

    @property
    def changed_claims(self) -> tuple[ClaimPair, ...]:
        return tuple(pair for pair in self.claims if pair.changed)

    @property
    def changed_numbers(self) -> tuple[NumberPair, ...]:
        return tuple(pair for pair in self.numbers if pair.verdict != "same")


def compare(a: Path, b: Path) -> Comparison:
    """Compare the results folders `a` and `b` (results/<study>, or a copy of one from another commit).

    Raises ResultsError when a folder holds no `study.json` or a file cannot be read.
    """
    first, second = _Folder(Path(a)), _Folder(Path(b))
    lengths = "tokens" if first.side.original_context == second.side.original_context else "L"
    pairs = []
    tables = [path.stem for folder in (first, second) for path in sorted((folder.path / "tables").glob("*.csv"))]
    for table in dict.fromkeys(tables):
        own, other = first.numbers(table, lengths), second.numbers(table, lengths)
        pairs += [
            NumberPair(table, key, column, own.get((key, column)), other.get((key, column)))
            for key, column in dict.fromkeys([*own, *other])
        ]
    return Comparison(
        first.side,
        second.side,
        tuple(_differences(first.settings(), second.settings())),
        tuple(_differences(first.origins(), second.origins())),
        tuple(_claims(first.claims(), second.claims())),
        tuple(pairs),
        lengths,
    )


class _Folder:
    """A results folder as it was written."""

    def __init__(self, path: Path) -> None:
        if not (path / "study.json").is_file():
            raise ResultsError(f"{path} is no results folder: it holds no study.json; give results/<study>")
        self.path = path
        self.study = _json(path / "study.json")
        self.manifests = {self._stage(m): m for m in map(_json, self._manifests())}
        self.side = Side(
            path,
            str(self.study.get("study", path.name)),
            str(self.study.get("title", "")),
            int(self.study["original_context"]),
            len(self.manifests),
        )

    def _manifests(self) -> list[Path]:
        patterns = ("data/*/manifest.json", "models/*/manifest.json", "evaluations/*/*.manifest.json")
        return [path for pattern in patterns for path in sorted(self.path.glob(pattern))]

    @staticmethod
    def _stage(manifest: dict[str, Any]) -> str:
        return f"{manifest.get('stage')} {manifest.get('name')}"

    def settings(self) -> dict[tuple[str, str], str]:
        """(place, dotted key) → JSON, of study.json and of every stage's own section."""
        own = {key: value for key, value in self.study.items() if key not in NOT_SETTINGS}
        found = {("study", key): value for key, value in _flat(own).items()}
        for stage, manifest in self.manifests.items():
            found |= {(stage, key): value for key, value in _flat(manifest.get("spec") or {}).items()}
        return found

    def origins(self) -> dict[tuple[str, str], str]:
        """(stage, what) → JSON: commit, code, lock file, machine and package versions, stages that agree as one."""
        found: dict[tuple[str, str], str] = {}
        for stage, manifest in self.manifests.items():
            flat = _flat(manifest)
            for key, value in flat.items():
                if key in ORIGIN or key.startswith("packages."):
                    found[stage, key] = value
        keys = {key for _, key in found}
        for key in keys:
            values = {value for (_, other), value in found.items() if other == key}
            if len(values) == 1:
                found = {place: value for place, value in found.items() if place[1] != key}
                found["all stages", key] = values.pop()
        return found

    def claims(self) -> dict[str, dict[str, Any]]:
        path = self.path / "claims.json"
        return {claim["id"]: claim for claim in _json(path)["claims"]} if path.is_file() else {}

    def numbers(self, table: str, lengths: str) -> dict[tuple[str, str], Number]:
        path = self.path / "tables" / f"{table}.csv"
        return numbers(path, self.side.original_context if lengths == "L" else None) if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} cannot be read ({error}): delete it and run the study again") from error
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; everything else as JSON."""
    if isinstance(value, dict) and value:
        out: dict[str, str] = {}
        for key, inner in value.items():
            out |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return out
    return {prefix: json.dumps(value, sort_keys=True, ensure_ascii=False)} if prefix else {}


def _differences(a: dict[tuple[str, str], str], b: dict[tuple[str, str], str]) -> list[Difference]:
    keys = dict.fromkeys([*a, *b])
    found = ((place, key, a.get((place, key), ABSENT), b.get((place, key), ABSENT)) for place, key in keys)
    return [Difference(*entry) for entry in found if entry[2] != entry[3]]


def _claims(a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]) -> list[ClaimPair]:
    pairs = []
    for name in dict.fromkeys([*a, *b]):
        own, other = a.get(name, {}), b.get(name, {})
        both = bool(own) and bool(other)
        pairs.append(
            ClaimPair(
                name,
                str((own or other)["title"]),
                str(own.get("status", ABSENT)),
                str(other.get("status", ABSENT)),
                str(own.get("text", "")),
                str(other.get("text", "")),
                both and own.get("criterion") != other.get("criterion"),
            )
        )
    return pairs
