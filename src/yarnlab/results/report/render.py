"""Write `report.html`: one page with every figure, table and verdict, that opens from disk offline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from yarnlab.results.bases import roots
from yarnlab.results.claims import parts
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import entry, evaluate
from yarnlab.results.display import DisplayTable
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.figures import figures
from yarnlab.results.missing import command_for
from yarnlab.results.output import vega, write
from yarnlab.results.report.check import check_report
from yarnlab.results.report.origin import origin
from yarnlab.results.results import Results, load
from yarnlab.results.style import DARK
from yarnlab.results.tables import tables
from yarnlab.tracking.store import is_server, tracking_uri, without_login

__all__ = ["check_report", "write_report"]

DASHBOARD = "http://127.0.0.1:5000"  # where `yarnlab dashboard` serves MLflow's pages if the port is free
TEMPLATES = Path(__file__).parent / "templates"
# Tables that set the paper's printed numbers beside ours; they have a section of their own.
PUBLISHED = re.compile(r"verdicts|table_\d+|camera_ready_\w+|stated_values|benchmark_results|published_curves")
VERDICTS = {"reproduced": "holds", "differs": "holds-in-part", "contradicted": "fails", "not comparable": "undecided"}


def write_report(study_dir: Path, *, command: str) -> Path:
    """Write `report.html` under `study_dir`; `command` is what a reader runs to fill in what is missing."""
    import jinja2

    study_dir = Path(study_dir)
    results = load(study_dir)
    uri = tracking_uri(study_dir.parent)
    dashboard = (without_login(uri) if is_server(uri) else DASHBOARD).rstrip("/") + "/"
    links = _links(results, dashboard)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = parts.number
    environment.filters["parted"] = parted
    page = environment.get_template("report.html.j2").render(
        results=results,
        contexts=sorted({tree.original_context for tree in roots(results).values()}),
        command=command,
        css=(TEMPLATES / "report.css").read_text(),
        script=(TEMPLATES / "report.js").read_text(),
        bundle=vega(study_dir / "figures"),
        palette=DARK,
        figures={name: _figure(results, name, links, command) for name in figures.FIGURES},
        tables={name: _table(results, name, links, command) for name in tables.TABLES},
        published=[name for name in tables.TABLES if PUBLISHED.fullmatch(name)],
        verdicts=_verdicts(results, links, command),
        statuses=parts.STATUSES,
        criteria_version=load_criteria().version,
        origin=origin(results),
        dashboard=dashboard,
        served_here=not is_server(uri),
        tracked=any(link["run"] for link in links.values()),
    )
    return write(study_dir / "report.html", page)


def parted(cell: str) -> tuple[str, str, str]:
    """A cell's number, what stands below it (interval or verdict), and the class that colours a verdict."""
    if cell == parts.NOT_RUN:
        return "", cell, "not-run"
    for verdict, shade in VERDICTS.items():
        if cell.endswith(verdict):
            return cell.removesuffix(verdict).rstrip(), verdict, shade
    number, bracket, interval = cell.partition(" [")
    return number, bracket.lstrip() + interval, ""


def _figure(results: Results, name: str, links: dict[str, dict[str, str]], command: str) -> dict[str, Any]:
    wanted = figures.FIGURES[name]
    files = [f"figures/{name}.{suffix}" for suffix in ("svg", "png", "html")]
    entry: dict[str, Any] = {"name": name, "title": wanted.title, "alt": wanted.alt, "spec": None, "reason": None}
    entry["files"] = [path for path in files if (results.directory / path).is_file()]
    try:
        text = json.dumps(figures.specification(results, wanted), separators=(",", ":"), allow_nan=False)
    except NotMeasured as absent:
        return entry | {"reason": str(absent), "command": command_for(results, wanted.needs, command)}
    # '</' inside a script element would end it early.
    entry["spec"] = text.replace("</", "<\\/")
    return entry | {"links": _known(figures.sources(results, wanted), links)}


def _table(results: Results, name: str, links: dict[str, dict[str, str]], command: str) -> dict[str, Any]:
    wanted = tables.TABLES[name]
    files = [f"tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")]
    entry: dict[str, Any] = {"name": name, "title": wanted.title, "sections": [], "reason": None}
    entry["files"] = [path for path in files if (results.directory / path).is_file()]
    try:
        _, sections = tables.built(results, wanted)
    except NotMeasured as absent:
        return entry | {"reason": str(absent), "command": command_for(results, wanted.needs[:1], command)}
    return entry | {"sections": [_section(section, links) for section in sections]}


def _section(section: DisplayTable, links: dict[str, dict[str, str]]) -> dict[str, Any]:
    rows = [
        {"cells": [str(cell) for cell in row], "links": _known(sources, links)}
        for row, sources in zip(section.frame.itertuples(index=False), section.sources, strict=True)
    ]
    return {"caption": section.caption, "columns": [str(c) for c in section.frame.columns], "rows": rows}


def _verdicts(results: Results, links: dict[str, dict[str, str]], command: str) -> list[dict[str, Any]]:
    out = []
    for claim, verdict in evaluate(results):
        shown = entry(results, claim, verdict, command)
        said = {key: shown[key] for key in ("parts", "command")} | {"mark": shown["paper_mark"]}
        out.append({"claim": claim, "verdict": verdict, "links": _known(shown["sources"], links)} | said)
    return out


def _links(results: Results, dashboard: str) -> dict[str, dict[str, str]]:
    """Manifest path -> its name, and the address of its MLflow run where one was published."""
    path = results.directory / "tracking" / "runs.json"
    runs = json.loads(path.read_text()) if path.is_file() else {}
    links = {}
    for manifest in results.manifests:
        run = runs.get(f"{manifest.get('stage')}.{manifest.get('name')}")
        address = dashboard + run["url_path"].lstrip("/") if run else ""
        stage, name = str(manifest.get("stage", "")), str(manifest.get("name", ""))
        links[manifest["path"]] = {"path": manifest["path"], "stage": stage, "name": name, "run": address}
    return links


def _known(sources: list[str], links: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """The links that exist, each with what tells it from its neighbours: model, stage, both or nothing."""
    found = [links[path] for path in sources if path in links]
    if len(found) == 1:
        return [found[0] | {"label": "manifest"}]
    for label in ("{name}", "{stage}", "{stage} {name}"):
        named = [link | {"label": label.format_map(link)} for link in found]
        if len({link["label"] for link in named}) == len(named):
            break
    return named
