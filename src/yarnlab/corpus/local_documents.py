"""Documents of this machine's files: read as their names say, in an order of files drawn by seed, in part or all.

What is a part is decided by the texts alone, so corpora of the same files agree on it, and a text that occurs twice is
in one part only. Memory holds a batch of texts and, where a part is asked for, 16 bytes for each document.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from yarnlab.corpus.datasets import encoded, text_rows
from yarnlab.corpus.local import format_of, unreadable
from yarnlab.corpus.packages import CorpusError
from yarnlab.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import tokenizers


class EmptyPart(CorpusError):
    """A part of the documents in which there is none."""


@dataclass
class LocalDocuments:
    """The documents of one corpus; `part` is None for all of them."""

    files: Mapping[str, Path]
    column: str
    part: tuple[float, float] | None
    seed: int
    log: Path | None = None
    empty: int = field(default=0, init=False)  # left out, as they hold blanks at most

    @property
    def root(self) -> str:
        """What every document's name begins with: the folder that all files have in common, by its own name."""
        name, file = next(iter(self.files.items()))
        return f"./{file.parents[name.count('/')].name}"

    def encoded(self, tokenizer: tokenizers.Tokenizer) -> Iterator[tuple[str, np.ndarray]]:
        """(name, ids without special tokens) of each document; lazy, so that a full corpus ends the reading.

        Raises CorpusError naming the file, and the row, for what is no text, and for a part without documents.
        """
        names: deque[str] = deque()  # of the texts that wait to be encoded

        def texts() -> Iterator[str]:
            for name, text in self._of_part():
                names.append(name)
                yield text

        for ids in encoded(texts(), tokenizer):
            yield names.popleft(), ids

    def _of_part(self) -> Iterator[tuple[str, str]]:
        if self.part is None:
            yield from self._texts("read")
            return
        order = sorted({self._place(text) for _, text in self._texts("draw")})
        first, end = (round(share * len(order)) for share in self.part)
        if first == end:
            raise EmptyPart(
                f"part {list(self.part)} of {len(order)} different documents is none: name more files, or widen the "
                "part (a document is a file, or a row of .jsonl or .parquet)"
            )
        least, most = order[first], order[end - 1]
        yield from ((name, text) for name, text in self._texts("read") if least <= self._place(text) <= most)

    def _place(self, text: str) -> bytes:
        """Where a document stands among all: a hash, so anywhere, but at the same place in every corpus."""
        return hashlib.blake2b(f"{self.seed}\0{text}".encode(), digest_size=16).digest()

    def _texts(self, verb: str) -> Iterator[tuple[str, str]]:
        """(name, text) of every document that holds more than blanks.

        A file's name is its path, by which statistics count the documents of a sub-folder together; a row's has no
        folders.
        """
        names = list(self.files)
        random.Random(self.seed).shuffle(names)
        progress = Progress(verb, len(names), log=self.log, unit="file")
        self.empty = 0
        for name in names:
            form = format_of(self.files[name]) or "text"
            try:
                for number, text in enumerate(text_rows(self.files[name], form, self.column), 1):
                    text = text.removeprefix("\ufeff")  # some editors' mark of UTF-8
                    if not text.strip():
                        self.empty += 1
                        continue
                    place = name if form == "text" else f"{name.replace('/', ':')}:{number}"
                    yield f"{self.root}/{place}", text
            except OSError as error:
                raise unreadable(error) from None
            progress.advance()
