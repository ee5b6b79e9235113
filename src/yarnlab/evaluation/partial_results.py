"""Partial results: what an evaluation has computed so far, kept until its outputs are written.

An attempt that is killed loses the part at work, and the next one reads the others instead of computing them. A part
is minutes of work at full scale and costs milliseconds to keep. What comes back is the same, whether it was computed
now or by an earlier attempt: computed values take the same way through text, which holds every bit of a number. Each
file begins with the sha256 of what follows it.
"""

from __future__ import annotations

import hashlib
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
        file = None if self._folder is None else self._folder / f"{name}.json"
        if file is not None and (kept := _kept(file, progress)) is not None:
            progress.skip(steps)
            return _read(kept)
        made = json.dumps(compute()).encode("ascii")
        if file is not None:
            try:
                with replacing(file) as temporary:
                    temporary.write_bytes(_digest(made) + made)
            except OSError as error:  # the evaluation itself can go on
                progress.say(f"what was computed can't be kept for a later attempt: {error}")
        return _read(made)


def content(file: Path) -> bytes | None:
    """What a part holds; None if that is not what was written. Raises OSError."""
    digest, end, made = file.read_bytes().partition(b"\n")
    return made if digest + end == _digest(made) else None


def _kept(file: Path, progress: Progress) -> bytes | None:
    """What an earlier attempt computed, if it is there and whole."""
    try:
        if (kept := content(file)) is None:
            progress.say(f"{file} is not what was written; it is computed again")
        return kept
    except FileNotFoundError:
        return None
    except OSError as error:
        progress.say(f"{file} can't be read ({error}); it is computed again")
        return None


def _digest(made: bytes) -> bytes:
    return hashlib.sha256(made).hexdigest().encode("ascii") + b"\n"


def _read(made: bytes) -> list[Any]:
    found: list[Any] = json.loads(made)
    return found
