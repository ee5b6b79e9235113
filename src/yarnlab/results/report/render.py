"""Write `report.html`: one page with every figure, table and verdict, that opens from disk offline.

The page is a template over files that the analysis has written (results/analyse.py); nothing is computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json
from yarnlab.results.analyse import INDEX
from yarnlab.results.claims.criteria import GROUPS
from yarnlab.results.output import TEMPLATES, in_script, page, vega, write
from yarnlab.results.registry import figures, tables
from yarnlab.results.report.sections import ordered
from yarnlab.results.results import ResultsError
from yarnlab.results.style import DARK
from yarnlab.tracking.store import is_server, tracking_uri, without_login

DASHBOARD = "http://127.0.0.1:5000"  # where `yarnlab dashboard` serves MLflow's pages if the port is free
VERDICTS = {"reproduced": "holds", "differs": "holds-in-part", "contradicted": "fails"}
VERDICTS |= dict.fromkeys(("not excluded", "not comparable"), "undecided")
NOT_RUN = "not run"
FIGURE_FILES, TABLE_FILES = ("svg", "png", "html"), ("csv", "md", "tex")
ANSWERS = (
    "context_gain",
    "figure_1",
    "zero_shot",
)  # the figure that stands above everything else: the first that was drawn


def write_report(study_dir: Path, *, command: str) -> Path:
    """Write `report.html` under `study_dir`; `command` is what a reader runs to fill in what is missing.

    Raises ResultsError where the analysis has not been written.
    """
    return write(Path(study_dir) / "report.html", page_of(Path(study_dir), command=command))


def page_of(study_dir: Path, *, command: str) -> str:
    """The text of `report.html`; the same files give the same text. Raises ResultsError as `write_report` does."""
    index = _read(study_dir, INDEX, command)
    uri = tracking_uri(study_dir.parent)
    dashboard = (without_login(uri) if is_server(uri) else DASHBOARD).rstrip("/") + "/"
    links = _links(study_dir, index["manifests"], dashboard)
    entries = _entries(study_dir, index, links, command)
    answer = next((e for name in ANSWERS for e in entries if e["name"] == name and e.get("spec")), None)
    shown = [entry for entry in entries if entry is not answer]
    sections = []
    for section in ordered(entry["artefact"].section for entry in shown):
        own = [entry for entry in shown if entry["artefact"].section == section.id]
        if own:
            sections.append({"section": section, "parts": _folded(sorted(own, key=lambda e: e["artefact"].place))})
    claims = _read(study_dir, "claims.json", command)
    for claim in claims["claims"]:
        claim["links"] = _known(claim["sources"], links)
    template = "extension.html.j2" if index["extension"] else "report.html.j2"
    return page(
        template,
        {"parted": parted},
        index=index,
        command=command,
        script=(TEMPLATES / "report.js").read_text(),
        bundle=vega(study_dir / "figures"),
        palette=DARK,
        sections=sections,
        claims=claims,
        headline=[claim for name in claims["headline"] for claim in claims["claims"] if claim["id"] == name],
        answer=answer,
        groups=GROUPS,
        dashboard=dashboard,
        served_here=not is_server(uri),
        tracked=any(link["run"] for link in links.values()),
    )


def parted(cell: str) -> tuple[str, str, str]:
    """A cell's number, what stands below it (interval or verdict), and the class that colours a verdict."""
    if cell == NOT_RUN:
        return "", cell, "not-run"
    for verdict, shade in VERDICTS.items():
        if cell.endswith(verdict):
            return cell.removesuffix(verdict).rstrip(), verdict, shade
    number, bracket, interval = cell.partition(" [")
    return number, bracket.lstrip() + interval, ""


def _read(study_dir: Path, name: str, command: str) -> dict[str, Any]:
    path = study_dir / name
    if not path.is_file():
        raise ResultsError(f"{path} is missing: the study has not been analysed; run `{command}`")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _entries(study_dir: Path, index: dict[str, Any], links: dict[str, Any], command: str) -> list[dict[str, Any]]:
    """Every figure and then every table as it was written, with its files and links."""
    found = []
    for kind, registered, suffixes in (("figure", figures(), FIGURE_FILES), ("table", tables(), TABLE_FILES)):
        for name in index[f"{kind}s"]:
            entry = _read(study_dir, f"{kind}s/{name}.json", command) | {"artefact": registered[name], "kind": kind}
            entry["files"] = [f"{kind}s/{name}.{suffix}" for suffix in suffixes]
            entry["links"] = _known(entry.get("sources", ()), links)
            if entry.get("spec") is not None:
                entry["spec"] = in_script(entry["spec"])
            for row in (row for displayed in entry.get("displayed", ()) for row in displayed["rows"]):
                row["links"] = _known(row["sources"], links)
            found.append(entry)
    return found


def _folded(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbours that stand in the same folded part together, under its words."""
    parts: list[dict[str, Any]] = []
    for entry in entries:
        fold = entry["artefact"].fold
        if not parts or parts[-1]["fold"] != fold:
            parts.append({"fold": fold, "entries": []})
        parts[-1]["entries"].append(entry)
    return parts


def _links(study_dir: Path, manifests: dict[str, dict[str, str]], dashboard: str) -> dict[str, dict[str, str]]:
    """Manifest path → its stage and name, and the address of its MLflow run where one was published."""
    runs = read_json(study_dir / "tracking" / "runs.json")
    links = {}
    for manifest, made in manifests.items():
        run = runs.get(f"{made['stage']}.{made['name']}")
        address = dashboard + run["url_path"].lstrip("/") if run else ""
        links[manifest] = {"path": manifest, "stage": made["stage"], "name": made["name"], "run": address}
    return links


def _known(sources: Iterable[str], links: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """The links that exist, each with what tells it from its neighbours: model, stage, both or nothing."""
    found = [links[path] for path in sources if path in links]
    if len(found) == 1:
        return [found[0] | {"label": "manifest"}]
    for label in ("{name}", "{stage}", "{stage} {name}"):
        named = [link | {"label": label.format_map(link)} for link in found]
        if len({link["label"] for link in named}) == len(named):
            break
    return named
