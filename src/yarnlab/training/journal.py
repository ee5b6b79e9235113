"""What a training run writes while it runs: one JSON line per step, and progress."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from yarnlab.progress import Progress
from yarnlab.training.checkpoint import Place
from yarnlab.training.parallel import Group


class Journal:
    """The step log, continued at `place`; in processes that do not lead their group it writes nothing."""

    def __init__(self, label: str, metrics: Path, log: Path | None, steps: int, place: Place, group: Group) -> None:
        self._metrics, self._leads = metrics, group.leads
        self._file: IO[str] | None = None
        if self._leads:
            _keep_lines(metrics, place.total_steps)
            self._progress = Progress(label, steps, log=log)
            self._progress.resume_at(place.total_steps)
            if place.total_steps:
                self._progress.say(f"continuing after step {place.total_steps}")

    def __enter__(self) -> Journal:
        self._file = self._metrics.open("a", encoding="utf-8") if self._leads else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def step(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._progress.advance(note=f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s")


def _keep_lines(metrics: Path, count: int) -> None:
    """Cut the log to the steps of the checkpoint: those after it will be made, and written, again."""
    metrics.parent.mkdir(parents=True, exist_ok=True)
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.exists() else []
    metrics.write_text("".join(lines[:count]), encoding="utf-8")
