"""The text that a study is to read: how much of it there is, and how a part is held out that is long enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.corpus.local import TextFiles, format_of
from yarnlab.corpus.local_documents import EmptyPart, LocalDocuments
from yarnlab.corpus.packages import CorpusError
from yarnlab.new.parent import TOKENIZER, NewError, Parent, project_path, tokenizer_folder

if TYPE_CHECKING:
    import tokenizers

SHARES = (0.1, 0.2, 0.3, 0.5)  # of the documents that are held out, the first that gives ENOUGH
SAMPLE = 2000  # tokens of a document that tell how many there are in a byte
ENOUGH, FEWEST, MOST = 8, 3, 20  # long documents that evaluations read: intervals come from their spread


@dataclass(frozen=True)
class Text:
    """Two corpora, as sections of a study.

    train, held_out: without the keys that depend on lengths. documents: that `held_out` has of at least the new
    context. tokens: about how many are trained on, None where nobody knows.
    """

    train: dict[str, Any]
    held_out: dict[str, Any]
    documents: int
    tokens: int | None
    assets: dict[str, dict[str, Any]]


def published_text() -> Text:
    """PG19's books, from the hub."""
    shared = {"source": "hub-text", "asset": "pg19", "format": "parquet", "column": "text", "tokenizer": "base"}
    assets = {"pg19": {"type": "dataset", "repo": "emozilla/pg19", "revision": "main"}}
    train = {**shared, "files": ["data/train-*.parquet"]}
    held_out = {**shared, "files": ["data/test-*.parquet", "data/validation-*.parquet"]}
    return Text(train, held_out, 10, None, assets)


def local_text(paths: Sequence[str], column: str, parent: Parent, context: int, seed: int) -> Text:
    """Files of this machine: a part held out that has documents of `context` tokens, the rest to train on.

    Raises CorpusError for what is not there or no text, NewError where too few documents are so long.
    """
    if "" in paths:
        raise NewError("--text '': give the files or folders of the text")
    named = list(dict.fromkeys(project_path(Path(path)) for path in paths))
    files = TextFiles(tuple(named)).files()
    if TOKENIZER not in parent.files:
        raise NewError(
            f"{parent.name} has no {TOKENIZER}, so nobody can tell how long the text is: convert its tokenizer once, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    rows = [name for name, file in files.items() if format_of(file) in ("jsonl", "parquet")]
    shared: dict[str, Any] = {"source": "local-text", "path": named[0] if len(named) == 1 else named}
    shared |= {"column": column} if rows and column != "text" else {}
    shared["tokenizer"] = "base"
    found = (0, 0.0, 0.0)
    for share in SHARES:
        long, rate = _held_out(files, column, (1 - share, 1.0), seed, parent.files, context)
        found = max(found, (long, share, rate), key=lambda each: each[0])
        if long >= ENOUGH:
            break
    long, share, rate = found
    if long < FEWEST:
        raise NewError(
            f"--text {' '.join(paths)}: the text is too short for {context:,} tokens: of the {len(files)} files' "
            f"documents {long} are so long in the half that would be held out, {FEWEST} are needed (a document is a "
            "file, or a row of .jsonl or .parquet). Give longer texts, or a smaller --scale"
        )
    size, border = sum(file.stat().st_size for file in files.values()), round(1 - share, 2)
    train, held_out = ({**shared, "part": part} for part in ([0.0, border], [border, 1.0]))
    return Text(train, held_out, long, int(size * border * rate), {})


def _held_out(
    files: dict[str, Path],
    column: str,
    part: tuple[float, float],
    seed: int,
    words: Mapping[str, bytes],
    context: int,
) -> tuple[int, float]:
    """(documents of at least `context` tokens, up to MOST; tokens a byte) in a part of the text."""
    documents = LocalDocuments(files, column, (round(part[0], 2), part[1]), seed)
    known = _tokenizer(words)
    long = tokens = size = 0
    try:
        for _, ids in documents.encoded(known):
            sample = ids[:SAMPLE].tolist()
            tokens, size = tokens + len(sample), size + len(known.decode(sample).encode())
            long += len(ids) >= context
            if long >= MOST:
                break
    except EmptyPart:  # of another share there may be some
        pass
    except CorpusError as error:
        if "`column`" not in str(error):
            raise
        raise CorpusError(f"{error}. Here: --column NAME") from None
    return long, tokens / size if size else 0.0


def shortest_passkey(words: Mapping[str, bytes]) -> int:
    """Tokens that a passkey prompt takes with its answer and without filler."""
    from yarnlab.corpus.passkey import PasskeyText

    text = PasskeyText(_tokenizer(words))
    key = max((text.key_ids(digits) for digits in ("10203", "98765", "00000")), key=len)
    return 1 + sum(map(len, (text.test.opening, text.test.statement(key), text.test.question, key)))


def _tokenizer(words: Mapping[str, bytes]) -> tokenizers.Tokenizer:
    from yarnlab.corpus.tokenizer import load_tokenizer

    with tokenizer_folder(words) as folder:
        return load_tokenizer(folder)
