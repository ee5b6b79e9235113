"""The study's tables: each a tidy frame (CSV) and one or more displayed tables (Markdown, LaTeX, report)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from yarnlab.analysis import display, tidy
from yarnlab.analysis.contents import TABLE_NEEDS
from yarnlab.analysis.format import Section, to_latex, to_markdown
from yarnlab.analysis.load import Results, ResultsError, load
from yarnlab.analysis.output import write


@dataclass(frozen=True)
class Table:
    """A table: its tidy form (numbers), its displayed form (strings), and the results it reads.

    `needs` are all kinds of results that it reads; without the first of them it says 'not run'.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    build: Callable[[Results], pd.DataFrame] = field(repr=False)
    show: Callable[[Results, pd.DataFrame], list[Section]] = field(repr=False)


def _table(name: str, title: str) -> Table:
    return Table(name, title, TABLE_NEEDS[name], getattr(tidy, name), getattr(display, name))


TABLES = {
    "perplexity": _table("perplexity", "Perplexity by context window"),
    "ablation": _table("ablation", "What each part of YaRN contributes, at equal budget"),
    "zero_shot": _table("zero_shot", "Extension without fine-tuning"),
    "passkey": _table("passkey", "Passkey retrieval"),
    "training": _table("training", "Training"),
    "cost": _table("cost", "What each stage cost"),
}


def table(name: str) -> Table:
    """The table called `name`; ResultsError lists the names when there is none."""
    if name not in TABLES:
        raise ResultsError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]


def write_table(study_dir: Path, name: str) -> list[Path]:
    """Write tables/<name>.{csv,md,tex}. Where its inputs are absent the files say 'not run'."""
    wanted, results = table(name), load(study_dir)
    base = Path(study_dir) / "tables"
    reason = results.missing(wanted.needs[:1])
    if reason is not None:
        csv, md, tex = f"status,reason\nnot run,{reason}\n", f"not run: {reason}\n", f"% not run: {reason}\n"
    else:
        frame = wanted.build(results)
        sections = wanted.show(results, frame)
        csv = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        md, tex = f"# {wanted.title}\n\n{to_markdown(sections)}", to_latex(sections, name)
    texts = {"csv": csv, "md": md, "tex": tex}
    return [write(base / f"{name}.{suffix}", text) for suffix, text in texts.items()]
