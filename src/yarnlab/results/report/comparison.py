"""Write a comparison of two studies: comparison.html (one self-contained page), comparison.md and comparison.csv."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from yarnlab.results.compare import ABSENT, Comparison, NumberPair, Side, compare
from yarnlab.results.compare_tables import Number
from yarnlab.results.output import write

TEMPLATES = Path(__file__).parent / "templates"
COLUMNS = ("part", "place", "key", "a", "a_low", "a_high", "b", "b_low", "b_high", "verdict")


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
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["difference"] = difference
    tables = dict.fromkeys(pair.table for pair in found.numbers)
    template = environment.get_template("comparison.html.j2")
    return template.render(
        found=found,
        headline=headline(found),
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        tables={table: [pair for pair in found.numbers if pair.table == table] for table in tables},
    )


def to_markdown(found: Comparison) -> str:
    """What changed; numbers that did not are counted only."""
    a, b = found.a, found.b
    lines = [f"# {a.study} and {b.study}", "", f"a: {_side(a)}  ", f"b: {_side(b)}", "", headline(found), ""]
    lines += _table("Claims", ("claim", "a", "b", "number of b"), _claim_rows(found))
    for title, differences in (("Settings", found.settings), ("Code, packages and machine", found.origins)):
        changed: list[tuple[str, ...]] = [(d.place, d.key, d.a, d.b) for d in differences]
        lines += _table(title, ("where", "setting", "a", "b"), changed)
    rows: list[tuple[str, ...]] = [
        (pair.table, pair.key, pair.column, shown(pair.a), shown(pair.b), difference(pair), pair.verdict)
        for pair in found.changed_numbers
    ]
    lines += _table("Numbers", ("table", "of", "what", "a", "b", "b − a", "verdict"), rows)
    return "\n".join(lines)


def to_csv(found: Comparison) -> str:
    """Everything, unchanged numbers too, one row each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part, differences in (("setting", found.settings), ("origin", found.origins)):
        writer.writerows((part, d.place, d.key, d.a, "", "", d.b, "", "", "changed") for d in differences)
    for claim in found.claims:
        verdict = "changed" if claim.changed else "same"
        writer.writerow(("claim", claim.id, claim.title, claim.a, "", "", claim.b, "", "", verdict))
    for pair in found.numbers:
        ends = [("", "", "") if x is None else tuple(map(_plain, (x.value, x.low, x.high))) for x in (pair.a, pair.b)]
        writer.writerow(("number", pair.table, f"{pair.key}: {pair.column}", *ends[0], *ends[1], pair.verdict))
    return out.getvalue()


def headline(found: Comparison) -> str:
    """One sentence: how many settings, verdicts and numbers changed."""
    verdicts = [pair.verdict for pair in found.numbers]
    same, apart = verdicts.count("same"), verdicts.count("apart")
    alone = sum(verdict.startswith("only") for verdict in verdicts)
    text = (
        f"{len(found.settings)} settings differ; {len(found.changed_claims)} of {len(found.claims)} claims have "
        f"another verdict; of {len(verdicts)} numbers {same} are the same, {apart} have intervals that do not meet, "
        f"{alone} are on one side only."
    )
    if found.lengths == "L":
        a, b = found.a.original_context, found.b.original_context
        text += f" Lengths are in units of the original context, {a:,} tokens in a and {b:,} in b."
    return text


def shown(number: Number | None) -> str:
    """'14.7 [13.1, 16.4]', four significant digits."""
    if number is None:
        return ABSENT
    if math.isnan(number.low):
        return _digits(number.value)
    return f"{_digits(number.value)} [{_digits(number.low)}, {_digits(number.high)}]"


def difference(pair: NumberPair) -> str:
    """b − a with its sign; '–' where one is absent."""
    return ABSENT if math.isnan(pair.difference) else _digits(pair.difference, sign="+")


def _digits(x: float, sign: str = "") -> str:
    text = f"{x:{sign}.4g}" if abs(x) < 1e4 or abs(x) >= 1e15 else f"{x:{sign},.0f}"
    return text.replace("-", "−").replace("inf", "∞")


def _plain(x: float) -> str:
    return "" if math.isnan(x) else f"{x:.10g}"


def _claim_rows(found: Comparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for claim in found.changed_claims:
        note = " (another criterion)" if claim.criterion_changed else ""
        rows.append((f"{claim.id}: {claim.title}{note}", claim.a, claim.b, claim.b_text))
    return rows


def _side(side: Side) -> str:
    return f"{side.title or side.study}, L = {side.original_context:,} tokens, {side.stages} stages, `{side.directory}`"


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [f"## {title}", ""]
    if not rows:
        return [*lines, "No difference.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]
