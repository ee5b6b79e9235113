"""How tables and numbers are shown: strings, wide tables of them with captions and sources, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from yarnlab.lazy import pd
from yarnlab.results.bases import by_base, tree_of
from yarnlab.results.results import Results
from yarnlab.results.statistics import LEVEL
from yarnlab.results.style import labels, method_label

INTERVAL = "95 % intervals in brackets"
UNPROVEN = "n.s."
Show: TypeAlias = Callable[..., str]  # of a number, its low and its high
Cell: TypeAlias = Callable[[Any], str]  # of a row


@dataclass(frozen=True)
class DisplayTable:
    """One displayed table: caption, cells as strings, and for each row the files its numbers come from."""

    caption: str
    frame: pd.DataFrame
    sources: list[list[str]]


def value(x: float, digits: int = 3) -> str:
    """A number to `digits` significant digits, in scientific notation from a million; '–' when absent."""
    if x is None or (isinstance(x, float) and math.isnan(x)):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    if x == 0:
        return "0"
    size = math.floor(math.log10(abs(x)))
    text = f"{x:,.{max(0, digits - 1 - size)}f}" if size < 6 else f"{x:.{digits - 1}e}"
    return text.replace("-", "−")


def with_interval(x: float, low: float, high: float, digits: int = 3) -> str:
    """'14.7 [13.1, 16.4]'."""
    if x is None or math.isnan(x):
        return "–"
    return f"{value(x, digits)} [{value(low, digits)}, {value(high, digits)}]"


def signed(x: float, low: float, high: float) -> str:
    """A difference with its interval, the sign always shown; three decimals, five for a tiny interval."""
    if x is None or math.isnan(x):
        return "–"
    d = 3 if high - low >= 0.004 else 5
    return f"{_fixed(x, d, '+')} [{_fixed(low, d, '+')}, {_fixed(high, d, '+')}]"


def percent(x: float, low: float | None = None, high: float | None = None) -> str:
    """A share in percent, with its interval where given."""
    if x is None or math.isnan(x):
        return "–"
    text = f"{_fixed(100 * x, 0)} %"
    return text if low is None or high is None else f"{text} [{_fixed(100 * low, 0)}, {_fixed(100 * high, 0)}]"


def percent_points(x: float, low: float, high: float) -> str:
    """A difference of shares in percentage points with its interval, the sign always shown."""
    if x is None or math.isnan(x):
        return "–"
    value, *bounds = (_fixed(100 * number, 1, "+") for number in (x, low, high))
    return f"{value} [{', '.join(bounds)}]"


def duration(seconds: float) -> str:
    """'1 h 02 min', '3 min 05 s' or '4.2 s'."""
    if seconds is None or math.isnan(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def windows(tokens: int, original_context: int) -> str:
    """'4,096 (16L)': a length in tokens and in multiples of the original context."""
    multiple = tokens / original_context
    return f"{tokens:,} ({({0.5: 'L/2', 1.0: 'L'}).get(multiple, f'{multiple:g}L')})"


def own_cell(show: Show, column: str) -> Cell:
    """A row's own number in words: its interval is `low` and `high` (rows.numbers)."""
    return lambda r: show(getattr(r, column), r.low, r.high)


def cell(show: Show, column: str) -> Cell:
    """A row's further number in words, with the interval that bears its name (Estimate.columns)."""
    return lambda r: show(*(getattr(r, f"{column}{end}") for end in ("", "_low", "_high")))


def tested(cell: Cell) -> Cell:
    """The same, with a mark where the difference is not significant after Holm's correction."""
    return lambda r: cell(r) + ("" if r.p_holm < LEVEL or pd.isna(r.p_holm) else f" {UNPROVEN}")


perplexity_cell = own_cell(with_interval, "perplexity")
delta_cell = cell(signed, "delta")


def at_scale(scale: float) -> str:
    """'s = 16'."""
    return f"s = {scale:g}"


def to_markdown(sections: list[DisplayTable]) -> str:
    """GitHub-style tables, each under its caption."""
    blocks = []
    for section in sections:
        rows = section.frame.astype(str).itertuples(index=False)
        blocks.append("\n".join([f"**{section.caption}**", "", *markdown_table(map(str, section.frame.columns), rows)]))
    return "\n\n".join(blocks) + "\n"


def to_latex(sections: list[DisplayTable], name: str) -> str:
    """booktabs tables (needs \\usepackage{booktabs}), each a float with its caption."""
    blocks = []
    for i, section in enumerate(sections, 1):
        columns = [str(c) for c in section.frame.columns]
        rows = [[str(cell) for cell in row] for row in section.frame.itertuples(index=False)]
        body = [" & ".join(_escape(cell) for cell in row) + r" \\" for row in [columns, *rows]]
        lines = [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{_escape(section.caption)}}}",
            rf"\label{{tab:{name}-{i}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _fixed(x: float, digits: int, sign: str = "") -> str:
    """A number with so many decimals, '∞' where it is unbounded; `sign` '+': its sign is always shown."""
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{x:{sign}.{digits}f}".replace("-", "−")


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """The lines of a GitHub-style table."""
    columns = list(head)
    return [markdown_row(line) for line in (columns, ["---"] * len(columns), *rows)]


