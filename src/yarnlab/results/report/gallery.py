"""The README's pictures and blocks of results, made from studies' reports: nothing in them is typed by hand.

`write_gallery` writes a study's two pictures and its entry in `gallery.json` (date, commit, what took them), and puts
its results between its two markers in the README.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json, replacing, write_json
from yarnlab.results.display import markdown_row
from yarnlab.results.origin import Origin, origin
from yarnlab.results.output import write
from yarnlab.results.report.render import ANSWERS
from yarnlab.results.results import ResultsError, load

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = (1200, 1000)  # pixels of the report's head
FIGURES = ("figure_1", "zero_shot", "context_gain")  # the second picture is the first of these that was drawn


def markers(study: str) -> tuple[str, str]:
    """The lines of the README between which a study's results stand."""
    return f"<!-- results of {study}: begin -->", f"<!-- results of {study}: end -->"


def write_gallery(study_dir: Path, images: Path, readme: Path | None = None) -> Path:
    """Write both pictures and the study's entry of `gallery.json` under `images`, and its block into `readme`.

    The pictures: the report's head, or without a browser the figure that stands there, and a figure of perplexity.
    Raises ResultsError where the study has no report, or `readme` lacks the study's markers. Pictures and README are
    written last, so that a failure leaves the old ones.
    """
    claims, study = (json.loads(_made(study_dir, name).read_bytes()) for name in ("claims.json", "study.json"))
    _made(study_dir, "report.html")
    made, name = origin(load(study_dir)), study["study"]
    block = results_block(claims, study["title"], made)
    text = embedded(readme.read_text(encoding="utf-8"), block, name) if readme else ""
    head, figure = f"{name}-report.png", f"{name}-figure.png"
    taken = {head: _head(study_dir, images / head)}
    if drawn := next((f for f in FIGURES if (study_dir / f"figures/{f}.png").is_file()), None):
        taken[figure] = _figure(study_dir, images / figure, drawn)
    if readme is not None:
        write(readme, text)
    record = {
        "study_sha256": study["study_sha256"],
        "criteria_version": claims["criteria_version"],
        "commits": made.commits if made else "",
        "dirty": made.dirty if made else None,
        "finished": made.finished[:10] if made else "",
        "pictures": taken,
    }
    write_json(images / "gallery.json", read_json(images / "gallery.json") | {name: record})
    return images / "gallery.json"


def results_block(claims: dict[str, Any], title: str, made: Origin | None) -> str:
    """Markdown: the headline claims with their verdict, number, interval and n, then verdicts by group."""
    facts = (made.commits, made.finished[:10], made.machines, f"{made.compute} of compute") if made else ()
    when = f"; {', '.join(filter(None, facts))}" if made else ""
    lines = [f"What one run shows ({title}{when}):", "", "| claim | verdict | number |", "|---|---|---|"]
    judged = {claim["id"]: claim for claim in claims["claims"] if claim["status"] != "not run"}
    for claim in (judged[name] for name in claims["headline"] if name in judged):
        lines.append(markdown_row((claim["title"], claim["status"], claim["text"])))
    return "\n".join([*lines, "", counts_in_words(claims["counts"]), ""])


def counts_in_words(counts: dict[str, dict[str, int]]) -> str:
    """'Of the paper's 30 claims 8 hold, …; of 5 identities 5 hold; of …': groups without any are left out.

    counts: group → verdict → number, as in `claims.json`.
    """
    named = {"paper": "the paper's {} claims", "identity": "{} identities"}
    named["acceptance"] = "{} lines of this study's own"
    named["extension"] = "{} statements about the extended model"
    told = []
    for group, own in counts.items():
        verdicts = ", ".join(f"{n} {_plural(status, n)}" for status, n in own.items() if n)
        if verdicts:
            told.append(f"of {named[group].format(sum(own.values()))} {verdicts}")
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}."


def embedded(text: str, block: str, study: str) -> str:
    """`text` with `block` between the study's markers; ResultsError where they do not stand there once, in order."""
    begin, end = markers(study)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ResultsError(f"the README needs the lines {begin} and {end}, once each, in this order, for its results")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"


def screenshot(binary: str, page: Path, picture: Path) -> None:
    """Take a picture of the top of a local page. Raises ResultsError with the browser's words where that fails."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, replacing(picture) as temporary:
        command = [
            binary,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={scratch}",
            f"--window-size={PAGE[0]},{PAGE[1]}",
            "--virtual-time-budget=20000",
            f"--screenshot={temporary}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode or not temporary.stat().st_size:
            raise ResultsError(f"{binary} took no picture of {page}: {done.stderr.strip()[-300:]}")


def _head(study_dir: Path, picture: Path) -> str:
    """Write the picture of the report's head; returns what it was taken from."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        answer = next((name for name in ANSWERS if (study_dir / f"figures/{name}.png").is_file()), ANSWERS[-1])
        print(
            f"No Chromium here ({', '.join(BROWSERS)}): {picture.name} shows the figure {answer} instead of the "
            "report's head. Install Debian's package chromium and repeat.",
            file=sys.stderr,
        )
        return _figure(study_dir, picture, answer)
    screenshot(binary, study_dir / "report.html", picture)
    return f"the top of report.html, {Path(binary).name}"


def _figure(study_dir: Path, picture: Path, figure: str) -> str:
    """Write the picture as a figure; returns what it was taken from."""
    name = f"figures/{figure}.png"
    write(picture, _made(study_dir, name).read_bytes())
    return name


def _made(study_dir: Path, name: str) -> Path:
    """The path of a file that the study has written; ResultsError names the command where it has not."""
    path = study_dir / name
    if not path.is_file():
        command = f"envs/run snakemake --cores all --config study={study_dir.name}"
        raise ResultsError(f"{path} is missing: run `{command}` first")
    return path


def _plural(status: str, n: int) -> str:
    """'11 hold', '1 holds', '10 are undecided', '2 are not run'."""
    verb, _, rest = status.partition(" ")
    if verb in ("holds", "fails"):
        return f"{verb if n == 1 else verb[:-1]} {rest}".strip()
    return f"{'is' if n == 1 else 'are'} {status}"
