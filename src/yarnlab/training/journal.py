"""What a training run writes while it runs: one JSON line per step, and progress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from yarnlab.progress import Progress
from yarnlab.provenance import replacing
from yarnlab.training.checkpoint import TrainState
from yarnlab.training.parallel import Group

OWN = "steps.jsonl"
STRETCHES = "stretches.json"
# Of a stretch's facts, those that change the order of additions, and with it the last bits of the weights.
ORDER = ("attention", "kernels", "sharding", "loss", "world", "context", "device", "threads")


class JournalFailed(OSError):
    """A line about the training could not be written; its checkpoints are as they were."""


class Journal:
    """The step log, continued at `start`; in processes that do not lead their group it writes nothing.

    `metrics` shows the steps of whichever state was trained last. Each state keeps a log of its own beside its
    checkpoints, so that one which is taken up again after another finds its own lines.
    """

    def __init__(
        self, label: str, state: Path, metrics: Path, log: Path | None, steps: int, start: TrainState, group: Group
    ) -> None:
        self._paths, self._is_leader = (state / OWN, metrics), group.is_leader
        self._stretches = state / STRETCHES
        self.last: dict[str, Any] = {}  # the line of the last step
        self._files: list[IO[str]] = []
        self._opened = ExitStack()
        if self._is_leader:
            lines = _keep_lines(state / OWN, metrics, start.total_steps)
            self.last = json.loads(lines[-1]) if lines else {}
            self._log = log
            self._progress = Progress(label, steps, log=log)
            self._progress.resume_at(start.total_steps)
            if start.total_steps:
                with _writing(log):
                    self._progress.say(f"continuing after step {start.total_steps}")

    def __enter__(self) -> Journal:
        if self._is_leader:
            self._files = [self._opened.enter_context(path.open("a", encoding="utf-8")) for path in self._paths]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):  # every line was flushed, so closing can fail only on one that has failed already
            self._opened.close()

    def stretch(self, after: int, facts: dict[str, Any]) -> None:
        """Note what computes the steps after step `after`, where that is something else than before."""
        if not self._is_leader:
            return
        noted = [one for one in _read(self._stretches) if one["after_step"] < after]
        if not noted or noted[-1] != {"after_step": noted[-1]["after_step"], **facts}:
            noted.append({"after_step": after, **facts})
        with _writing(self._stretches), replacing(self._stretches) as temporary:
            temporary.write_text(json.dumps(noted), encoding="utf-8")

    def step(self, line: dict[str, Any]) -> None:
        """Write one step's line. Raises JournalFailed."""
        if not self._is_leader:
            return
        for path, file in zip(self._paths, self._files, strict=True):
            with _writing(path):
                file.write(json.dumps(line) + "\n")
                file.flush()
        with _writing(self._log):
            self._progress.advance(note=f"loss {line['loss']:.3f}, {line['tokens_per_second']:,.0f} tokens/s")


@contextmanager
def _writing(path: Path | None) -> Iterator[None]:
    """The system says that a disk is full, and often not of which file."""
    try:
        yield
    except OSError as error:
        where = path or "standard error"
        raise JournalFailed(f"{where}: {error.strerror or error}; run the same command again; it continues") from error


def stretches(state: Path) -> dict[str, Any]:
    """For the manifest: what computed the steps, stretch by stretch, and what of it changed the order of additions."""
    noted = _read(state / STRETCHES)
    changed = [key for key in ORDER if any(one.get(key) != noted[0].get(key) for one in noted)]
    return {"stretches": noted, "summation_order_changed_by": changed}


def _read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def _keep_lines(own: Path, metrics: Path, count: int) -> list[str]:
    """Cut the state's log to the steps of the checkpoint, and show it: those after it will be made again."""
    lines = own.read_text(encoding="utf-8").splitlines(keepends=True)[:count] if own.exists() else []
    for file in (own, metrics):
        with _writing(file), replacing(file) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
    return lines
