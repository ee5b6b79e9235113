"""Two studies, or two commits' results of one study, side by side: what changed in settings and in results.

Only written files are read (`study.json`, manifests, `claims.json`, `tables/*.csv`): each side says what it reported,
by the code that it reported it with. Nothing is measured again. Written as comparison.html (one self-contained page),
comparison.md and comparison.csv.

A tidy table's key columns come first, then its numbers: see `_columns`. Markdown is written as the study's tables are:
`DataFrame.to_markdown` neither escapes '|' nor leaves cells unpadded, and one long setting widens every line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from yarnlab.lazy import pd
from yarnlab.provenance import SELF_SHA256
from yarnlab.results.display import markdown_table
from yarnlab.results.output import page, write
from yarnlab.results.results import ResultsError

ABSENT = "–"
# Of study.json: what only names the study or follows from other settings.
NOT_SETTINGS = ("study", "title", "notes", "study_sha256", SELF_SHA256)
# Of a manifest: where and by what it was made.
ORIGIN = ("git.commit", "git.dirty", "code", "lock_sha256", "hardware.cpu", "hardware.gpu", "hardware.threads")
# Columns before the first number that say more of a row, not which row it is. A column that is missing here makes rows
# look unlike: they are then shown on one side only, never paired with the wrong ones.
NOT_KEYS = ("label", "windows", "pre_rope_nll")
LENGTHS = ("length", "bucket_start", "bucket_end")  # keys in tokens
COLUMNS = ("part", "place", "key", "a", "a_low", "a_high", "b", "b_low", "b_high", "verdict")


@dataclass(frozen=True)
class Number:
    """A number with its 95 % interval, where it has one, and n, as they stand in the file."""

    value: float
    low: float | None = None
    high: float | None = None
    n: str = field(default="", compare=False)


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


@dataclass(frozen=True)
class NumberPair:
    """A number of a table on both sides: which row (`key`) and column."""

    table: str
    key: str
    column: str
    a: Number | None
    b: Number | None

    @property
    def verdict(self) -> str:
        """'only in a/b', 'same', 'apart' (the intervals do not meet), 'within intervals', 'changed' (no interval)."""
        a, b = self.a, self.b
        if a is None or b is None:
            return "only in a" if b is None else "only in b"
        if a == b:
            return "same"
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return "same" if a.value == b.value else "changed"
        return "within intervals" if a.low <= b.high and b.low <= a.high else "apart"


@dataclass(frozen=True)
class Comparison:
    """Everything that was found; `lengths`: 'tokens', or 'L' where the two have different original contexts."""

    a: Side
    b: Side
    settings: tuple[Difference, ...]
    origins: tuple[Difference, ...]
    claims: tuple[ClaimPair, ...]
    numbers: tuple[NumberPair, ...] = field(repr=False)
    lengths: str

    @property
    def changed_claims(self) -> tuple[ClaimPair, ...]:
        return tuple(pair for pair in self.claims if pair.a != pair.b)

    @property
    def changed_numbers(self) -> tuple[NumberPair, ...]:
        return tuple(pair for pair in self.numbers if pair.verdict != "same")


class Side:
    """One of the two: a results folder as it was written."""

    def __init__(self, directory: Path) -> None:
        if not (directory / "study.json").is_file():
            raise ResultsError(f"{directory} is no results folder: it holds no study.json; give results/<study>")
        self.directory = directory
        self.plan = _json(directory / "study.json")
        self.study = str(self.plan.get("study", directory.name))
        self.title = str(self.plan.get("title") or self.study)
        self.original_context = int(self.plan["original_context"])
        patterns = ("data/*/manifest.json", "models/*/manifest.json", "evaluations/*/*.manifest.json")
        manifests = [_json(path) for pattern in patterns for path in sorted(directory.glob(pattern))]
        self.manifests = {f"{manifest.get('stage')} {manifest.get('name')}": manifest for manifest in manifests}
        self.stages = len(self.manifests)

    def settings(self) -> dict[tuple[str, str], str]:
        """(place, dotted key) → JSON, of study.json and of every stage's own section."""
        own = {key: value for key, value in self.plan.items() if key not in NOT_SETTINGS}
        places = {"study": own} | {stage: manifest.get("spec") or {} for stage, manifest in self.manifests.items()}
        return {(place, key): value for place, nested in places.items() for key, value in _flat(nested).items()}

    def origins(self) -> dict[tuple[str, str], str]:
        """(stage, what) → JSON: commit, code, lock file, machine and package versions, stages that agree as one."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for stage, manifest in self.manifests.items():
            for key, value in _flat(manifest).items():
                if key in ORIGIN or key.startswith("packages."):
                    found[key][stage] = value
        for key, stages in found.items():
            if len(set(stages.values())) == 1:
                found[key] = {"all stages": next(iter(stages.values()))}
        return {(stage, key): value for key, stages in found.items() for stage, value in stages.items()}

    def claims(self) -> dict[str, dict[str, Any]]:
        path = self.directory / "claims.json"
        return {claim["id"]: claim for claim in _json(path)["claims"]} if path.is_file() else {}

    def numbers(self, lengths: str) -> dict[tuple[str, str, str], Number]:
        """(table, key, column) → number, of all tables."""
        context = self.original_context if lengths == "L" else None
        tables = sorted((self.directory / "tables").glob("*.csv"))
        if (index := self.directory / "analysis.json").is_file():  # what an earlier study left there is no part of it
            tables = [path for path in tables if path.stem in _json(index)["tables"]]
        return {(path.stem, *place): number for path in tables for place, number in numbers(path, context).items()}


def compare(a: Path, b: Path) -> Comparison:
    """Compare the results folders `a` and `b` (results/<study>, or a copy of one from another commit).

    Raises ResultsError when a folder holds no `study.json`, a file cannot be read, or a table's rows cannot be told
    apart.
    """
    one, two = Side(Path(a)), Side(Path(b))
    lengths = "tokens" if one.original_context == two.original_context else "L"
    own, other = one.numbers(lengths), two.numbers(lengths)
    places = sorted(dict.fromkeys([*own, *other]), key=lambda place: place[0])
    return Comparison(
        a=one,
        b=two,
        settings=_differences(one.settings(), two.settings()),
        origins=_differences(one.origins(), two.origins()),
        claims=_claims(one.claims(), two.claims()),
        numbers=tuple(NumberPair(*place, own.get(place), other.get(place)) for place in places),
        lengths=lengths,
    )


def numbers(path: Path, original_context: int | None = None) -> dict[tuple[str, str], Number]:
    """(key, column) → number for every result of a tidy table; empty for a table that says 'not run'.

    original_context: lengths in the keys are given in units of it; None: in tokens. Raises ResultsError where two rows
    have the same key, or the file cannot be read.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
        keys, results = _columns(frame)
        parts = [part for column, bounds in results.items() for part in (column, *bounds) if part in frame]
        frame = frame.astype(dict.fromkeys(parts, float))
    except ValueError as error:
        raise ResultsError(f"{path} cannot be read ({error}): delete it and run the study again") from error
    found: dict[tuple[str, str], Number] = {}
    for row in frame.to_dict("records"):
        cells = {str(column): cell for column, cell in row.items() if not pd.isna(cell)}
        key = ", ".join(_key(column, cells[column], original_context) for column in keys if column in cells)
        for column, (low, high) in results.items():
            if column not in cells:
                continue
            if (key, column) in found:
                raise ResultsError(
                    f"{path}: two rows are both '{key}', so one would hide the other; what tells them apart must be a "
                    "column before the first number: correct the module that builds the table and run the study again"
                )
            n = str(cells.get(f"{column}_n", cells.get("n", "")))
            found[key, column] = Number(cells[column], cells.get(low), cells.get(high), n)
    return found


