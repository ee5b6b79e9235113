"""The documents that an evaluation reads, checked against what it asks for and what the model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnlab.errors import UserError
from yarnlab.lazy import np

if TYPE_CHECKING:
    from yarnlab.corpus.tokens import TokenisedCorpus


class EvaluationError(UserError):
    """An evaluation that cannot give a meaningful number; the message says why and what to do."""


def prefixes(corpus: TokenisedCorpus, length: int, documents: int | None, vocab_size: int) -> np.ndarray:
    """BOS and the first `length` − 1 tokens of each of the first `documents` documents (None: all of them).

    Returns int64, (documents, length). Raises EvaluationError if there are fewer documents, for a shorter one, and for
    ids that the model does not have.
    """
    return np.stack([prefix(corpus, i, length, vocab_size) for i in range(documents_of(corpus, documents))])


def documents_of(corpus: TokenisedCorpus, asked: int | None) -> int:
    """How many documents are read where `asked` are asked for (None: all). EvaluationError if there are fewer."""
    wanted = len(corpus.names) if asked is None else asked
    if wanted > len(corpus.names) or wanted == 0:
        raise EvaluationError(f"the corpus has {len(corpus.names)} documents, {max(1, wanted)} are asked for")
    return wanted


def prefix(corpus: TokenisedCorpus, number: int, length: int, vocab_size: int) -> np.ndarray:
    """BOS and the first `length` − 1 tokens of one document, counted from 0: int64, (length,). Raises as `prefixes`."""
    ids = corpus.document(number)[:-1]  # without EOS
    if len(ids) < length:
        raise EvaluationError(
            f"document {corpus.names[number]} has {len(ids)} tokens with BOS, {length} are needed: shorten the "
            "evaluation, or raise the corpus's min_tokens"
        )
    tokens = ids[:length].astype(np.int64)
    check_vocabulary(int(tokens.max()), vocab_size)
    return tokens


def texts_of(ids: np.ndarray, length: int) -> np.ndarray:
    """The texts of a document: (texts, length), each BOS and the next `length` − 1 tokens of it.

    Args:
        ids: BOS and at least `length` − 1 document tokens, (tokens,).
    """
    count = (len(ids) - 1) // (length - 1)
    rows = ids[1 : 1 + count * (length - 1)].reshape(count, length - 1)
    return np.concatenate([np.full((count, 1), ids[0]), rows], axis=1)


def check_vocabulary(largest_id: int, vocab_size: int) -> None:
    """EvaluationError for a corpus with ids that the model does not have."""
    if largest_id >= vocab_size:
        raise EvaluationError(
            f"there is a token id {largest_id}, the model's vocabulary ends at {vocab_size - 1}: "
            "the text was tokenised for another model"
        )
