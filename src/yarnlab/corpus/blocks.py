"""Documents cut into training blocks, in both readings of "64k segments bookended with BOS and EOS" (paper §4.1).

`chunk`: every block is BOS, `length` − 2 ids of one document, EOS. `document`: BOS and EOS around every document, all
of them one behind the other, cut every `length` ids (the official tokenization.py:38-64). What does not fill a block
is dropped, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Dropped:
    """Ids of text that no block holds."""

    ids: int = 0


def by_chunk(
    documents: Iterable[np.ndarray], length: int, bos: int, eos: int, dropped: Dropped
) -> Iterator[np.ndarray]:
    room = length - 2
    for ids in documents:
        for first in range(0, len(ids) - room + 1, room):
            yield np.concatenate([[bos], ids[first : first + room], [eos]])
        dropped.ids += len(ids) % room


def by_document(
    documents: Iterable[np.ndarray], length: int, bos: int, eos: int, dropped: Dropped
) -> Iterator[np.ndarray]:
    waiting = np.empty(0, dtype=np.int64)
    for ids in documents:
        waiting = np.concatenate([waiting, [bos], ids, [eos]])
        full = len(waiting) // length * length
        yield from waiting[:full].reshape(-1, length)
        waiting = waiting[full:]
    dropped.ids += len(waiting)


CUTS = {"chunk": by_chunk, "document": by_document}