def _columns(frame: pd.DataFrame) -> tuple[list[str], dict[str, tuple[str, str]]]:
    """The columns that are the key, and the results, each with the columns of its interval.

    A result has bounds: `low` and `high` follow it (yarnlab.results.rows.numbers), or x_low and x_high belong to x
    (`Estimate.columns`). In a table without `low` every number is a result. The key is what stands before the first of
    them, save flags and NOT_KEYS. A printed number has bounds too and is no result.
    """
    columns = [str(column) for column in frame]
    bounds = {column: (f"{column}_low", f"{column}_high") for column in columns if f"{column}_low" in columns}
    if "low" in columns:
        bounds[columns[columns.index("low") - 1]] = ("low", "high")
    else:
        ends = {end for pair in bounds.values() for end in pair}
        bounds = {column: ("", "") for column in map(str, frame.select_dtypes("number")) if column not in ends} | bounds
    flags = {*frame.select_dtypes("bool"), *NOT_KEYS}
    keys = [column for column in takewhile(lambda column: column not in bounds, columns) if column not in flags]
    return keys, {column: bounds[column] for column in columns if column in bounds and column != "published"}


def _key(column: str, value: Any, original_context: int | None) -> str:
    """A number with its column's name; text speaks for itself."""
    try:
        number = float(value)
    except ValueError:
        return str(value)
    units = original_context if column in LENGTHS else None
    return f"{column.replace('_', ' ')} {f'{number:,.10g}' if units is None else f'{number / units:g}L'}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} cannot be read ({error}): delete it and run the study again") from error
    return found


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted keys; everything else, an empty mapping too, as JSON (json_normalize drops those)."""
    if not (isinstance(value, dict) and value):
        return {prefix: json.dumps(value, sort_keys=True, ensure_ascii=False)} if prefix else {}
    inner = (_flat(nested, f"{prefix}.{key}" if prefix else str(key)) for key, nested in value.items())
    return {key: text for found in inner for key, text in found.items()}


def _differences(a: dict[tuple[str, str], str], b: dict[tuple[str, str], str]) -> tuple[Difference, ...]:
    found = (Difference(*place, a.get(place, ABSENT), b.get(place, ABSENT)) for place in dict.fromkeys([*a, *b]))
    return tuple(each for each in found if each.a != each.b)


def _claims(a: dict[str, dict[str, Any]], b: dict[str, dict[str, Any]]) -> tuple[ClaimPair, ...]:
    absent = {"status": ABSENT, "text": ""}
    pairs = []
    for name in dict.fromkeys([*a, *b]):
        own, other = absent | a.get(name, {}), absent | b.get(name, {})
        changed = name in a and name in b and own.get("criterion") != other.get("criterion")
        title = (a.get(name) or b[name])["title"]
        pairs.append(ClaimPair(name, title, own["status"], other["status"], own["text"], other["text"], changed))
    return tuple(pairs)


def write_comparison(a: Path, b: Path, folder: Path | None = None) -> list[Path]:
    """Compare two results folders and write the three files under `folder`.

    By default that is comparisons/<a>--<b> beside the folder `b`. Raises ResultsError as `compare` does.
    """
    found = compare(a, b)
    base = folder or Path(b).parent / "comparisons" / f"{Path(a).name}--{Path(b).name}"
    texts = {"html": to_html(found), "md": to_markdown(found), "csv": to_csv(found)}
    return [write(base / f"comparison.{suffix}", text) for suffix, text in texts.items()]


def to_html(found: Comparison) -> str:
    """The page, in the look of the report."""
    return page("comparison.html.j2", {"shown": shown, "difference": difference}, found=found, headline=headline(found))


def to_markdown(found: Comparison) -> str:
    """What changed; numbers that did not are counted only."""
    claims = []
    for claim in found.changed_claims:
        note = " (another criterion)" if claim.criterion_changed else ""
        claims.append((f"{claim.id}: {claim.title}{note}", claim.a, claim.b, claim.b_text))
    pairs = [
        (pair.table, pair.key, pair.column, shown(pair.a), shown(pair.b), difference(pair), pair.verdict)
        for pair in found.changed_numbers
    ]
    lines = [f"# {found.a.study} and {found.b.study}", ""]
    for name, side in (("a", found.a), ("b", found.b)):
        context = f"L = {side.original_context:,} tokens"
        lines.append(f"{name}: {side.title}, {context}, {side.stages} stages, `{side.directory}`  ")
    lines += ["", headline(found), ""]
    lines += _table("Claims", ("claim", "a", "b", "number of b"), claims)
    for title, differences in (("Settings", found.settings), ("Code, packages and machine", found.origins)):
        lines += _table(title, ("where", "setting", "a", "b"), [(d.place, d.key, d.a, d.b) for d in differences])
    lines += _table("Numbers", ("table", "of", "what", "a", "b", "b − a", "verdict"), pairs)
    return "\n".join(lines)


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = list(rows)
    return [f"## {title}", "", *(markdown_table(head, body) if body else ["No difference."]), ""]


def to_csv(found: Comparison) -> str:
    """Everything, unchanged numbers too, one row each."""
    rows: list[tuple[str, ...]] = []
    for part, differences in (("setting", found.settings), ("origin", found.origins)):
        rows += [(part, d.place, d.key, d.a, "", "", d.b, "", "", "changed") for d in differences]
    for claim in found.claims:
        verdict = "same" if claim.a == claim.b else "changed"
        rows.append(("claim", claim.id, claim.title, claim.a, "", "", claim.b, "", "", verdict))
    for pair in found.numbers:
        sides = [(x.value, x.low, x.high) if x else (None, None, None) for x in (pair.a, pair.b)]
        ends = ["" if x is None else f"{x:.10g}" for side in sides for x in side]
        rows.append(("number", pair.table, f"{pair.key}: {pair.column}", *ends, pair.verdict))
    return pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False, lineterminator="\n")


def headline(found: Comparison) -> str:
    """One sentence: how many settings, verdicts and numbers changed."""
    verdicts = [pair.verdict for pair in found.numbers]
    text = (
        f"{len(found.settings)} settings differ; {len(found.changed_claims)} of {len(found.claims)} claims have "
        f"another verdict; of {len(verdicts)} numbers {verdicts.count('same')} are the same, "
        f"{verdicts.count('apart')} have intervals that do not meet, "
        f"{sum(verdict.startswith('only') for verdict in verdicts)} are on one side only."
    )
    if found.lengths == "L":
        a, b = found.a.original_context, found.b.original_context
        text += f" Lengths are in units of the original context, {a:,} tokens in a and {b:,} in b."
    return text


def shown(number: Number | None) -> str:
    """'14.7 [13.1, 16.4]', four significant digits."""
    if number is None:
        return ABSENT
    value, *bounds = (_digits(x) for x in (number.value, number.low, number.high) if x is not None)
    return f"{value} [{', '.join(bounds)}]" if bounds else value


def difference(pair: NumberPair) -> str:
    """b − a with its sign; '–' where one is absent."""
    return ABSENT if pair.a is None or pair.b is None else _digits(pair.b.value - pair.a.value, sign="+")


def _digits(x: float, sign: str = "") -> str:
    text = f"{x:{sign}.4g}" if abs(x) < 1e4 or abs(x) >= 1e15 else f"{x:{sign},.0f}"
    return text.replace("-", "−").replace("inf", "∞")
