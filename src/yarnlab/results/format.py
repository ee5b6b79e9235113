"""Tables as text: Markdown and LaTeX from frames of ready-made strings, and how numbers are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Section:
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


def to_markdown(sections: list[Section]) -> str:
    """GitHub-style tables, each under its caption."""
    blocks = []
    for section in sections:
        columns = [str(c) for c in section.frame.columns]
        lines = [f"**{section.caption}**", "", _row(columns), _row(["---"] * len(columns))]
        lines += [_row([str(cell) for cell in row]) for row in section.frame.itertuples(index=False)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def to_latex(sections: list[Section], name: str) -> str:
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


def _row(cells: list[str]) -> str:
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
