"""Wall time and peak memory of every stage that left a manifest."""

from __future__ import annotations

import math
from typing import Any

from yarnlab.lazy import pd
from yarnlab.results.display import DisplayTable, duration, rows_of
from yarnlab.results.registry import table
from yarnlab.results.results import Results


def tidy(results: Results) -> pd.DataFrame:
    rows = [
        {
            "stage": manifest.get("stage", ""),
            "name": manifest.get("name", ""),
            "seconds": float(manifest.get("seconds") or math.nan),
            "peak_memory_gib": float(manifest.get("peak_memory_bytes") or math.nan) / 2**30,
            "run": manifest.get("run", ""),
            "manifest": manifest["path"],
        }
        for manifest in results.manifests
    ]
    return pd.DataFrame(rows)


@table(
    "What each stage cost",
    tidy,
    needs=("manifests",),
    section="cost",
    place=20,
    fold="Every stage",
    timed=("wall time", "peak memory"),
)
def cost(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per stage and name, and their sum."""
    rows: list[dict[str, Any]] = [
        {
            "stage": r.stage,
            "name": r.name_,
            "wall time": duration(r.seconds),
            "peak memory": "–" if pd.isna(r.peak_memory_gib) else f"{r.peak_memory_gib:.2f} GiB",
        }
        for r in rows_of(frame.rename(columns={"name": "name_"}))
    ]
    total, peak = frame["seconds"].sum(), frame["peak_memory_gib"].max()
    rows.append(
        {
            "stage": "all",
            "name": f"{len(frame)} stages",
            "wall time": duration(float(total)),
            "peak memory": "–" if pd.isna(peak) else f"{peak:.2f} GiB",
        }
    )
    caption = f"Wall time and peak memory from the manifests (n = {len(frame)} stages, one run each)."
    return [DisplayTable(caption, pd.DataFrame(rows), [[path] for path in frame["manifest"]] + [[]])]
