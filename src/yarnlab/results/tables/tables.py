"""The study's tables: each a tidy frame (CSV) and one or more displayed tables (Markdown, LaTeX, report)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.bases import roots
from yarnlab.results.contents import TABLE_NEEDS
from yarnlab.results.display import DisplayTable, to_latex, to_markdown
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.output import write
from yarnlab.results.registry import Build
from yarnlab.results.results import Results, ResultsError, load
from yarnlab.results.tables import (
    display,
    display_dynamic,
    display_mechanism,
    display_protocols,
    published,
    tidy,
    tidy_dynamic,
    tidy_mechanism,
    tidy_protocols,
)


@dataclass(frozen=True)
class Table:
    """A table: its tidy form (numbers), its displayed form (strings), and the results it reads.

    `needs` are all kinds of results that it reads; without the first of them it says 'not run', unless it is `always`
    built: the paper's tables show the published numbers whether or not there are ours. `of_one_base`: it is about one
    base, and a study with several has it once for each.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    build: Callable[[Results], pd.DataFrame] = field(repr=False)
    show: Callable[[Results, pd.DataFrame], list[DisplayTable]] = field(repr=False)
    always: bool = False
    of_one_base: bool = False


def _table(name: str, title: str, numbers: Any = tidy, layout: Any = display) -> Table:
    build, show = getattr(numbers, name), getattr(layout, name)
    return Table(name, title, TABLE_NEEDS[name], build, show, of_one_base=name in OF_ONE_BASE)


def _of_paper(name: str, title: str, needs: tuple[str, ...], build: Build) -> Table:
    return Table(name, title, needs, lambda r: build(r)[0], lambda r, _: build(r)[1], always=True)


OF_ONE_BASE = ("ablation", "zero_shot", "temperature", "ramp", "entropy", "entropy_by_layer", "dynamic",
               "key_cache")  # fmt: skip


TABLES = {
    "perplexity": _table("perplexity", "Perplexity by context window"),
    "ablation": _table("ablation", "What each part of YaRN contributes, at equal budget"),
    "zero_shot": _table("zero_shot", "Extension without fine-tuning"),
    "passkey": _table("passkey", "Passkey retrieval"),
    "passkey_comparison": _table("passkey_comparison", "Passkey retrieval beside YaRN's"),
    "benchmarks": _table("benchmarks", "Short tasks", tidy_protocols, display_protocols),
    "temperature": _table("temperature", "Best temperature by scale", tidy_mechanism, display_mechanism),
    "ramp": _table("ramp", "Shapes of the ramp", tidy_mechanism, display_mechanism),
    "entropy": _table("entropy", "Entropy of the attention", tidy_mechanism, display_mechanism),
    "entropy_by_layer": _table(
        "entropy_by_layer", "Entropy of the attention by layer and head", tidy_mechanism, display_mechanism
    ),
    "dynamic": _table("dynamic", "Dynamic scaling", tidy_dynamic, display_dynamic),
    "key_cache": _table("key_cache", "What the wrong key cache costs", tidy_dynamic, display_dynamic),
    "sliding_window": _table("sliding_window", "Sliding-window perplexity", tidy_protocols, display_protocols),
    "passkey_official": _table(
        "passkey_official", "Passkey retrieval under the official prompt", tidy_protocols, display_protocols
    ),
    "training": _table("training", "Training"),
    "cost": _table("cost", "What each stage cost"),
}
TABLES |= {name: _of_paper(name, title, needs, build) for name, title, needs, build in published.TABLES}


def table(name: str) -> Table:
    """The table called `name`; ResultsError lists the names when there is none."""
    if name not in TABLES:
        raise ResultsError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name]


def built(results: Results, wanted: Table) -> tuple[pd.DataFrame, list[DisplayTable]]:
    """The tidy and the displayed form; NotMeasured says why there is nothing to show.

    Of several bases: the rows of each under its name as `base`, and its sections one after the other.
    """
    reason = None if wanted.always else results.missing(wanted.needs[:1])
    if reason is None and wanted.of_one_base and len(roots(results)) > 1:
        return _for_each_base(results, wanted)
    if reason is not None:
        raise NotMeasured(reason)
    frame = wanted.build(results)
    sections = wanted.show(results, frame) if len(frame) else []
    sections = [section for section in sections if len(section.frame)]
    if not sections:
        raise NotMeasured("this study has nothing to compare here")
    return frame, sections


def _for_each_base(results: Results, wanted: Table) -> tuple[pd.DataFrame, list[DisplayTable]]:
    frames: dict[str, pd.DataFrame] = {}
    sections: list[DisplayTable] = []
    absent: list[NotMeasured] = []
    for base, tree in roots(results).items():
        if tree.has(wanted.needs[0]):
            try:
                frames[base], shown = built(tree, wanted)
                sections += [replace(section, caption=f"{base}: {section.caption}") for section in shown]
            except NotMeasured as reason:
                absent.append(reason)
    if not frames:
        raise absent[0]
    return pd.concat(frames, names=["base", None]).reset_index("base"), sections


def write_table(study_dir: Path, name: str) -> list[Path]:
    """Write tables/<name>.{csv,md,tex}. Where its inputs are absent the files say 'not run'."""
    wanted, results = table(name), load(study_dir)
    base = Path(study_dir) / "tables"
    try:
        frame, sections = built(results, wanted)
    except NotMeasured as reason:
        csv, md, tex = f"status,reason\nnot run,{reason}\n", f"not run: {reason}\n", f"% not run: {reason}\n"
    else:
        csv = frame.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        md, tex = f"# {wanted.title}\n\n{to_markdown(sections)}", to_latex(sections, name)
    texts = {"csv": csv, "md": md, "tex": tex}
    return [write(base / f"{name}.{suffix}", text) for suffix, text in texts.items()]
