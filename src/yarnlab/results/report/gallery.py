"""The README's pictures and its block of results, made from a study's report: nothing in them is typed by hand.

`write_gallery` writes two pictures and `gallery.json` (date, commit, study, what took them), and puts the results
between the README's two markers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.provenance import replacing, write_json
from yarnlab.results.origin import Origin, origin
from yarnlab.results.results import ResultsError, load

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGE = (1200, 1000)  # pixels of the report's head
# Picture → what it shows, and the figure that stands in where there is no browser (always, for the second).
HEAD, FIGURE = "micro-report.png", "micro-figure.png"
FIGURES = {HEAD: "ablation", FIGURE: "figure_1"}
# The claims that the README shows, by id, in this order; those that a study did not judge are left out.
SHOWN = (
    "accept-zero-shot-order",
    "accept-finetuned-order",
    "8",
    "15",
    "11",
    "23",
    "24",
    "25",
    "29",
    "31",
)


class NoReport(ResultsError):
    """There is no report to take pictures or results from; the message names the command that makes one."""


@dataclass(frozen=True)
class Picture:
    """A picture of the gallery: its file and what it was taken from."""

    path: Path
    taken: str


def write_gallery(study_dir: Path, images: Path, readme: Path | None = None) -> Path:
    """Write both pictures and `gallery.json` under `images`, and the results block into `readme` where given.

    Raises NoReport where the study has no report, and ResultsError where `readme` lacks the markers. Pictures and
    README are written last, so that a failure leaves the old ones.
    """
    claims, study = _document(study_dir, "claims.json"), _document(study_dir, "study.json")
    if not (study_dir / "report.html").is_file():
        raise NoReport(f"{study_dir}/report.html is missing: {_command(study_dir)}")
    made = origin(load(study_dir))
    text = embedded(readme.read_text(encoding="utf-8"), results_block(study_dir, made)) if readme else None
    pictures = [_head(study_dir, images / HEAD), _figure(study_dir, images / FIGURE, FIGURES[FIGURE])]
    if readme is not None and text is not None:
        with replacing(readme) as temporary:
            temporary.write_text(text, encoding="utf-8")
    record = {
        "study": study["study"],
        "study_sha256": study["study_sha256"],
        "criteria_version": claims["criteria_version"],
        "commits": made.commits if made else "",
        "dirty": made.dirty if made else None,
        "finished": made.finished[:10] if made else "",
        "pictures": {picture.path.name: picture.taken for picture in pictures},
    }
    write_json(images / "gallery.json", record)
    return images / "gallery.json"


def results_block(study_dir: Path, made: Origin | None) -> str:
    """Markdown: the counts of verdicts, then the claims of SHOWN with their verdict, number, interval and n."""
    document, study = _document(study_dir, "claims.json"), _document(study_dir, "study.json")
    when = f"; {', '.join(part for part in (made.commits, made.finished[:10]) if part)}" if made else ""
    counts = document["counts"]
    total = sum(counts.values())
    summary = ", ".join(f"{n} {_plural(status, n)}" for status, n in counts.items())
    lines = [
        f"What one run shows ({study['title']}{when}):",
        "",
        "| claim | verdict | number |",
        "|---|---|---|",
    ]
    found = {claim["id"]: claim for claim in document["claims"]}
    for name in SHOWN:
        claim = found.get(name)
        if claim is not None and claim["status"] != "not run":
            lines.append(f"| {_cell(claim['title'])} | {claim['status']} | {_cell(claim['text'])} |")
    return "\n".join([*lines, "", f"Of {total} claims {summary}.", ""])


def embedded(text: str, block: str) -> str:
    """`text` with `block` between the two markers; ResultsError where they do not stand there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ResultsError(f"the README needs the lines {BEGIN} and {END}, once each, in this order, for its results")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"


def browser() -> str | None:
    """Path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def screenshot(binary: str, page: Path, picture: Path, size: tuple[int, int] = PAGE) -> None:
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
            f"--window-size={size[0]},{size[1]}",
            "--virtual-time-budget=20000",
            f"--screenshot={temporary}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode or not temporary.stat().st_size:
            raise ResultsError(f"{binary} took no picture of {page}: {done.stderr.strip()[-300:]}")


def _head(study_dir: Path, picture: Path) -> Picture:
    binary = browser()
    if binary is None:
        print(
            f"No Chromium here ({', '.join(BROWSERS)}): {picture.name} shows the figure {FIGURES[HEAD]} instead of the "
            "report's head. Install Debian's package chromium and repeat.",
            file=sys.stderr,
        )
        return _figure(study_dir, picture, FIGURES[HEAD])
    screenshot(binary, study_dir / "report.html", picture)
    return Picture(picture, f"the top of report.html, {Path(binary).name}")


def _figure(study_dir: Path, picture: Path, name: str) -> Picture:
    source = study_dir / "figures" / f"{name}.png"
    if not source.is_file():
        raise NoReport(f"{source} is missing: {_command(study_dir)}")
    with replacing(picture) as temporary:
        shutil.copyfile(source, temporary)
    return Picture(picture, f"figures/{name}.png")


def _document(study_dir: Path, name: str) -> dict[str, Any]:
    path = study_dir / name
    if not path.is_file():
        raise NoReport(f"{path} is missing: {_command(study_dir)}")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _command(study_dir: Path) -> str:
    return f"run `envs/run snakemake --cores all --config study={study_dir.name}` first"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plural(status: str, n: int) -> str:
    """'11 hold', '1 holds', '10 are undecided', '2 are not run'."""
    verb, _, rest = status.partition(" ")
    if verb in ("holds", "fails"):
        return f"{verb if n == 1 else verb[:-1]} {rest}".strip()
    return f"{'is' if n == 1 else 'are'} {status}"
