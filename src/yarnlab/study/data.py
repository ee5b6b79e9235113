"""Where a study's text comes from and how it becomes tokens: assets, corpora, the tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, model_validator

from yarnlab.study.fields import ConfigModel, Distinct, Name, Positive, Share, each_once
from yarnlab.weights import GGUF, is_gguf

# What the package `gguf` quantises to, of the types that hold a weight in four bits or more. Blocks of 32 in a row.
Requantisation = Literal["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


class Wheel(ConfigModel):
    """One file of one pinned wheel of the package index. pip fetches it as it is configured; nothing of it is run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """The distribution."""
    version: str = Field(pattern=r"^[\w.+!-]+$")
    """Its version."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the wheel."""
    file: str = Field(pattern=GGUF)
    """The GGUF file in it."""


class Asset(ConfigModel):
    """A repository of the hub at one revision (`repo` and `revision`), a folder or GGUF file of this machine (`path`),
    or a GGUF file in a wheel of the package index (`wheel`)."""

    type: Literal["model", "dataset"]
    """A model has weights and a tokenizer."""
    repo: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    """`owner/name` on the hub."""
    revision: str | None = Field(default=None, pattern=r"^[\w][\w./-]*$")
    """A commit (40 hex digits), or a branch or tag that is resolved once, into config/hub.lock.yaml."""
    path: str | None = Field(default=None, min_length=1)
    """A folder, relative to the project's own folder whatever the study file's; absolute paths and `~` tie the study to
    one machine. Its files are copied. After an edit of the folder the next start makes what depends on it again.
    A model may also be one GGUF file: it is dequantised once, into a checkpoint in fp32."""
    wheel: Wheel | None = None
    """A model in a wheel; its GGUF file is dequantised once, into a checkpoint in fp32."""
    quantisation: str | None = Field(default=None, min_length=1)
    """What a GGUF file's weights were quantised to, as Q4_1: a file of another one is refused."""
    requantise: Requantisation | None = None
    """The type that a GGUF file's weights are quantised to once more before they are used: those of the type that most
    of them have, the others stay. For a control (`control_of` of a model), which says how much a result owes to the
    quantisation: take a type whose error is as large as that of the file's own."""
    bos: str | None = Field(default=None, min_length=1)
    """The token that begins a document, in place of the one that the model's tokenizer names: a chat model's may begin
    a turn (`<|im_start|>`), and is refused unless this key says what text begins with."""
    eos: str | None = Field(default=None, min_length=1)
    """The token that ends a document, as `bos`."""
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Shell patterns of the files that are taken; without it those that a model needs, or all of a dataset."""

    @model_validator(mode="after")
    def _one_source(self) -> Asset:
        given = [key is not None for key in (self.repo, self.revision, self.path, self.wheel)]
        if given not in ([True, True, False, False], [False, False, True, False], [False, False, False, True]):
            raise ValueError("an asset needs either `repo` and `revision`, or `path`, or `wheel`")
        return self

    @model_validator(mode="after")
    def _gguf(self) -> Asset:
        gguf = self.wheel is not None or is_gguf(self.path or "")
        if gguf and (self.type != "model" or self.files is not None):
            raise ValueError("a GGUF file is an asset of type model, without `files`")
        if self.quantisation is not None and not gguf:
            raise ValueError("`quantisation` is for an asset that is a GGUF file (`wheel`, or a `path` to one)")
        if self.requantise is not None and not gguf:
            raise ValueError("`requantise` is for an asset that is a GGUF file (`wheel`, or a `path` to one)")
        if self.requantise is not None and self.requantise == (self.quantisation or "").upper():
            raise ValueError(f"weights that are {self.requantise} already are not moved by it: name another type")
        named = [key for key in ("bos", "eos") if getattr(self, key) is not None]
        if named and self.type != "model":
            raise ValueError(f"`{named[0]}` is for an asset of type model, which has a tokenizer")
        return self

    @property
    def source(self) -> str:
        """What it is a copy of: the repository or the distribution, whatever its version, or the folder."""
        if self.wheel is not None:
            return canonicalize_name(self.wheel.name)
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
    separator: str | None = Field(default=None, min_length=1)
    """The token that ends a document, as the tokenizer spells it. Without it the tokenizer's EOS; where that is the end
    of a chat's turn, the end of a text (`<|endoftext|>`). The corpus's log and manifest show it."""

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
    parts: Distinct[Literal["source", "docstrings"]] | None = None
    """What a file gives: `source` the file itself, `docstrings` its documentation, one docstring after another. Where
    both are named, files take turns, so that a corpus has two kinds of text. Without it, files."""


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
