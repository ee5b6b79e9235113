"""How often a comparison would hold if the paper's effect were the truth here: `python tests/results/power.py` writes it
into docs/claims.md.

Simulated with the statistics of the claims: documents of sub-packages, runs and their noise as micro studies showed them
before the version of the criteria (sd of the paired quantity over documents; sd between runs), and the effect that the
paper printed. So a number says what the planned documents and runs can show, not what they did.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results.light import light
from yarnlab.provenance import project_root
from yarnlab.results import statistics
from yarnlab.results.claims.parts import HOLDS, interval
from yarnlab.results.statistics import Estimate

BEGIN, END = "<!-- power:begin -->", "<!-- power:end -->"
RUNS = (1, 3, 5)
DRAWS = 200
FILLERS = 12


@dataclass(frozen=True)
class Row:
    """A comparison: what it must be, the paper's effect in nats (or as a share), and the spread of what is compared.

    documents, packages: planned; `trials` instead of documents where hits are compared.
    """

    claim: str
    compared: str
    effect: float
    sign: str
    threshold: float
    source: str
    sd: float = 0.0
    run_sd: float = 0.0
    documents: int = 16
    packages: int = 10
    trials: int = 0


ROWS = (
    Row("8", "zero-shot, s = 8 at 8L, YaRN / NTK-by-parts", math.log(3.33 / 5.79), "<", 0, "v3 Table 5", 0.16, 0.0, 72, 55),
    Row("18", "fine-tuned, at sL, YaRN / NTK-by-parts", math.log(2.77 / 2.81), "<=", 0, "v3 Table 5", 0.055, 0.02),
    Row("18", "fine-tuned, at sL, NTK-by-parts / PI", math.log(2.81 / 3.57), "<", 0, "v3 Table 5", 0.055, 0.02),
    Row("20", "texts of L, YaRN net of fine-tuning: none", 0.0, "<=", math.log(1.04), "v2 §3.2", 0.064, 0.017, 48, 38),
    Row("26", "texts of L, s=32 / s=16 net of fine-tuning: none", 0.0, "<=", math.log(1.02), "v2 §4.2", 0.039, 0.02, 48, 38),
    Row("26", "at 2L … sL, s=32 / s=16", math.log(1.0), "<=", math.log(1.02), "v2 §4.2", 0.06, 0.037, 16, 13),
    Row("31", "texts of L, net of fine-tuning: none", 0.0, "<=", 0.03, "v2 Table 3", 0.05, 0.015, 48, 38),
    Row("29", "passkey, s=32, 512 to 8,192 tokens: 159 of 160", 159 / 160, ">=", 0.95, "v2 Table 5", trials=250),
    Row("29", "passkey, s=16, 512 to 4,096 tokens: 77 of 80", 77 / 80, ">=", 0.90, "v2 Table 5", trials=200),
    Row("21", "passkey, YaRN minus NTK-by-parts: 34 and 6 of 50", 0.56, ">", 0.05, "v3 Fig. 3, data", trials=80),
)  # fmt: skip


def simulated(row: Row, runs: int, rng: np.random.Generator) -> Estimate:
    """The estimate of one study with this many runs."""
    if row.trials:
        groups = [trial % FILLERS for trial in range(row.trials)]
        shift = 0.5 * rng.normal(size=FILLERS)[groups] + 0.3 * rng.normal(size=(runs, 1))

        def hits(rate: float) -> np.ndarray:
            logit = math.log(rate / (1 - rate)) + shift
            return (rng.random((runs, row.trials)) < 1 / (1 + np.exp(-logit))).astype(float)

        if row.claim == "21":  # two rates, and the interval of their difference
            return statistics.paired_difference_of_proportions(hits(34 / 50), hits(6 / 50), groups=groups)
        return statistics.accuracy(hits(row.effect), groups=groups)
    package = np.arange(row.documents) % row.packages
    shared = math.sqrt(0.3) * rng.normal(size=row.packages)[package]
    values = row.effect + row.sd * (shared + math.sqrt(0.7) * rng.normal(size=row.documents))
    values = values + row.run_sd * rng.normal(size=(runs, 1)) + 0.2 * row.sd * rng.normal(size=(runs, row.documents))
    return statistics.mean(values, groups=list(package))


def power(row: Row, runs: int, draws: int = DRAWS) -> float:
    """How often the comparison holds."""
    rng = np.random.default_rng(20261128)
    with light(400):
        found = [interval("x", simulated(row, runs, rng), row.sign, row.threshold).status for _ in range(draws)]
    return found.count(HOLDS) / draws


def table(measure: Callable[[Row, int], float] = power) -> str:
    """The Markdown table, shares to 5 %."""
    lines = ["| claim | comparison | effect of the paper | n | " + " | ".join(f"{n} run{'s' * (n > 1)}" for n in RUNS)]
    lines[0] += " |"
    lines.append("|---|---|---|---|" + "---|" * len(RUNS))
    for row in ROWS:
        effect = f"{100 * row.effect:.1f} %" if row.trials else f"{row.effect:+.3f} nats".replace("-", "−")
        n = f"{row.trials} trials" if row.trials else f"{row.documents} documents"
        shares = " | ".join(f"{5 * round(20 * measure(row, runs))} %" for runs in RUNS)
        lines.append(f"| {row.claim} | {row.compared} | {effect} ({row.source}) | {n} | {shares} |")
    return "\n".join(lines)


def page() -> Path:
    return project_root() / "docs" / "claims.md"


if __name__ == "__main__":
    text = page().read_text(encoding="utf-8")
    block = f"{BEGIN}\n{table()}\n{END}"
    page().write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.S), encoding="utf-8")
