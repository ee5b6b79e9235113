"""Partial results: what an evaluation has computed so far, kept until its outputs are written.

An attempt that is killed loses the part at work, and the next one reads the others instead of computing them. A part
is minutes of work at full scale and costs milliseconds to keep. What comes back is the same, whether it was computed
now or by an earlier attempt: computed values take the same way through text, which holds every bit of a number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yarnlab.progress import Progress
from yarnlab.provenance import replacing


class PartialResults:
    """The parts of one evaluation of one model; two processes may write the same ones at once.

    folder: where they are kept, its name standing for all that decides them (specification, code, inputs); None keeps
        nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def part(self, name: str, progress: Progress, steps: int, compute: Callable[[], list[Any]]) -> list[Any]:
        """The list that `compute` gives: of numbers, or of rows whose values are JSON's (text, numbers, truth values,
        None). Floats come back bit for bit, of fp32 too.

        Args:
            name: the part's own; a file's name.
            progress: gets the `steps` of a part that is read; `compute` counts its own.
        """
        try:
            found = None if self._folder is None else _read((self._folder / f"{name}.json").read_text("ascii"))
        except (OSError, ValueError):  # missing, or unreadable as a failing node can leave it
            found = None
        if found is not None:
            progress.skip(steps)
            return found
        made = json.dumps(compute())
        if self._folder is not None:
            try:
                with replacing(self._folder / f"{name}.json") as temporary:
                    temporary.write_text(made, "ascii")
            except OSError as error:  # the evaluation itself can go on
                progress.say(f"what was computed can't be kept for a later attempt: {error}")
        return _read(made)


def _read(text: str) -> list[Any]:
    found: list[Any] = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("not a list")
    return found
