"""One row per trained model: budget, speed, and mean losses over its last steps."""

from __future__ import annotations

import math
from typing import Any

from yarnlab.lazy import np, pd
from yarnlab.results.display import INTERVAL, DisplayTable, duration, percent, rows_of, value, with_interval
from yarnlab.results.registry import table
from yarnlab.results.results import Results
from yarnlab.results.statistics import mean_of_steps
from yarnlab.results.style import labels

LAST_STEPS = 20


def tidy(results: Results) -> pd.DataFrame:
    rows = []
    names = labels(results)
    for name, log in results.frame("training").groupby("model", sort=False):
        model, last = results.models[str(name)], log.tail(LAST_STEPS)
        end = log.iloc[-1]
        rows.append(
            {
                "model": model.name,
                "arm": model.arm,
                "label": names[model.arm],
                "seed": model.seed,
                "parent": model.parent or "",
                "row_length": model.trained_length,
                "steps": int(end["step"]),
                "tokens": int(end["tokens"]),
                "seconds": float(end["seconds"]),
                "tokens_per_second": float(log["tokens_per_second"].median()),
                "mfu_causal": float(log["mfu_causal"].median()),
                "mfu_palm": float(log["mfu_palm"].median()),
                "peak_memory_gib": float(log["peak_memory_gib"].max()),
                "averaged_steps": len(last),
            }
            | _final(log, len(last), "loss")
            | _final(log, len(last), "text_loss")
            | _final(log, len(last), "answer_loss")
        )
    return pd.DataFrame(rows)


def _final(log: pd.DataFrame, last: int, column: str) -> dict[str, float]:
    values = log[column].dropna().to_numpy(np.float64)
    return mean_of_steps(values, last).columns(f"final_{column}") if len(values) else {f"final_{column}": math.nan}


TIMED = ("time", "tokens/s", "MFU (causal)", "MFU (PaLM)", "peak memory")


@table("Training", tidy, needs=("training",), section="training", place=20, timed=TIMED)
def training(results: Results, frame: pd.DataFrame) -> list[DisplayTable]:
    """One row per trained model."""
    rows = [
        {
            "model": r.model,
            "row length": "–" if pd.isna(r.row_length) else f"{int(r.row_length):,}",
            "steps": f"{r.steps:,}",
            "tokens": f"{value(r.tokens / 1e6)} M",
            "time": duration(r.seconds),
            "tokens/s": value(r.tokens_per_second, 4),
            "MFU (causal)": percent(r.mfu_causal),
            "MFU (PaLM)": percent(r.mfu_palm),
            "peak memory": f"{r.peak_memory_gib:.2f} GiB",
            "final loss": _final_shown(r, "loss"),
            "text": _final_shown(r, "text_loss"),
            "answers": _final_shown(r, "answer_loss"),
        }
        for r in rows_of(frame)
    ]
    steps = int(frame["averaged_steps"].min()) if len(frame) else 0
    caption = f"Training by model. Losses: nats/token, mean of the last {steps} steps, corrected for how "
    caption += f"alike neighbouring steps are. Speed: median step. {INTERVAL}."
    return [DisplayTable(caption, pd.DataFrame(rows), [[f"models/{m}/manifest.json"] for m in frame["model"]])]


def _final_shown(row: Any, loss: str) -> str:
    """The columns are absent where no model has this loss."""
    x, low, high = (getattr(row, f"final_{loss}{end}", math.nan) for end in ("", "_low", "_high"))
    return with_interval(x, low, high)
