"""Progress of long work: a line with bar, rate and time left on a terminal, plain lines in the log file.

Two jobs of the workflow share one terminal, so a line is printed whole and never redrawn.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


class Progress:
    """Counts steps of `total` and reports them at most every `every` seconds, and the last one always.

    side_by_side: how many steps are under way at a time. Those beside the one that was just made count as half made:
    with none counted, the time left would begin twice too long for two.
    """

    def __init__(self, label: str, total: int, *, log: Path | None, unit: str = "step", every: float = 5.0) -> None:
        self.label, self.total, self.unit, self.every = label, total, unit, every
        self.side_by_side = 1
        self._log = log
        self._done = self._first = 0
        self._skipped = False
        self._start = self._last = time.monotonic()

    def resume_at(self, done: int) -> None:
        """Start counting at `done` steps that an earlier attempt made: they do not count for the rate."""
        self._done = self._first = done

    def skip(self, count: int) -> None:
        """Count the next steps as an earlier attempt's; one line says so before the next one that is made."""
        self._done += count
        self._first += count
        self._skipped = True
        if self._done >= self.total:
            self._say_skipped()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._say_skipped()
        self._done += count
        moment = time.monotonic()
        if moment - self._last < self.every and self._done < self.total:
            return
        self._last = moment
        self._show(moment - self._start, note)

    def say(self, text: str) -> None:
        """A message that is not a count."""
        self._write(text, f"{self.label}: {text}")

    def _say_skipped(self) -> None:
        if self._skipped:
            self.say(f"continuing after {self._done} of {self.total} {self.unit}s")
        self._skipped = False

    def _show(self, elapsed: float, note: str) -> None:
        from tqdm import tqdm

        made, left = self._done - self._first, self.total - self._done
        under_way = min(self.side_by_side - 1, left)
        rate = (made + under_way / 2) / elapsed if elapsed > 0 else 0.0
        eta = tqdm.format_interval(left / rate) if rate else "?"
        speed = f"{1 / rate:.1f} s/{self.unit}" if 0 < rate < 1 else f"{rate:.2f} {self.unit}s/s"
        plain = f"{self._done}/{self.total} {self.unit}s, {speed}, {eta} left{', ' if note else ''}{note}"
        bar = tqdm.format_meter(
            self._done,
            self.total,
            elapsed,
            ncols=60,
            prefix=f"{self.label:<24.24}",
            bar_format="{desc} {percentage:3.0f}% {bar}",
        )
        self._write(plain, f"{bar} {plain}")

    def _write(self, plain: str, rich: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        print(
            f"{stamp} {rich if sys.stderr.isatty() else f'{self.label}: {plain}'}",
            file=sys.stderr,
            flush=True,
        )
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"{stamp} {self.label}: {plain}\n")
