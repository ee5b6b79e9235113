"""What must hold between an evaluation, its models and its text: lengths that fit, methods that the protocol can run,
text that was tokenised for the model."""

from __future__ import annotations

from collections.abc import Iterator

from yarnlab.evaluation.base import Evaluation
from yarnlab.study.data import Corpus
from yarnlab.study.fields import KeyPath, Problem
from yarnlab.study.schema import Study


def evaluation_problems(study: Study) -> Iterator[Problem]:
    """Every such mistake, once, as (path of the key, what is wrong and what was expected)."""
    for _, evaluation in study.evaluations:
        if evaluation is not None:
            yield from dict.fromkeys(_problems(study, evaluation))


def _problems(study: Study, evaluation: Evaluation) -> Iterator[Problem]:
    """The mistakes of one evaluation; its own constraints are in its class (`check`)."""
    at: KeyPath = ("evaluations", evaluation.kind)
    for name in sorted({*evaluation.corpora.values()} & set(study.corpora)):
        yield from _fits(at, evaluation, name, study.corpora[name])
    for i, arm in enumerate(evaluation.models):
        if arm in study.models:
            yield from _reads(study, at, evaluation, arm)
            if evaluation.STATIC_ONLY and study.rope(arm).dynamic:
                yield (*at, "models", i), f"{arm} rescales with the input's length, {evaluation.STATIC_ONLY}"
            yield from (((*at, *key), problem) for key, problem in evaluation.check(study, arm))


def foreign(study: Study, corpus: Corpus, arm: str) -> str | None:
    """Why an arm cannot read a corpus: its ids are another tokenizer's. None if it can."""
    own, given = study.tokenizer_of(arm), corpus.tokenizer
    if own == given:
        return None
    return f"is tokenised by {given or 'the study itself'}, the model {arm} reads ids of {own or 'the study itself'}"


def _reads(study: Study, at: KeyPath, evaluation: Evaluation, arm: str) -> Iterator[Problem]:
    named = study.tokenizer_of(arm) if isinstance(evaluation.corpus, dict) else None
    corpus = study.corpora.get(evaluation.corpora.get(named, "")) if evaluation.reads_corpus else None
    if corpus is not None and (problem := foreign(study, corpus, arm)):
        yield (*at, "corpus") if named is None else (*at, "corpus", named), problem


def _fits(at: KeyPath, evaluation: Evaluation, name: str, corpus: Corpus) -> Iterator[Problem]:
    if corpus.min_tokens is None or corpus.documents is None:
        yield ("corpora", name), f"is used by evaluations.{evaluation.kind} and needs `min_tokens` and `documents`"
        return
    asked = getattr(evaluation, "documents", None)
    if asked is not None and asked > corpus.documents:
        yield (*at, "documents"), f"corpus {name} has {corpus.documents} documents, got {asked}"
    key, longest = evaluation.longest
    if longest > corpus.min_tokens:
        yield (
            (*at, *key),
            f"{longest} tokens are longer than the documents of corpus {name} "
            f"(corpora.{name}.min_tokens is {corpus.min_tokens})",
        )
