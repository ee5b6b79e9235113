"""What a training run writes while it runs: one JSON line per step, and progress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from yarnlab.progress import Progress
from yarnlab.provenance import replacing
from yarnlab.training.checkpoint import TrainState
from yarnlab.training.parallel import Group

# Of a stretch's facts, those that change the order of additions, and with it the last bits of the weights.
ORDER = ("attention", "kernels", "sharding", "loss", "world", "context", "device", "threads")


class JournalFailed(OSError):
    """A line about the training could not be written; its checkpoints are as they were."""


class Journal:
    """The step log, continued at `start`; in processes that do not lead their group it writes nothing.

    Its lines are part of each checkpoint (`notes`), which they come back from: `metrics` shows the steps of whichever
    state was trained last, and is written anew from them at the start and at the end.
    """

    def __init__(
        self,
        label: str,
        metrics: Path,
        log: Path | None,
        steps: int,
        start: TrainState,
        notes: Mapping[str, Any],
        group: Group,
    ) -> None:
        self._metrics, self._log, self._is_leader = metrics, log, group.is_leader
        self._lines: list[dict[str, Any]] = list(notes.get("steps", ()))
        self._stretches: list[dict[str, Any]] = list(notes.get("stretches", ()))
        self._file: IO[str] | None = None
        if self._is_leader:
            self._show()
            self._progress = Progress(label, steps, log=log)
            self._progress.resume_at(start.total_steps)
            if start.total_steps:
                with _writing(log):
                    self._progress.say(f"continuing after step {start.total_steps}")

    def __enter__(self) -> Journal:
        if self._is_leader:
            self._file = self._metrics.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # every line was flushed, so closing can fail only on one that has failed already
            self._file.close()
        if kind is None:
            self._show()

    @property
    def last(self) -> dict[str, Any]:
        """The line of the last step; empty before the first one, and where nothing is written."""
        return self._lines[-1] if self._lines else {}

    def notes(self) -> dict[str, Any]:
        """What a checkpoint keeps of the steps so far."""
        return {"steps": self._lines, "stretches": self._stretches}

    def facts(self) -> dict[str, Any]:
        """For the manifest: what computed the steps, stretch by stretch; what of it changed the order of additions."""
        noted = self._stretches
        changed = [key for key in ORDER if any(one.get(key) != noted[0].get(key) for one in noted)]
        return {"stretches": noted, "summation_order_changed_by": changed}

    def stretch(self, after: int, facts: dict[str, Any]) -> None:
        """Note what computes the steps after step `after`, where that is something else than before."""
        noted = [one for one in self._stretches if one["after_step"] < after]
        if not noted or noted[-1] != {"after_step": noted[-1]["after_step"], **facts}:
            noted.append({"after_step": after, **facts})
        self._stretches = noted

    def step(self, line: dict[str, Any]) -> None:
        """Write one step's line. Raises JournalFailed."""
        if self._file is None:
            return
        self._lines.append(line)
        with _writing(self._metrics):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        with _writing(self._log):
            self._progress.advance(note=f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s")

    def _show(self) -> None:
        with _writing(self._metrics), replacing(self._metrics) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self._lines), encoding="utf-8")


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    """The system says that a disk is full, and often not of which file."""
    try:
        yield
    except OSError as error:
        where = path or "standard error"
        raise JournalFailed(f"{where}: {error.strerror or error}; run the same command again; it continues") from error
