"""Find what is wrong with a written report, of an invented study or of one that ran: `python check.py results/smoke`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import lxml.html

from yarnlab.provenance import read_json
from yarnlab.results.analyse import INDEX
from yarnlab.results.registry import Artefact, figures, tables

LIMIT = 5 * 1024 * 1024
FETCHING = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "link": "href",
    "source": "src",
    "video": "src",
    "object": "data",
}


def check_report(study_dir: Path) -> list[str]:
    """Problems of `report.html` in one line each; an empty list means that it is sound."""
    study_dir = Path(study_dir)
    path = study_dir / "report.html"
    if not path.is_file():
        return [f"{path} does not exist"]
    size, page = path.stat().st_size, lxml.html.document_fromstring(path.read_text(encoding="utf-8"))
    ids = set(page.xpath("//@id"))
    problems = [f"section '{name}' is missing" for name in _sections(study_dir) if name not in ids]
    if size > LIMIT:
        problems.append(f"the page is {size / 2**20:.1f} MiB; the limit is 5 MiB")
    for tag, attribute in FETCHING.items():
        addresses = page.xpath(f"//{tag}/@{attribute}")
        problems += [f"fetches from outside: {tag} {to}" for to in addresses if not to.startswith(("data:", "#"))]
    if re.search(r"@import|url\(\s*['\"]?(?!data:|#)", "".join(page.xpath("//style/text()"))):
        problems.append("a style sheet fetches a file")
    text = " ".join(page.xpath("//text()[not(parent::script or parent::style)]"))
    found = re.search(r"\b(NaN|nan|None|undefined|Infinity)\b", text)
    if found:
        around = text[max(0, found.start() - 40) : found.end() + 20].strip()
        problems.append(f"'{found.group()}' stands in the text: … {around} …")
    problems += _figures(page)
    if not page.xpath("//@data-claim"):
        problems.append("no claim was judged")
    if not page.xpath("//table") and "not run" not in text:
        problems.append("there is neither a table nor a note that nothing was run")
    for link in sorted({*page.xpath("//a/@href")}):
        if not re.match(r"#|[a-z]+:", link) and not (study_dir / link).is_file():
            problems.append(f"a link leads nowhere: {link}")
        if link.startswith("#") and len(link) > 1 and link[1:] not in ids:
            problems.append(f"a link leads nowhere on the page: {link}")
    return problems


def _sections(study_dir: Path) -> list[str]:
    """The sections that the page must have: those of the tables and figures that the analysis wrote, and two more."""
    index = read_json(study_dir / INDEX)
    shown: list[Artefact] = [tables()[name] for name in index.get("tables", ())]
    shown += [figures()[name] for name in index.get("figures", ())]
    return list(dict.fromkeys(["headline", *(artefact.section for artefact in shown), "claims"]))


def _figures(page: lxml.html.HtmlElement) -> list[str]:
    shown, notices = set(page.xpath("//@data-figure")), set(page.xpath("//@data-not-run"))
    problems = [] if shown else ["there are no figures"]
    for script in page.xpath("//script[@data-spec]"):
        name = script.get("data-spec")
        shown.discard(name)
        try:
            document = json.loads(script.text)
        except ValueError:
            problems.append(f"figure '{name}' holds no valid specification")
            continue
        if not any(document.get("datasets", {}).values()):
            problems.append(f"figure '{name}' has no data")
    return [*problems, *(f"figure '{name}' is empty" for name in shown - notices)]


if __name__ == "__main__":
    sys.exit("\n".join(check_report(Path(sys.argv[1]))) or None)