def markdown_row(cells: Iterable[str]) -> str:
    """One of these lines."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "−": r"$-$",
        "–": "--",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "Δ": r"$\Delta$",
        "×": r"$\times$",
        "∞": r"$\infty$",
        "′": "'",
        "√": r"$\surd$",
        "…": r"\ldots{}",
    }
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)


def manifests_of(results: Results, kind: str, arm: str) -> list[str]:
    """Relative paths of the manifests behind an arm's numbers; kind 'training' means the models' own."""
    if kind == "training":
        return [f"models/{name}/manifest.json" for name in results.members(arm)]
    kind = kind.partition(".")[0]
    return [f"evaluations/{kind}/{name}.manifest.json" for name in results.members(arm)]


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows, columns as attributes."""
    return iter(frame.itertuples())


def captioned(text: str, frame: pd.DataFrame, note: str = "") -> str:
    """What is shown, over how many of what, and that brackets are intervals; `note`: further sentences."""
    return f"{text}, n = {count(frame)}. {INTERVAL}. {note}".rstrip()


def of_base(results: Results, kind: str, caption: str, rows: list[dict[str, Any]]) -> DisplayTable:
    """Rows of what is measured on the base alone, each from its manifests."""
    base = results.base()
    sources = manifests_of(results, kind, base.arm) if base else []
    return DisplayTable(caption, pd.DataFrame(rows), [list(sources) for _ in rows])


def wide(
    results: Results,
    kind: str,
    caption: str,
    frame: pd.DataFrame,
    row: str,
    column: str,
    cell: Cell,
    name: Callable[[Any], str] | None = None,
) -> DisplayTable:
    """Of the base: `row` values down, sorted `column` values across, each cell the text of its row of the frame.

    name: what a column is called; without it a scale is 's = 16', and a length has its multiple of L.
    """
    if name is None:
        name = at_scale if column == "scale" else lambda n: windows(int(n), results.original_context)
    cells = {(getattr(r, row), getattr(r, column)): cell(r) for r in rows_of(frame)}
    across = sorted(frame[column].unique())
    lines = [
        {row: method_label(str(value))} | {name(c): cells.get((value, c), "–") for c in across}
        for value in frame[row].drop_duplicates()
    ]
    return of_base(results, kind, caption, lines)


def by_length(results: Results, kind: str, caption: str, frame: pd.DataFrame, cell: Cell) -> DisplayTable:
    """Models down, lengths across, each cell the text of its row of the frame."""
    contexts = {tree.original_context for tree in by_base(results).values()}
    name = {n: windows(n, *contexts) if len(contexts) == 1 else f"{n:,}" for n in sorted(frame["length"].unique())}
    cells = {(r.label, r.length): cell(r) for r in rows_of(frame)}
    return by_model(results, kind, caption, frame, cells, name)


def by_model(
    results: Results, kind: str, caption: str, frame: pd.DataFrame, cells: dict, across: dict[Any, str]
) -> DisplayTable:
    """Models down, with their base where the frame has it; `cells` by (label, key), `across`: key → heading."""
    arms = frame[["arm", "label", *(["base"] if "base" in frame else [])]].drop_duplicates()
    rows = [
        {"model": r.label}
        | ({"base": r.base} if "base" in arms else {})
        | {heading: cells.get((r.label, key), "–") for key, heading in across.items()}
        for r in rows_of(arms)
    ]
    return DisplayTable(caption, pd.DataFrame(rows), [manifests_of(results, kind, arm) for arm in arms["arm"]])


def count(frame: pd.DataFrame) -> str:
    """'12 documents', or the range where cells differ."""
    if frame.empty:
        return "0"
    return f"{extent(frame['n'])} {frame['over'].iloc[0]}"


def extent(numbers: Iterable[float]) -> str:
    """'12', or '12–24' where whole numbers differ."""
    low, high = int(min(numbers)), int(max(numbers))
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def same_base(frame: pd.DataFrame) -> str:
    """What a caption of comparisons adds where the rows have a `base`."""
    return " Models are compared with those of the same base only." if "base" in frame else ""


def extended_of(results: Results, arms: Iterable[str]) -> list[str]:
    """Labels of the YaRN models that these arms are compared with, each base's own."""
    names = labels(results)
    found = [tree_of(results, arm).extended() for arm in dict.fromkeys(arms)]
    return list(dict.fromkeys(names[model.arm] for model in found if model is not None))


def mark_note(frame: pd.DataFrame, test: str) -> str:
    """What the mark means, for the caption; also where a sign-flip test has too few documents for anything else."""
    note = f"{UNPROVEN}: p ≥ {LEVEL:g} by {test}, Holm-corrected over {int(frame['p'].notna().sum())} comparisons."
    if "sign-flip" in test and (least := 2.0 ** (1 - frame["n"].max())) >= LEVEL:
        note += f" Of {int(frame['n'].max())} documents it gives no p below {least:g}."
    return note
