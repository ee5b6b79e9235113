"""What must hold across the parts of a study: names that exist, trees without cycles, lengths that fit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from yarnlab.study.evaluations import Perplexity
from yarnlab.study.schema import Study, Train

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]


def find_problems(study: Study) -> list[Problem]:
    """Every cross-part mistake as (path of the key, what is wrong and what was expected)."""
    tree = list(_tree(study))
    if tree:
        return tree  # the rest follows parents, which must exist and end first
    return [
        *_names(study),
        *_shapes(study),
        *_training(study),
        *_lengths(study),
        *_disjoint(study),
        *_unused(study),
    ]


def _tree(study: Study) -> Iterator[Problem]:
    for arm, model in study.models.items():
        if model.parent is not None and model.parent not in study.models:
            yield (
                ("models", arm, "from"),
                f"there is no model {model.parent!r}{_near(model.parent, study.models)}",
            )
    if any(m.parent is not None and m.parent not in study.models for m in study.models.values()):
        return
    for arm in study.models:
        seen, at = [arm], study.models[arm].parent
        while at is not None and at not in seen:
            seen.append(at)
            at = study.models[at].parent
        if at == arm:
            yield (
                ("models", arm, "from"),
                f"a cycle: {' -> '.join([*seen, arm])}; a tree must start at a `pretrain` model",
            )


def _names(study: Study) -> Iterator[Problem]:
    if study.tokenizer.train_on not in study.corpora:
        yield (
            ("tokenizer", "train_on"),
            f"there is no corpus {study.tokenizer.train_on!r}{_near(study.tokenizer.train_on, study.corpora)}",
        )
    for path, phase in _phases(study):
        if phase.corpus not in study.corpora:
            yield (
                (*path, "corpus"),
                f"there is no corpus {phase.corpus!r}{_near(phase.corpus, study.corpora)}",
            )
    for kind, evaluation in study.evaluations:
        if evaluation is None:
            continue
        at = ("evaluations", kind)
        if evaluation.corpus not in study.corpora:
            yield (
                (*at, "corpus"),
                f"there is no corpus {evaluation.corpus!r}{_near(evaluation.corpus, study.corpora)}",
            )
        for i, arm in enumerate(evaluation.models):
            if arm not in study.models:
                yield (*at, "models", i), f"there is no model {arm!r}{_near(arm, study.models)}"
            elif evaluation.models.index(arm) != i:
                yield (*at, "models", i), f"{arm!r} is listed twice"


def _shapes(study: Study) -> Iterator[Problem]:
    for arm, model in study.models.items():
        if model.pretrain is not None:
            shape, at = model.pretrain.architecture, ("models", arm, "pretrain", "architecture")
            if shape.num_attention_heads % shape.num_key_value_heads:
                yield (
                    (*at, "num_key_value_heads"),
                    f"must divide num_attention_heads {shape.num_attention_heads}",
                )
            if shape.initialisation == "induction" and (
                shape.num_hidden_layers < 2 or shape.hidden_size < 2 * shape.head_dim
            ):
                yield (
                    (*at, "initialisation"),
                    f"induction needs two layers and a hidden_size of 2 x head_dim = {2 * shape.head_dim} or more",
                )
        elif model.rope is not None and model.train is not None and model.rope.method.startswith("dynamic-"):
            yield (
                ("models", arm, "rope", "method"),
                f"{model.rope.method} is for evaluation only, without `train`",
            )


def _training(study: Study) -> Iterator[Problem]:
    for path, phase in _phases(study):
        arm = str(path[1])
        context = study.rope(arm).context
        if phase.seq_len > context:
            yield (
                (*path, "seq_len"),
                f"{phase.seq_len} is longer than the model's context of {context} tokens",
            )
        if phase.global_batch % (phase.micro_batch * phase.processes):
            yield (
                (*path, "micro_batch"),
                f"must divide global_batch {phase.global_batch} among processes ({phase.processes}), "
                f"got {phase.micro_batch}",
            )
        if phase.processes != study.models[arm].phases[0].processes:
            yield (*path, "processes"), "must be the same in all phases of a model"
        if phase.warmup_steps >= phase.steps:
            yield (*path, "warmup_steps"), f"must be below steps ({phase.steps}), got {phase.warmup_steps}"
        if phase.schedule == "constant" and phase.final_lr_share:
            yield (*path, "final_lr_share"), "has no effect with a constant schedule"
        retrieval, repeats = phase.rows.retrieval, phase.rows.repeats
        if (retrieval.share if retrieval else 0) + (repeats.share if repeats else 0) > 1:
            yield (*path, "rows"), "the shares of retrieval and repeats add up to more than 1"
        if retrieval and retrieval.min_keys > retrieval.max_keys:
            yield (*path, "rows", "retrieval", "min_keys"), "must not exceed max_keys"
        if repeats and repeats.min_segment > repeats.max_segment:
            yield (*path, "rows", "repeats", "min_segment"), "must not exceed max_segment"


def _lengths(study: Study) -> Iterator[Problem]:
    for kind, evaluation in study.evaluations:
        if evaluation is None or evaluation.corpus not in study.corpora:
            continue
        at = ("evaluations", kind)
        corpus = study.corpora[evaluation.corpus]
        if corpus.min_tokens is None or corpus.documents is None:
            yield (
                ("corpora", evaluation.corpus),
                f"is used by evaluations.{kind} and needs `min_tokens` and `documents`",
            )
            continue
        asked = getattr(evaluation, "documents", None)
        if asked is not None and asked > corpus.documents:
            yield (*at, "documents"), f"corpus {evaluation.corpus} has {corpus.documents} documents, got {asked}"
        key, longest = evaluation.longest
        where: KeyPath = (*at, key)
        if isinstance(evaluation, Perplexity):
            where = (*where, "stop")
            if not evaluation.lengths.values():
                yield where, f"is below start {evaluation.lengths.start}"
        if longest > corpus.min_tokens:
            yield (
                where,
                f"{longest} tokens are longer than the documents of corpus {evaluation.corpus} "
                f"(corpora.{evaluation.corpus}.min_tokens is {corpus.min_tokens})",
            )


def _disjoint(study: Study) -> Iterator[Problem]:
    trained = {phase.corpus for _, phase in _phases(study)} | {study.tokenizer.train_on}
    evaluated = {e.corpus for _, e in study.evaluations if e is not None}
    for name in sorted(evaluated & set(study.corpora)):
        for other in sorted(trained & set(study.corpora)):
            shared = set(study.corpora[name].packages) & set(study.corpora[other].packages)
            if shared:
                yield (
                    ("corpora", name, "packages"),
                    f"{', '.join(sorted(shared))} is training text too (corpus {other}); evaluate on held-out text",
                )


def _unused(study: Study) -> Iterator[Problem]:
    used = {arm for _, evaluation in study.evaluations if evaluation is not None for arm in evaluation.models}
    for arm in [*used]:
        while arm in study.models and (parent := study.models[arm].parent) is not None and parent not in used:
            used.add(parent)
            arm = parent
    for arm in study.models:
        if arm not in used:
            yield (
                ("models", arm),
                "no evaluation uses this model, nor one made from it; list it under an evaluation's `models`",
            )


def _phases(study: Study) -> Iterator[tuple[KeyPath, Train]]:
    for arm, model in study.models.items():
        if model.pretrain is not None:
            for i, phase in enumerate(model.pretrain.phases):
                yield ("models", arm, "pretrain", "phases", i), phase
        elif model.train is not None:
            yield ("models", arm, "train"), model.train


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
