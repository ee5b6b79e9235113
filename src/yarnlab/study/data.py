"""Where a study's text comes from and how it becomes tokens: assets of the hub, corpora, the tokenizer."""

from __future__ import annotations

from typing import Annotated, Literal

from packaging.utils import canonicalize_name
from pydantic import AfterValidator, Field, model_validator

from yarnlab.study.fields import Name, Positive, Section, each_once


class Asset(Section):
    """A repository of the hub at one revision: a model (weights and tokenizer) or a dataset.

    `files` are shell patterns of the files that are fetched; without it those that a model needs, or all of a dataset.
    A branch or tag as `revision` is resolved once, into config/hub.lock.yaml; 40 hex digits are a commit already.
    """

    type: Literal["model", "dataset"]
    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    revision: str = Field(pattern=r"^[\w][\w./-]*$")
    files: tuple[str, ...] | None = Field(default=None, min_length=1)


def _different(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The packages; ValueError for one that is named twice, also in another spelling."""
    each_once(tuple(map(canonicalize_name, packages)))
    return packages


class _Documents(Section):
    """Which documents of a source are kept: at least `min_tokens` long, `documents` of them, up to `max_tokens`."""

    min_tokens: Positive | None = None
    documents: Positive | None = None
    max_tokens: Positive | None = None


class PythonPackages(_Documents):
    """Documents are the .py files of installed, pinned, pure-Python distributions, in an order drawn by seed."""

    source: Literal["python-packages"]
    packages: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]


class Blocks(Section):
    """Text cut into training blocks of `length` tokens, BOS first and EOS last in each.

    `bookends: chunk` puts BOS and EOS around every block (the data card's wording); `document` puts them around
    every document and cuts the concatenation (the official tokenization.py). The rest of the text is dropped.
    """

    length: Positive
    bookends: Literal["chunk", "document"]


class HubText(_Documents):
    """Documents are the rows of a dataset's files, in the files' order; `tokenizer` is an asset that has one.

    `format`: `parquet` and `jsonl` rows hold the text in `column`; `text` files are one document each.
    """

    source: Literal["hub-text"]
    asset: Name
    files: tuple[str, ...] = Field(min_length=1)
    format: Literal["parquet", "jsonl", "text"]
    column: str | None = None
    tokenizer: Name
    blocks: Blocks | None = None

    @model_validator(mode="after")
    def _column(self) -> HubText:
        if (self.column is None) != (self.format == "text"):
            raise ValueError(f"format {self.format} {'has no' if self.format == 'text' else 'needs a'} `column`")
        return self


class HubTokens(_Documents):
    """Documents are rows of token ids that somebody has published, in the files' order; kept as they are."""

    source: Literal["hub-tokens"]
    asset: Name
    files: tuple[str, ...] = Field(min_length=1)
    column: str
    tokenizer: Name


Corpus = Annotated[PythonPackages | HubText | HubTokens, Field(discriminator="source")]


class Tokenizer(Section):
    """A byte-level BPE trained on a sample of one corpus's documents."""

    train_on: Name
    vocab_size: int = Field(ge=300)
    split_digits: bool
    sample_documents: Positive
