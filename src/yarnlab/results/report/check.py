"""Find what is wrong with a written report: the test that a pipeline runs on its own product."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

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
    size = path.stat().st_size
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    problems = [f"section '{name}' is missing" for name in _sections(study_dir) if name not in page.ids]
    if size > LIMIT:
        problems.append(f"the page is {size / 2**20:.1f} MiB; the limit is 5 MiB")
    problems += [f"fetches from outside: {what}" for what in page.fetched]
    styles = "".join(page.styles)
    if re.search(r"@import|url\(\s*['\"]?(?!data:|#)", styles):
        problems.append("a style sheet fetches a file")
    text = " ".join(page.text)
    found = re.search(r"\b(NaN|nan|None|undefined|Infinity)\b", text)
    if found:
        around = text[max(0, found.start() - 40) : found.end() + 20].strip()
        problems.append(f"'{found.group()}' stands in the text: … {around} …")
    problems += _figures(page)
    if page.claims == 0:
        problems.append("no claim was judged")
    if page.tables == 0 and "not run" not in text:
        problems.append("there is neither a table nor a note that nothing was run")
    for link in sorted(set(page.links)):
        if not re.match(r"#|[a-z]+:", link) and not (study_dir / link).is_file():
            problems.append(f"a link leads nowhere: {link}")
        if link.startswith("#") and len(link) > 1 and link[1:] not in page.ids:
            problems.append(f"a link leads nowhere on the page: {link}")
    return problems


def _sections(study_dir: Path) -> list[str]:
    """The sections that the page must have: those of the tables and figures that the analysis wrote, and two more."""
    index = read_json(study_dir / INDEX)
    shown: list[Artefact] = [tables()[name] for name in index.get("tables", ())]
    shown += [figures()[name] for name in index.get("figures", ())]
    return list(dict.fromkeys(["headline", *(artefact.section for artefact in shown), "claims"]))


def _figures(page: Page) -> list[str]:
    problems = [] if page.figures else ["there are no figures"]
    for name, spec in page.specs.items():
        try:
            document = json.loads("".join(spec))
        except ValueError:
            problems.append(f"figure '{name}' holds no valid specification")
            continue
        if not any(document.get("datasets", {}).values()):
            problems.append(f"figure '{name}' has no data")
    problems += [f"figure '{name}' is empty" for name in page.figures - set(page.specs) - page.notices]
    return problems


class Page(HTMLParser):
    """Collects what `check_report` looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []
        self.figures: set[str] = set()
        self.notices: set[str] = set()
        self.specs: dict[str, list[str]] = {}
        self.claims = 0
        self.tables = 0
        self._inside = ""
        self._spec = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        address = given.get(FETCHING.get(tag, ""), "")
        if address and not address.startswith(("data:", "#")):
            self.fetched.append(f"{tag} {address}")
        if "data-figure" in given:
            self.figures.add(given["data-figure"])
        if "data-not-run" in given:
            self.notices.add(given["data-not-run"])
        if "data-spec" in given:
            self._spec = given["data-spec"]
            self.specs[self._spec] = []
        self.claims += "data-claim" in given
        self.tables += tag == "table"
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = self._spec = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside == "script":
            if self._spec:
                self.specs[self._spec].append(data)
        else:
            self.text.append(data)
