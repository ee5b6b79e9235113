"""What must hold between an evaluation, its models and its text: lengths that fit, methods that the protocol can run,
text that was tokenised for the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yarnlab.rope import check_options, make_rope
from yarnlab.study.data import Corpus, PythonPackages
from yarnlab.study.evaluations import (
    Benchmarks,
    Entropy,
    Evaluation,
    KeyCache,
    PasskeyOfficial,
    Perplexity,
    Ramp,
    Temperature,
    ZeroShot,
    question_tokens,
)
from yarnlab.study.fields import KeyPath
from yarnlab.study.schema import Architecture, Study

Problem = tuple[KeyPath, str]


def evaluation_problems(study: Study) -> Iterator[Problem]:
    """Every such mistake as (path of the key, what is wrong and what was expected)."""
    for kind, evaluation in study.evaluations:
        if evaluation is None:
            continue
        for name in sorted({*evaluation.corpora.values()} & set(study.corpora)):
            yield from _fits(kind, evaluation, name, study.corpora[name])
        known = [arm for arm in evaluation.models if arm in study.models]
        for i, arm in enumerate(evaluation.models):
            if arm in known:
                yield from _runs(study, kind, evaluation, i, arm)
        if isinstance(evaluation, Ramp):
            yield from _variants(evaluation, [study.architecture(arm) for arm in known])


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
    if isinstance(evaluation, ZeroShot) and evaluation.max_length < window:
        yield (
            (*at, "max_length"),
            f"{evaluation.max_length} is below the original context of {arm}, {window} tokens, where the lengths begin",
        )
    if isinstance(evaluation, Entropy) and evaluation.length > window:
        yield (*at, "length"), f"{evaluation.length} is longer than the original context of {arm}, {window} tokens"
    if isinstance(evaluation, KeyCache) and evaluation.length <= window:
        yield (
            (*at, "length"),
            f"{evaluation.length} must exceed the original context of {arm}, {window} tokens: nothing rescales before",
        )
    if isinstance(evaluation, Benchmarks) and evaluation.shots is not None:
        try:
            question_tokens(window - evaluation.add_bos, evaluation.shots)
        except ValueError as error:
            yield (*at, "shots"), f"{error} (the original context of {arm} is {window})"
    if isinstance(evaluation, Temperature):
        shortest = min(round(min(evaluation.scales) * window), evaluation.max_length)
        if shortest < 2 * evaluation.segments:
            yield (*at, "segments"), f"{evaluation.segments} segments need 2 tokens each, {arm} is read for {shortest}"


def _variants(ramp: Ramp, shapes: list[Architecture]) -> Iterator[Problem]:
    """The first mistake in each variant's options, on any of the models' shapes."""
    for name, options in ramp.variants.items():
        at = ("evaluations", "ramp", "variants", name)
        problems = (rope_problem(at, ramp.method, max(ramp.scales), options, shape) for shape in shapes)
        yield from [problem for problem in problems if problem is not None][:1]


def rope_problem(
    at: KeyPath, method: str, scale: float, options: Mapping[str, Any], shape: Architecture
) -> Problem | None:
    """What keeps a method with these options from models of this shape; the key is that of the option where it is one.

    Args:
        at: the key of the section that holds the options.
    """
    for key in options:
        try:
            check_options(method, [key])
        except ValueError as error:
            return (*at, key), str(error)
    try:
        make_rope(
            method,
            scale=scale,
            original_context=shape.original_context,
            head_dim=shape.head_dim,
            base=shape.rope_theta,
            **options,
        )
    except (TypeError, ValueError) as error:  # a method of the user's own may lack an option, or compare with a text
        return at, str(error)
    return None


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
