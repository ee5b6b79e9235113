"""Where a study's text comes from and how it becomes tokens: assets, corpora, the tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, model_validator

from yarnlab.study.fields import ConfigModel, Distinct, Name, Positive, Share, each_once


class Asset(ConfigModel):
    """A repository of the hub at one revision (`repo` and `revision`), or a folder of this machine (`path`)."""

    type: Literal["model", "dataset"]
    """A model has weights and a tokenizer."""
    repo: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """`owner/name` on the hub."""
    revision: str | None = Field(default=None, pattern=r"^[\w][\w./-]*$")
    """A commit (40 hex digits), or a branch or tag that is resolved once, into config/hub.lock.yaml."""
    path: str | None = Field(default=None, min_length=1)
    """A folder, relative to the project's own folder whatever the study file's; absolute paths and `~` tie the study to
    one machine. Its files are copied. After an edit of the folder the next start makes what depends on it again."""
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Shell patterns of the files that are taken; without it those that a model needs, or all of a dataset."""

    @model_validator(mode="after")
    def _one_source(self) -> Asset:
        given = [key is not None for key in (self.repo, self.revision, self.path)]
        if given not in ([True, True, False], [False, False, True]):
            raise ValueError("an asset needs either `repo` and `revision`, or `path`")
        return self

    @property
    def source(self) -> str:
        """What it is a copy of: the repository, whatever its revision, or the folder."""
        return (self.repo or "").lower() if self.path is None else self.path


def _different(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The packages; ValueError for one that is named twice, also in another spelling."""
    each_once(tuple(map(canonicalize_name, packages)))
    return packages


class Blocks(ConfigModel):
    """Text cut into training blocks of one length; what is left over at the end is dropped."""

    length: Positive
    """Tokens of a block."""
    bookends: Literal["chunk", "document"]
    """`chunk` puts BOS and EOS around every block (the data card's wording); `document` puts them around every document
    and cuts the concatenation (the official tokenization.py)."""


class _Documents(ConfigModel):
    """Which documents of a source are kept; without a key, all."""

    min_tokens: Positive | None = None
    """Documents of fewer tokens are left out."""
    documents: Positive | None = None
    """How many documents are kept, the first ones."""
    max_tokens: Positive | None = None
    """The corpus ends at so many tokens."""

    @property
    def shortest(self) -> int | None:
        """Tokens that each document or block has at least; None where nothing bounds them."""
        blocks: Blocks | None = getattr(self, "blocks", None)
        return blocks.length if blocks is not None else self.min_tokens


class PythonPackages(_Documents):
    """Documents are the .py files of installed, pinned, pure-Python distributions, in an order drawn by seed."""

    source: Literal["python-packages"]
    """Marks a corpus of packages."""
    packages: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
    """Names of the distributions."""
    tokenizer: Name | None = None
    """The asset with whose tokenizer the text is tokenised, in place of the study's own."""
    max_digits: Share | None = None
    """Documents of which a larger share of characters are digits are left out: they are tables of numbers."""
    per_folder: Positive | None = None
    """At most so many documents of one folder are kept, so that documents vary."""


class HubText(_Documents):
    """Documents are the rows of a dataset's files, in the files' order."""

    source: Literal["hub-text"]
    """Marks a corpus of published text."""
    asset: Name
    """The dataset."""
    files: tuple[str, ...] = Field(min_length=1)
    """Shell patterns of the dataset's files that are read."""
    format: Literal["parquet", "jsonl", "text"]
    """`parquet` and `jsonl` files hold a document a row, `text` files are one document each."""
    column: str | None = None
    """The column of a row that holds its text."""
    tokenizer: Name
    """The asset with whose tokenizer the text is tokenised."""
    blocks: Blocks | None = None
    """Cut the text into training blocks; without it documents stay whole."""

    @model_validator(mode="after")
    def _column(self) -> HubText:
        if (self.column is None) != (self.format == "text"):
            raise ValueError(f"format {self.format} {'has no' if self.format == 'text' else 'needs a'} `column`")
        return self


class HubTokens(_Documents):
    """Documents are rows of token ids that somebody has published, in the files' order; kept as they are."""

    source: Literal["hub-tokens"]
    """Marks a corpus of published token ids."""
    asset: Name
    """The dataset."""
    files: tuple[str, ...] = Field(min_length=1)
    """Shell patterns of the dataset's parquet files that are read."""
    column: str
    """The column that holds the token ids."""
    tokenizer: Name
    """The asset whose tokenizer made the token ids."""


LocalPath = Annotated[str, Field(min_length=1)]


class LocalText(_Documents):
    """Documents are text files of this machine, or the rows of such files, in an order of files drawn by seed.

    The files count by what they hold: after an edit the next start makes the corpus again. In statistics the documents
    of one sub-folder count together; rows stand for themselves.
    """

    source: Literal["local-text"]
    """Marks a corpus of files of this machine."""
    path: LocalPath | Distinct[LocalPath]
    """A file, a folder or a shell pattern (`**` for any folders), or a list of them, relative to the project's own
    folder whatever the study file's; absolute paths and `~` tie the study to one machine. Of a folder those files are
    read, at any depth, that end in .txt or .md, one document each, in .jsonl (also .jsonl.gz, .jsonl.zst) or .parquet,
    one document a row. A file of another name that is given itself, or by a pattern, is one document."""
    column: str = Field(default="text", min_length=1)
    """The column of a row that holds its text."""
    part: tuple[Share, Share] | None = None
    """From which share to which of all documents, in an order that a hash of seed and text decides. Corpora with the
    same `path` and other stretches have no document in common, also where a text occurs twice: `[0, 0.9]` to train on,
    `[0.9, 1]` held out."""
    tokenizer: Name | None = None
    """The asset with whose tokenizer the text is tokenised, in place of the study's own."""
    blocks: Blocks | None = None
    """Cut the text into training blocks; without it documents stay whole."""

    @model_validator(mode="after")
    def _stretch(self) -> LocalText:
        if self.part is not None and self.part[0] >= self.part[1]:
            raise ValueError(f"part {list(self.part)} is empty; expected two shares from 0 to 1 that rise, as [0.9, 1]")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a list."""
        return (self.path,) if isinstance(self.path, str) else self.path


Corpus = Annotated[PythonPackages | LocalText | HubText | HubTokens, Field(discriminator="source")]


class Tokenizer(ConfigModel):
    """A byte-level BPE trained on a sample of one corpus's documents."""

    train_on: Name
    """The corpus, one of packages."""
    vocab_size: int = Field(ge=300)
    """Tokens of the vocabulary, special ones included."""
    split_digits: bool
    """Whether each digit is a token of its own."""
    sample_documents: Positive
    """How many documents the sample has."""
