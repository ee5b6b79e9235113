"""Text that lies on this machine: which files a corpus has, and what they hold.

The hash of the content is in the corpus's section of the study, so an edit is noticed at the next start. Imported at
every start, so without NumPy.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.corpus.packages import CorpusError
from yarnlab.hub.local import Sources, hashed
from yarnlab.provenance import project_root

# Ending of a file → its format, of the files that are read of a folder.
FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}
SOURCES = "sources.json"  # in the folder of a corpus: its files as they were read


def format_of(file: Path) -> str | None:
    """How a file is read, from the end of its name; None for other files, which a corpus must name itself."""
    return next((form for ending, form in FORMATS.items() if file.name.lower().endswith(ending)), None)


@dataclass(frozen=True)
class TextFiles:
    """Files, folders and shell patterns as a study declares them; relative to the project's folder, or with `~`."""

    paths: tuple[str, ...]

    @classmethod
    def of(cls, path: str | Sequence[str]) -> TextFiles:
        """What a corpus's `path` means."""
        return cls((path,) if isinstance(path, str) else tuple(path))

    def __str__(self) -> str:
        return ", ".join(self.paths)

    def files(self) -> dict[str, Path]:
        """Name below the folder that all have in common → file, sorted.

        CorpusError for a path that has none, and for a name that is no text, which no table of documents could hold.
        """
        found = {Path(os.path.abspath(file)) for path in self.paths for file in _files_at(path)}
        try:
            "".join(map(str, found)).encode()
        except UnicodeEncodeError:
            bad = next(name for name in map(os.fsencode, found) if name != name.decode(errors="ignore").encode())
            raise CorpusError(f"path {self}: the name {bad!r} is not in UTF-8: rename it, or leave it out") from None
        common = Path(os.path.commonpath([file.parent for file in found]))
        return {file.relative_to(common).as_posix(): file for file in sorted(found)}

    def size(self) -> int:
        """Bytes of the files. Raises CorpusError for one that can't be read."""
        try:
            return sum(file.stat().st_size for file in self.files().values())
        except OSError as error:
            raise unreadable(error) from None

    def read(self, known: Mapping[str, Any] | None = None) -> Sources:
        """The files by name, hashed but for those that are `known` at this size and time of change.

        Raises CorpusError for one that can't be read.
        """
        try:
            return hashed(self.files(), dict(known or {}))
        except OSError as error:
            raise unreadable(error) from None


def text_files(corpora: Mapping[str, Any]) -> dict[str, TextFiles]:
    """Name → files of those corpora of a study (study.data.Corpus) that lie on this machine."""
    return {name: TextFiles(corpus.paths) for name, corpus in corpora.items() if corpus.source == "local-text"}


@contextmanager
def of_corpus(name: str) -> Iterator[None]:
    """A mistake in the block names the corpus, as the study's key."""
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"corpora.{name}: {error}") from None


def unreadable(error: OSError) -> CorpusError:
    """What to say of a file that the system does not give."""
    return CorpusError(
        f"{error.filename} can't be read ({error.strerror}): make it readable, or leave it out of the corpus's `path`"
    )


def _files_at(path: str) -> Iterator[Path]:
    """The files of one entry of `path`, of a folder those with endings that are known, at any depth."""
    try:
        named = project_root() / Path(path).expanduser()
    except RuntimeError as error:  # no such user
        raise CorpusError(f"path {path}: {error}") from None
    places = [named]
    if not os.path.lexists(named):
        pattern = str(Path(path).expanduser())
        places = [
            project_root() / place for place in sorted(glob.glob(pattern, root_dir=project_root(), recursive=True))
        ]
    if not places:
        what = "nothing matches" if glob.has_magic(path) else "there is no"
        raise CorpusError(f"path {path}: {what} {named}; name files, folders or shell patterns of files that are there")
    found = False
    for place in places:
        for file in _of_folder(place) if place.is_dir() else [place]:
            found = True
            yield file
    if not found:
        raise CorpusError(
            f"path {path}: {named} holds no file that ends in {', '.join(FORMATS)}; name others one by one"
        )


def _of_folder(folder: Path) -> Iterator[Path]:
    """Hidden files and folders are left out; links are followed, but into no folder twice."""
    seen = set()

    def refuse(error: OSError) -> None:
        raise unreadable(error)

    for at, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(at))
        folders[:] = [n for n in sorted(folders) if n[0] != "." and os.path.realpath(Path(at, n)) not in seen]
        yield from (Path(at, name) for name in names if name[0] != "." and format_of(Path(name)) is not None)
