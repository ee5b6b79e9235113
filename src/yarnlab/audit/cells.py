"""A number by the words that stand around it: `table_2[yarn-s16, 2048]`, a point of a figure, a claim's id.

A table's cell is named by words of its row (a label or any other cell of it, or the name of an arm or model behind it)
and of its column's heading; `#2` chooses the second of several displayed tables, as do words of its caption. A figure's
point is named by values of its row. Of a table and a figure of one name the table is meant; `figures/ablation[…]` is
the other. Registry and written files say what there is; nothing is listed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from yarnlab.audit.folder import AuditError, Folder
from yarnlab.provenance import sha256_of
from yarnlab.results.analyse import INDEX
from yarnlab.results.registry import Artefact, figures, tables
from yarnlab.results.results import load
from yarnlab.results.style import labels
from yarnlab.study.fields import near

_ADDRESS = re.compile(r"\s*(?:claims?\b\s*)?(?P<name>[^\[\]]*?)\s*(?:\[(?P<keys>.*)\])?\s*", re.DOTALL)
_KEY = re.compile(r'"[^"]*"|(?:(?<!\w)\d{1,3}(?:,\d{3})+(?!\d)|[^,"])+')  # a comma may stand in a number: 8,192
CHOICES = 12  # that a message lists


@dataclass(frozen=True)
class Cell:
    """A number that was found.

    what: where it stands, in words; shown: as it is displayed; file: what holds it, relative to the study's folder;
    target: the file that the workflow makes it with; sources: the manifests behind it, as the file says; timed: a time
    or a size of memory, which another run measures anew.
    """

    what: str
    shown: str
    file: str
    target: str
    sources: tuple[str, ...]
    timed: bool = False


def find(folder: Folder, address: str) -> Cell:
    """The number at this address; AuditError says what there is instead, with the nearest names."""
    if not folder.study:
        raise AuditError(f"{folder.path / 'study.json'} can't be read: {folder.again('study_json')}")
    match = _ADDRESS.fullmatch(address)
    name, keys = (match["name"], _split(match["keys"] or "")) if match else (address, [])
    if not name and len(keys) == 1:
        name, keys = keys[0], []  # claims[12]
    place, _, own = name.rpartition("/")
    drawn = _written(folder, figures(), "figures")
    tabled = _written(folder, tables(), "tables")
    judged = _read(folder, "claims.json")["claims"] if "claims.json" in folder.names else ()
    claims = {claim["id"]: claim for claim in judged}
    if name in claims and not keys:
        return _claim(claims[name])
    if own in tabled and place in ("", "tables"):
        return _of_table(folder, tabled[own], keys, address)
    if own in drawn and place in ("", "figures"):
        return _of_figure(folder, drawn[own], keys, address)
    known = sorted({*tabled, *drawn, *claims})
    raise AuditError(f"{address}: no table, figure or claim of this study is called {name!r}{near(name, known)}")


def _written(folder: Folder, registered: dict[str, Any], place: str) -> dict[str, Any]:
    """Those tables or figures that are written, by their names and by the paper's."""
    found = {name: made for name, made in registered.items() if f"{place}/{name}.json" in folder.names}
    return {paper: made for made in found.values() for paper in made.paper_names} | found


def _claim(claim: dict[str, Any]) -> Cell:
    what = f"claim {claim['id']}, {claim['title']}: {claim['status']}"
    return Cell(what, claim["text"], "claims.json", INDEX, tuple(claim["sources"]))


def _of_table(folder: Folder, table: Artefact, keys: Sequence[str], address: str) -> Cell:
    file = f"tables/{table.name}.json"
    written = _read(folder, file)
    if written["reason"] is not None:
        raise AuditError(f"{address}: {table.name} was not run: {written['reason']}. {written['command']}".strip())
    found: list[tuple[int, dict[str, Any], int]] = []
    named = {name: [entry["arm"]] for name, entry in folder.study["models"].items()}
    rows = [
        (number, displayed, row, _row_words(folder, row, named))
        for number, displayed in enumerate(written["displayed"], 1)
        for row in displayed["rows"]
    ]
    every = {word for _, displayed, row, words in rows for word in {*words, *_words(displayed["columns"])}}
    outside = [key for key in keys if _norm(key) not in every and not _of_caption(key, written["displayed"])]
    if outside or not keys:
        asked = f"nothing in it is called {outside[0]!r}" if outside else "name a row and a column"
        hint = near(_norm(outside[0]), sorted(every)) if outside else f": {table.name}[{_example(written)}]"
        raise AuditError(f"{address}: {asked}{hint}")
    of_cells = {_norm(key) for key in keys if _norm(key) in every}
    for number, displayed, row, words in rows:
        chosen = all(_chooses(key, number, displayed["caption"]) for key in keys if _norm(key) not in every)
        for column in range(1, len(row["cells"])) if chosen else ():
            of_row = words - ({_norm(row["cells"][column])} - _row_words(folder, {**row, "cells": []}, named))
            of_column = _words([displayed["columns"][column]])
            if of_cells <= of_row | of_column and (of_cells & of_column or len(row["cells"]) == 2):
                found.append((number, {**row, "columns": displayed["columns"]}, column))
    if len(found) != 1:
        raise AuditError(_choose(address, table.name, found, written["displayed"]))
    (number, row, column) = found[0]
    heading, caption = row["columns"][column], written["displayed"][number - 1]["caption"]
    what = f"{table.name}, {row['cells'][0]}, {heading}: {caption}"
    target = f"tables/{table.name}.csv"
    return Cell(what, row["cells"][column], file, target, tuple(row["sources"]), heading in table.timed)


