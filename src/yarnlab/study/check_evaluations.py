"""What must hold between an evaluation, its models and its text: lengths that fit, methods that the protocol can run,
text that was tokenised for the model."""

from __future__ import annotations

from collections.abc import Iterator

from yarnlab.study.data import Corpus, PythonPackages
from yarnlab.study.evaluations import Entropy, Evaluation, KeyCache, PasskeyOfficial, Perplexity, Temperature
from yarnlab.study.schema import Study

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]


def evaluation_problems(study: Study) -> Iterator[Problem]:
    """Every such mistake as (path of the key, what is wrong and what was expected)."""
    for kind, evaluation in study.evaluations:
        if evaluation is None:
            continue
        for name in sorted({*evaluation.corpora.values()} & set(study.corpora)):
            yield from _fits(kind, evaluation, name, study.corpora[name])
        for i, arm in enumerate(evaluation.models):
            if arm in study.models:
                yield from _runs(study, kind, evaluation, i, arm)


def foreign(study: Study, corpus: Corpus, arm: str) -> str | None:
    """Why an arm cannot read a corpus: its ids are another tokenizer's. None if it can."""
    own, given = study.tokenizer_of(arm), None if isinstance(corpus, PythonPackages) else corpus.tokenizer
    if own == given:
        return None
    return f"is tokenised by {given or 'the study itself'}, the model {arm} reads ids of {own or 'the study itself'}"


def _runs(study: Study, kind: str, evaluation: Evaluation, number: int, arm: str) -> Iterator[Problem]:
    """What stands in the way of one arm."""
    at: KeyPath = ("evaluations", kind)
    named = study.tokenizer_of(arm) if isinstance(evaluation.corpus, dict) else None
    corpus = evaluation.corpora.get(named)
    text = study.corpora.get(corpus or "") if evaluation.reads_corpus else None
    if text is not None and (problem := foreign(study, text, arm)):
        yield (*at, "corpus") if named is None else (*at, "corpus", named), problem
    rope, window = study.rope(arm), study.architecture(arm).original_context
    if rope.dynamic and isinstance(evaluation, Perplexity | PasskeyOfficial):
        hint = "`dynamic`" if isinstance(evaluation, Perplexity) else "`passkey`"
        yield (*at, "models", number), f"{arm} rescales with the input's length, which {kind} cannot follow: use {hint}"
    if isinstance(evaluation, Entropy) and evaluation.length > window:
        yield (*at, "length"), f"{evaluation.length} is longer than the original context of {arm}, {window} tokens"
    if isinstance(evaluation, KeyCache) and evaluation.length <= window:
        yield (
            (*at, "length"),
            f"{evaluation.length} must exceed the original context of {arm}, {window} tokens: nothing rescales before",
        )
    if isinstance(evaluation, Temperature):
        shortest = min(round(min(evaluation.scales) * window), evaluation.max_length)
        if shortest < 2 * evaluation.segments:
            yield (*at, "segments"), f"{evaluation.segments} segments need 2 tokens each, {arm} is read for {shortest}"


def _fits(kind: str, evaluation: Evaluation, name: str, corpus: Corpus) -> Iterator[Problem]:
    at = ("evaluations", kind)
    if corpus.min_tokens is None or corpus.documents is None:
        yield ("corpora", name), f"is used by evaluations.{kind} and needs `min_tokens` and `documents`"
        return
    asked = getattr(evaluation, "documents", None)
    if asked is not None and asked > corpus.documents:
        yield (*at, "documents"), f"corpus {name} has {corpus.documents} documents, got {asked}"
    key, longest = evaluation.longest
    where: KeyPath = (*at, key)
    if isinstance(evaluation, Perplexity):
        where = (*where, "stop")
    if longest > corpus.min_tokens:
        yield (
            where,
            f"{longest} tokens are longer than the documents of corpus {name} "
            f"(corpora.{name}.min_tokens is {corpus.min_tokens})",
        )
