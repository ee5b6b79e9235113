"""Numbers in the report and in the README's blocks that no file of the results backs.

Both are made anew from the files and compared, piece of text by piece of text: a number that was typed, or is left from
earlier results, stands in a piece that differs.
"""

from __future__ import annotations

import difflib
import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from yarnlab.results.origin import origin
from yarnlab.results.report.gallery import markers, results_block
from yarnlab.results.report.render import page_of
from yarnlab.results.results import load

NUMBER = re.compile(r"\d[\d,.]*")
SHOWN = 100  # characters of a piece of text


def unbacked_in_report(study_dir: Path) -> Iterator[str]:
    """What is wrong, one piece of text or figure of report.html each."""
    text = (study_dir / "report.html").read_text(encoding="utf-8", errors="replace")
    command = re.search(r"To bring the page up to date: <code>(.*?)</code>", text)
    pages = text, page_of(study_dir, command=html.unescape(command[1]) if command else "")
    (there, drawn), (made, specs) = map(_parsed, pages)
    yield from _differences(there, made)
    for name, spec in specs.items():
        if drawn.get(name) != spec:
            yield f"the figure {name} shows other numbers than figures/{name}.json"


def unbacked_in_readme(study_dir: Path, readme: Path) -> Iterator[str]:
    """The same of the study's block of results in the README; nothing where there is none, or it is of other commits.

    Such a block says which run it shows: who runs the study anew has not made it wrong.
    """
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    study = json.loads((study_dir / "study.json").read_bytes())
    begin, end = markers(study["study"])
    if begin not in text or end not in text:
        return
    claims = json.loads((study_dir / "claims.json").read_bytes())
    ours = origin(load(study_dir))
    made = results_block(claims, study["title"], ours)
    block = text.split(begin)[1].split(end)[0].strip()
    if ours is None or ours.commits in block.partition("\n")[0]:  # "" without git: nothing tells the runs apart
        yield from _differences(block.splitlines(), made.strip().splitlines())


def count_numbers(page: Path) -> int:
    """Numbers in the text of a page; 0 where it is not there."""
    if not page.is_file():
        return 0
    pieces, _ = _parsed(page.read_text(encoding="utf-8", errors="replace"))
    return sum(len(NUMBER.findall(piece)) for piece in pieces)


def _differences(there: Sequence[str], made: Sequence[str]) -> Iterator[str]:
    """The pieces of `there` with a number that do not stand in `made` at their place, each with the numbers in it."""
    a, b = ([" ".join(re.sub(r"https?://\S+", "", piece).split()) for piece in pieces] for pieces in (there, made))
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for i, piece in enumerate(a[a0:a1]):
            backed = set(NUMBER.findall(b[b0 + i])) if b0 + i < b1 else set()
            numbers = [number for number in NUMBER.findall(piece) if number not in backed]
            if numbers or (piece not in b[b0:b1] and NUMBER.search(piece)):
                named = ", ".join(dict.fromkeys(numbers)) or "a number"
                yield f"no file backs {named} in '{piece[:SHOWN]}{'…' if len(piece) > SHOWN else ''}'"


def _parsed(text: str) -> tuple[list[str], dict[str, str]]:
    """A page's pieces of text, and each figure's specification by its name."""
    import lxml.html

    page = lxml.html.document_fromstring(text)
    specs = {script.get("data-spec"): script.text for script in page.xpath("//script[@data-spec]")}
    return page.xpath("//text()[not(parent::script or parent::style)]"), specs
