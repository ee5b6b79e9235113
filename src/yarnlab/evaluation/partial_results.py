"""Partial results: what an evaluation has computed so far, kept until its outputs are written.

An attempt that is killed loses the part at work, and the next one reads the others instead of computing them. A part
is minutes of work at full scale and costs milliseconds to keep. What comes back is the same, whether it was computed
now or by an earlier attempt: computed values take the same way through text or bytes. Each file begins with the sha256
of what follows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from yarnlab.progress import Progress
from yarnlab.provenance import replacing

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Row = dict[str, Any]


class PartialResults:
    """The parts of one evaluation of one model; two processes may write the same ones at once.

    folder: where they are kept, its name standing for all that decides them (specification, code, inputs); None keeps
        nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def rows(self, name: str, progress: Progress, steps: int, compute: Callable[[], list[Row]]) -> list[Row]:
        """The rows that `compute` gives, whose values are JSON's: text, Python's numbers (or fp64), truth values, None.

        Args:
            name: the part's own; a file's name.
            progress: gets the `steps` of a part that is read; `compute` counts its own.
        """
        return self._part(f"{name}.rows", progress, steps, lambda: json.dumps(compute()).encode("ascii"), _rows_in)

    def array(self, name: str, progress: Progress, steps: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array that `compute` gives, bit for bit; otherwise as `rows`."""
        return self._part(f"{name}.array", progress, steps, lambda: _bytes_of(compute()), _array_in)

    def _part(
        self, name: str, progress: Progress, steps: int, compute: Callable[[], bytes], read: Callable[[bytes], T]
    ) -> T:
        if self._folder is None:
            return read(compute())
        file = self._folder / name
        try:
            if (kept := content(file)) is not None:
                found = read(kept)
                progress.skip(steps)
                return found
            progress.say(f"{file} is not what was written; it is computed again")
        except FileNotFoundError:
            pass
        except OSError as error:
            progress.say(f"{file} can't be read ({error}); it is computed again")
        made = compute()
        self._keep(file, made, progress)
        return read(made)

    def _keep(self, file: Path, made: bytes, progress: Progress) -> None:
        try:
            with replacing(file) as temporary:
                temporary.write_bytes(_digest(made) + made)
        except OSError as error:  # the evaluation itself can go on
            progress.say(f"what was computed can't be kept for a later attempt: {error}")


def content(file: Path) -> bytes | None:
    """What a part holds; None if that is not what was written. Raises OSError."""
    digest, end, made = file.read_bytes().partition(b"\n")
    return made if digest + end == _digest(made) else None


def _digest(made: bytes) -> bytes:
    return hashlib.sha256(made).hexdigest().encode("ascii") + b"\n"


def _rows_in(data: bytes) -> list[Row]:
    rows: list[Row] = json.loads(data)
    return rows


def _bytes_of(array: np.ndarray) -> bytes:
    from io import BytesIO

    import numpy as np

    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _array_in(data: bytes) -> np.ndarray:
    from io import BytesIO

    import numpy as np

    array: np.ndarray = np.load(BytesIO(data), allow_pickle=False)
    return array
