"""How much text two tokenised corpora share: equal blocks, and stretches of text wherever they begin.

A stretch is WINDOW tokens without BOS and EOS. Of all stretches those are compared whose hash falls into a fixed share
of the hash space ("scaled MinHash", Irber et al. 2022): the same stretches are drawn from both corpora, so the shares
found are those of the whole corpora up to sampling. Memory is bounded by CHUNK and by the number of drawn stretches.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yarnlab.corpus.packages import CorpusError
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.progress import Progress

WINDOW = 32  # tokens; a power of two
CHUNK = 1 << 22  # tokens hashed at once
DRAWN = 1_000_000  # about how many stretches of the larger corpus are compared

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """What two corpora share.

    tokens, blocks: of each. equal_blocks: distinct blocks that stand in both, their BOS and EOS aside. drawn: distinct
    stretches of each that were compared. a_in_b, b_in_a: share of a's (b's) distinct stretches that occur in the other.
    """

    tokens: tuple[int, int]
    blocks: tuple[int, int]
    equal_blocks: int
    drawn: tuple[int, int]
    a_in_b: float
    b_in_a: float
    window: int = WINDOW

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def overlap(a: TokenisedCorpus, b: TokenisedCorpus, drawn: int = DRAWN, *, label: str = "overlap") -> Overlap:
    """Compare two corpora of the same tokenizer; `label` begins the lines of progress.

    Raises CorpusError where their BOS and EOS differ, so their tokenizers do, or one has no stretch of WINDOW tokens.
    """
    if (a.bos, a.eos) != (b.bos, b.eos):
        raise CorpusError(
            f"the two corpora have other BOS and EOS ids ({a.bos}, {a.eos}; {b.bos}, {b.eos}), so they come from other "
            "tokenizers: compare corpora of one tokenizer"
        )
    rate = max(1, max(len(a.tokens), len(b.tokens)) // drawn)
    # Each corpus is read twice, for its stretches and for its blocks.
    progress = Progress(label, 2 * (len(a.tokens) + len(b.tokens)), log=None, unit="token")
    first, second = (_sample(corpus, rate, progress) for corpus in (a, b))
    for name, found in (("first", first), ("second", second)):
        if not len(found):
            raise CorpusError(f"the {name} corpus has too little text: no stretch of {WINDOW} tokens to compare")
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return Overlap(
        tokens=(len(a.tokens), len(b.tokens)),
        blocks=(len(a.starts), len(b.starts)),
        equal_blocks=len(_block_hashes(a, progress) & _block_hashes(b, progress)),
        drawn=(len(first), len(second)),
        a_in_b=shared / len(first),
        b_in_a=shared / len(second),
    )


def _sample(corpus: TokenisedCorpus, rate: int, progress: Progress) -> Hashes:
    """Sorted distinct hashes of one in `rate` of the corpus's stretches."""
    limit = np.uint64(2**64 // rate - 1)
    found = []
    stretches = max(len(corpus.tokens) - WINDOW + 1, 0)
    for start in range(0, stretches, CHUNK):
        ids = np.asarray(corpus.tokens[start : start + CHUNK + WINDOW - 1])
        hashes = _mixed(_windows(ids.astype(np.uint64)))
        special = np.concatenate(([0], np.cumsum((ids == corpus.bos) | (ids == corpus.eos))))
        text = special[WINDOW:] == special[:-WINDOW]
        found.append(np.unique(hashes[text & (hashes <= limit)]))
        progress.advance(CHUNK if start + CHUNK < stretches else len(corpus.tokens) - start)
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)


def _windows(ids: Hashes) -> Hashes:
    """Polynomial hash (mod 2^64) of the WINDOW ids from each place on, by doubling the length of the windows."""
    factor = np.uint64(0x9E3779B97F4A7C15)
    values, length = ids + np.uint64(1), 1
    with np.errstate(over="ignore"):
        while length < WINDOW:
            values = values[:-length] * factor + values[length:]
            factor, length = factor * factor, 2 * length
    return values


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64's finaliser: spreads the hashes evenly, so that a range of them is a random sample."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _block_hashes(corpus: TokenisedCorpus, progress: Progress) -> set[bytes]:
    found = set()
    for i in range(len(corpus.starts)):
        ids = np.asarray(corpus.document(i)).astype(np.uint32)
        kept = ids[(ids != corpus.bos) & (ids != corpus.eos)]
        found.add(hashlib.blake2b(kept.tobytes(), digest_size=16).digest())
        progress.advance(len(ids))
    return found