def _row_words(folder: Folder, row: dict[str, Any], arms: dict[str, list[str]]) -> set[str]:
    """What a row of a table may be called: any of its cells, the models behind it and their arms."""
    models = {str(folder.manifests.get(source, {}).get("name", "")) for source in row["sources"]}
    return {_norm(word) for word in {*row["cells"], *models, *(arm for m in models for arm in arms.get(m, ()))} if word}


def _words(headings: Iterable[str]) -> set[str]:
    """What columns may be called: '512 (4L)' is also 512, '8,192 ours' is also 8192."""
    shorter = {re.sub(r"\s*(\(.*\)|ours)$", "", heading) for heading in headings}
    return {_norm(heading) for heading in {*headings, *shorter}}


def _of_caption(key: str, displayed: Sequence[dict[str, Any]]) -> bool:
    return any(_chooses(key, number, each["caption"]) for number, each in enumerate(displayed, 1))


def _chooses(key: str, number: int, caption: str) -> bool:
    """Whether a key chooses this displayed table: `#2`, or words of its caption."""
    return key == f"#{number}" or (len(key) > 3 and key.lower() in caption.lower())


def _choose(address: str, name: str, found: Sequence[tuple[int, Any, int]], displayed: Sequence[dict[str, Any]]) -> str:
    if not found:
        columns = "; ".join(dict.fromkeys(", ".join(each["columns"][1:]) for each in displayed))
        return f"{address}: no cell stands in such a row and column; the columns of {name}: {columns}"
    lines = [
        f"  {name}[{_quoted(row['cells'][0])}, {row['columns'][column]}, #{number}]: {row['cells'][column]}   "
        f"({displayed[number - 1]['caption'].split(':')[0]})"
        for number, row, column in found[:CHOICES]
    ]
    more = [f"  and {len(found) - CHOICES} more"] if len(found) > CHOICES else []
    return "\n".join([f"{address} is {len(found)} numbers; say which:", *lines, *more])


def _example(written: dict[str, Any]) -> str:
    first = written["displayed"][0]
    return f"{_quoted(first['rows'][0]['cells'][0])}, {first['columns'][-1]}"


def _of_figure(folder: Folder, figure: Artefact, keys: Sequence[str], address: str) -> Cell:
    file = f"figures/{figure.name}.json"
    written = _read(folder, file)
    if written["spec"] is None:
        raise AuditError(f"{address}: {figure.name} was not run: {written['reason']}. {written['command']}".strip())
    arms = labels(load(folder.path))
    called = {_norm(arm): _norm(label) for arm, label in arms.items()}
    points = [row for rows in written["spec"].get("datasets", {}).values() for row in rows]
    every = {_norm(value) for row in points for value in row.values()}
    wanted = {called.get(key, key) if key not in every else key for key in map(_norm, keys)}
    if not wanted or wanted - every:
        unknown = sorted(wanted - every)
        asked = f"nothing in it is called {unknown[0]!r}" if unknown else "name a point by its values"
        known = sorted({*called, *(word for word in every if not re.fullmatch(r"[\d.e−-]+", word))})
        fields = ", ".join(dict.fromkeys(field for row in points for field in row))
        raise AuditError(f"{address}: {asked}{near(unknown[0], known) if unknown else ''}; its points have {fields}")
    found = [row for row in points if wanted <= {_norm(value) for value in row.values()}]
    if len(found) != 1:
        lines = [f"  {json.dumps(row, ensure_ascii=False)}" for row in found[:CHOICES]]
        more = [f"  and {len(found) - CHOICES} more"] if len(found) > CHOICES else []
        raise AuditError("\n".join([f"{address} is {len(found)} points; say which, by its values:", *lines, *more]))
    values = {_norm(value) for value in found[0].values()}
    own = [arm for arm, label in arms.items() if _norm(label) in values]
    sources = tuple(written["sources"])
    models = {name for name, entry in folder.study["models"].items() if entry["arm"] in own}
    behind = tuple(path for path in sources if folder.manifests.get(path, {}).get("name") in models)
    shown = ", ".join(f"{key} {value}" for key, value in found[0].items() if _norm(value) not in wanted)
    what = f"{figure.name}, {', '.join(keys)}: {figure.title}"
    timed = bool({*found[0]} & {*figure.timed})
    return Cell(what, shown, file, f"figures/{figure.name}.svg", behind or sources, timed)


def _read(folder: Folder, name: str) -> dict[str, Any]:
    written = folder.analysis.get("outputs", {}).get(name)
    if written is not None and written["sha256"] != sha256_of(folder.path / name):
        raise AuditError(f"{folder.path / name} is not what the analysis wrote: {folder.again('analyse')}")
    found: dict[str, Any] = json.loads((folder.path / name).read_bytes())
    return found


def _split(keys: str) -> list[str]:
    return [key for found in _KEY.findall(keys) if (key := found.strip().strip('"'))]


def _quoted(word: str) -> str:
    return f'"{word}"' if ", " in word else word


def _norm(word: Any) -> str:
    """A word as it is compared: numbers without separators and zeros at their end, text in small letters."""
    text = " ".join(str(word).split()).lower()
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return plain.removesuffix(".0")
