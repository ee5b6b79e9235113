"""Build and write what a study's results are shown as: tables, figures, claims, and analysis.json that names them.

A table is written as CSV (numbers), Markdown and LaTeX (as displayed), a figure as SVG, PNG and a page of its own. Each
has a JSON file beside it with what the report shows of it: strings of cells with the manifests they come from, or the
chart's specification. Where there is nothing to show the files say 'not run' and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from yarnlab.lazy import alt, pd
from yarnlab.progress import Progress
from yarnlab.provenance import git_state, now, project_path, project_root, recorded, sha256_of, write_record
from yarnlab.results.bases import by_base, groups
from yarnlab.results.cards import write_cards
from yarnlab.results.claims.judge import write_claims
from yarnlab.results.display import DisplayTable, manifests_of, to_latex, to_markdown
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.extension import about
from yarnlab.results.missing import command_for
from yarnlab.results.origin import origin
from yarnlab.results.output import in_script, vega, vega_file, write
from yarnlab.results.registry import Figure, Table, figures, made_of, tables
from yarnlab.results.results import Results, ResultsError, load
from yarnlab.results.style import CONFIG, GRID, INK, PAPER, QUIET

INDEX = "analysis.json"


def analyse(study_dir: Path, *, command: str) -> Path:
    """Write every table, figure and claim of the study under `study_dir`, then analysis.json; returns its path.

    `command` is what a reader runs to fill in what is missing. Raises ResultsError for results that can't be read.
    """
    results = load(study_dir)
    kinds = [kind for kind, planned in results.evaluations.items() if planned is not None]
    kinds += ["training"] if results.trains else []
    judged: dict[str, Any] = {"form": results.form, "of_paper": results.published_tables}
    judged["of_control"] = bool(results.requantised())
    own_tables = made_of(tables(), kinds, **judged).values()
    own_figures = made_of(figures(), kinds, **judged).values()
    jobs = {f"table {table.name}": partial(write_table, results, table, command) for table in own_tables}
    jobs |= {f"figure {figure.name}": partial(write_figure, results, figure, command) for figure in own_figures}
    jobs["claims"] = partial(write_claims, results, command)
    progress = Progress(f"analysis of {results.study}", len(jobs), log=None, unit="artefact")
    inputs = {project_path(path): sha256_of(path) for path in read_by(results)}
    made: list[Path] = []
    failed: list[Exception] = []
    for name, job in jobs.items():
        try:
            made += job()
        except Exception as error:  # a broken file, a mistake in a new figure: the others are written all the same
            failed.append(error)
        progress.advance(note=name)
    if failed:
        raise failed[0]
    made += [file for file in (vega_file(results.directory / "figures"),) if file.is_file()]
    made += write_cards(results)
    where = origin(results)
    index = {
        "analysis": 1,
        "study": results.study,
        "study_sha256": results.study_sha256,
        "title": results.title,
        "notes": list(results.notes),
        "models": len(results.models),
        "extension": about(results) if results.form == "extension" else None,
        "original_contexts": sorted({tree.original_context for tree in by_base(results).values()}),
        "origin": asdict(where) if where is not None else None,
        "manifests": {m["path"]: {"stage": m.get("stage", ""), "name": m.get("name", "")} for m in results.manifests},
        "tables": [table.name for table in own_tables],
        "figures": [figure.name for figure in own_figures],
        "git": git_state(),
        "ended": now(),
        "command": command,
        "inputs": inputs,
        "outputs": {path.relative_to(results.directory).as_posix(): recorded(path) for path in made},
    }
    write_record(results.directory / INDEX, index)
    return results.directory / INDEX


def read_by(results: Results) -> list[Path]:
    """The files that decide what the analysis writes: plan, manifests (which name tables), step logs, references."""
    folder, config = results.directory, project_root() / "config"
    own = [folder / "study.json", *(folder / manifest["path"] for manifest in results.manifests)]
    logs = (folder / "training" / f"{name}.jsonl" for name in results.models)
    own += [log for log in logs if log.is_file()]
    return [*own, config / "claims.yaml", *sorted((config / "reference").glob("*.csv"))]


def table_named(name: str) -> Table:
    """The table called `name`; ResultsError lists the names when there is none."""
    return _named(name, tables(), "table")


def figure_named(name: str) -> Figure:
    """The figure called `name`; ResultsError lists the names when there is none."""
    return _named(name, figures(), "figure")


def _named(name: str, registered: Mapping[str, Any], what: str) -> Any:
    if name not in registered:
        raise ResultsError(f"no {what} is called {name!r}; there are {', '.join(registered)}")
    return registered[name]


def built(results: Results, table: Table) -> tuple[pd.DataFrame, list[DisplayTable]]:
    """The tidy and the displayed form; NotMeasured says why there is nothing to show.

    Of several bases: the rows of each under its name as `base`, and its displayed tables one after the other. The
    paper's tables show the printed numbers whether or not there are ours.
    """
    reason = None if table.of_paper else results.missing(table.needs[:1])
    if reason is None and table.per_base and len(by_base(results)) > 1:
        return _for_each_base(results, table)
    if reason is not None:
        raise NotMeasured(reason)
    frame, displayed = table.build(results)
    displayed = [each for each in displayed if len(each.frame)]
    if not displayed:
        raise NotMeasured("this study has nothing to compare here")
    return frame, displayed


def _for_each_base(results: Results, table: Table) -> tuple[pd.DataFrame, list[DisplayTable]]:
    frames: dict[str, pd.DataFrame] = {}
    displayed: list[DisplayTable] = []
    absent: list[NotMeasured] = []
    for base, tree in by_base(results).items():
        if tree.has(table.needs[0]):
            try:
                frames[base], shown = built(tree, table)
                displayed += [replace(each, caption=f"{base}: {each.caption}") for each in shown]
            except NotMeasured as reason:
                absent.append(reason)
    if not frames:
        raise absent[0]
    return pd.concat(frames, names=["base", None]).reset_index("base"), displayed


def write_table(results: Results, table: Table, command: str) -> list[Path]:
    """Write tables/<name>.{csv,md,tex,json}."""
    shown: dict[str, Any] = {"name": table.name, "title": table.title, "displayed": [], "reason": None, "command": ""}
    try:
        frame, displayed = built(results, table)
    except NotMeasured as absent:
        reason = str(absent)
        shown |= {"reason": reason, "command": command_for(results, table.needs[:1], command)}
        csv, md, tex = f"status,reason\nnot run,{reason}\n", f"not run: {reason}\n", f"% not run: {reason}\n"
    else:
        shown["displayed"] = [_displayed(each) for each in displayed]
        csv = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        md, tex = f"# {table.title}\n\n{to_markdown(displayed)}", to_latex(displayed, table.name)
    texts = {"csv": csv, "md": md, "tex": tex, "json": _json(shown)}
    return [write(results.directory / "tables" / f"{table.name}.{suffix}", text) for suffix, text in texts.items()]


def _displayed(table: DisplayTable) -> dict[str, Any]:
    rows = [
        {"cells": [str(cell) for cell in row], "sources": sources}
        for row, sources in zip(table.frame.itertuples(index=False), table.sources, strict=True)
    ]
    return {"caption": table.caption, "columns": [str(column) for column in table.frame.columns], "rows": rows}


def specification(results: Results, figure: Figure) -> dict[str, Any]:
    """The Vega-Lite specification, in light colours; NotMeasured when there is nothing to draw."""
    reason = results.missing(figure.needs)
    if reason is not None:
        raise NotMeasured(reason)
    # Every part was checked against Vega-Lite's schema when it was made; the whole need not be once more.
    spec: dict[str, Any] = _drawn(results, figure).to_dict(validate=False)
    spec.pop("$schema", None)
    spec["background"] = PAPER
    spec["description"] = figure.alt
    spec["config"] = CONFIG
    options = {"actions": False, "renderer": "svg"}
    spec["usermeta"] = {"columns": figure.columns, "margin": figure.margin, "embedOptions": options}
    return spec


def _drawn(results: Results, figure: Figure) -> Any:
    """The chart; of several parts one below the other under their names, without those that have nothing to draw."""
    parts = {"": results} if figure.parts == "all" else by_base(results) if figure.parts == "bases" else groups(results)
    if len(parts) == 1:
        return figure.draw(results)
    charts, absent = [], []
    for name, part in parts.items():
        if part.missing(figure.needs) is None:
            try:
                charts.append(figure.draw(part).properties(title=name))
            except NotMeasured as reason:
                absent.append(reason)
    if not charts:
        raise absent[0]
    if len(charts) == 1:
        return charts[0]
    below = alt.vconcat(*charts, spacing=36)
    return below.resolve_scale(color="independent", shape="independent", strokeDash="independent")


def sources(results: Results, figure: Figure) -> list[str]:
    """Manifests of the results that a figure is drawn from, relative to the study's folder.

    Empty for a figure of the manifests themselves.
    """
    compared = [model.arm for tree in by_base(results).values() for model in tree.ablation()]
    shown = compared if figure.ablation else list(results.arms())
    kinds = {need: set(results.frame(need)["arm"]) for need in figure.needs if need in results.frames}
    found = [(kind, arm) for kind, measured in kinds.items() for arm in shown if arm in measured]
    return [path for kind, arm in found for path in manifests_of(results, kind, arm)]


def write_figure(results: Results, figure: Figure, command: str) -> list[Path]:
    """Write figures/<name>.{html,svg,png,json}."""
    folder = results.directory / "figures"
    shown: dict[str, Any] = {"name": figure.name, "title": figure.title, "alt": figure.alt}
    try:
        spec = specification(results, figure)
    except NotMeasured as absent:
        missing = command_for(results, figure.needs, command)
        shown |= {"spec": None, "sources": [], "reason": str(absent), "command": missing}
        pictures = notice(figure.title, str(absent))
    else:
        shown |= {"spec": spec, "sources": sources(results, figure), "reason": None, "command": ""}
        pictures = drawn(spec, folder)
    files = pictures | {"json": _json(shown)}
    return [write(folder / f"{figure.name}.{suffix}", data) for suffix, data in files.items()]


def drawn(spec: dict[str, Any], folder: Path) -> dict[str, str | bytes]:
    """A chart as a page, as SVG and as PNG; `folder` keeps the script of the pages."""
    import vl_convert

    text = json.dumps(spec)
    svg = _renumbered(vl_convert.vegalite_to_svg(text))
    page = _SPEC.sub(lambda _: f"const spec = {in_script(spec)};\n", vl_convert.vegalite_to_html(text), count=1)
    page = _LOADED.sub(lambda _: f"<script>{vega(folder)}</script>", page, count=1)
    return {"html": page, "svg": svg, "png": vl_convert.svg_to_png(svg, scale=2)}


def notice(title: str, reason: str) -> dict[str, str | bytes]:
    """The same of a figure that has nothing to show."""
    import vl_convert

    svg = _notice(f"{title}: not run", reason)
    head = f'<html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return {"html": f"<!doctype html>{head}{svg}</html>\n", "svg": svg, "png": vl_convert.svg_to_png(svg)}


def _renumbered(svg: str) -> str:
    """Clip paths numbered from 0 on: Vega counts on over all the charts that a process draws."""
    found = {name: f"clip{i}" for i, name in enumerate(dict.fromkeys(_CLIP.findall(svg)))}
    return _CLIP.sub(lambda match: found[match.group()], svg)


def _notice(title: str, reason: str) -> str:
    from xml.sax.saxutils import escape

    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="720" height="90" font-family="Arial, sans-serif">'
        f'<rect width="720" height="90" fill="{PAPER}" stroke="{GRID}"/>'
        f'<text x="20" y="38" font-size="16" fill="{INK}">{escape(title)}</text>'
        f'<text x="20" y="64" font-size="13" fill="{QUIET}">{escape(reason)}</text></svg>'
    )


def _json(shown: dict[str, Any]) -> str:
    return json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


_CLIP = re.compile(r"\bclip\d+\b")
_SPEC = re.compile(r"const spec = .*;\n")
_LOADED = re.compile(r'(?:\s*<script src="[^"]+"></script>)+')  # what a page would fetch from the network
