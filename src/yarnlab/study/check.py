"""What must hold across the parts of a study: names that exist, trees without cycles, lengths that fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from yarnlab.study.check_evaluations import evaluation_problems, foreign
from yarnlab.study.check_held_out import held_out_problems
from yarnlab.study.data import Asset, HubText, HubTokens, PythonPackages
from yarnlab.study.fields import KeyPath, Problem, near
from yarnlab.study.options import rope_problem
from yarnlab.study.schema import Architecture, Study
from yarnlab.study.training import Train


def find_problems(study: Study) -> list[Problem]:
    """Every cross-part mistake as (path of the key, what is wrong and what was expected)."""
    # What follows goes from parent to parent, and asks for their contexts.
    for first in (_parents, _cycles, _ropes, _shorter):
        if problems := list(first(study)):
            return problems
    return [
        *_names(study),
        *_bases(study),
        *_controls(study),
        *_sources(study),
        *_shapes(study),
        *_training(study),
        *evaluation_problems(study),
        *held_out_problems(study),
        *_unused(study),
    ]


def _unknown(at: KeyPath, what: str, name: str, known: Collection[str]) -> Iterator[Problem]:
    """The problem of a key that gives a name which is not there."""
    if name not in known:
        yield at, f"there is no {what} {name!r}{near(name, known)}"


def _parents(study: Study) -> Iterator[Problem]:
    for arm, model in study.models.items():
        if model.parent is not None:
            yield from _unknown(("models", arm, "from"), "model", model.parent, study.models)


def _cycles(study: Study) -> Iterator[Problem]:
    for arm in study.models:
        seen, at = [arm], study.models[arm].parent
        while at is not None and at not in seen:
            seen.append(at)
            at = study.models[at].parent
        if at == arm:
            path = " -> ".join([*seen, arm])
            yield ("models", arm, "from"), f"a cycle: {path}; a tree must start at a `pretrain` model"


def _ropes(study: Study) -> Iterator[Problem]:
    for arm, model in study.models.items():
        if (rope := model.rope) is not None:
            at = ("models", arm, "rope")
            problem = rope_problem(at, rope.method, rope.scale, rope.options, study.architecture(arm))
            if problem is not None:
                yield problem


def _shorter(study: Study) -> Iterator[Problem]:
    """Children that are meant to be longer than their parent and would be shorter: scales don't multiply."""
    for arm, model in study.models.items():
        if model.parent is None:
            continue
        rope, before = study.rope(arm), study.rope(model.parent)
        if "none" not in (rope.method, before.method) and rope.context < before.context:
            yield (
                ("models", arm, "rope", "scale"),
                f"{rope.scale:g} x {rope.original_context:,} tokens are fewer than the {before.context:,} of the "
                f"parent {model.parent!r}: a scale counts from `original_context`, not from the parent's context",
            )


def _bases(study: Study) -> Iterator[Problem]:
    for base, arm in study.claims.bases.items():
        if arm in study.models and study.models[arm].parent is not None:
            yield ("claims", base), f"{arm!r} has a parent; expected a model that others start from"
        elif arm is not None:
            yield from _unknown(("claims", base), "model", arm, study.models)


def _controls(study: Study) -> Iterator[Problem]:
    """A control differs from its model by `requantise` alone."""
    for arm, model in study.models.items():
        other, at = model.control_of, ("models", arm, "control_of")
        if other is None:
            continue
        if other not in study.models:
            yield from _unknown(at, "model", other, study.models)
            continue
        own, its = (_asset(study, name) for name in (arm, other))
        if own is None or own.requantise is None:
            yield at, f"{arm!r} is no model whose asset has `requantise`"
        elif its is None or its != own.model_copy(update={"requantise": None}):
            yield at, f"{other!r} is no model of the same file as {arm!r} without `requantise`"
        elif study.architecture(arm) != study.architecture(other):
            yield at, f"{arm!r} and {other!r} must have the same `architecture`"


def _asset(study: Study, arm: str) -> Asset | None:
    """The asset of a root that is given."""
    published = study.models[arm].hub
    return study.assets.get(published.asset) if published is not None else None


def _names(study: Study) -> Iterator[Problem]:
    for path, phase in _phases(study):
        for name in phase.shares:
            yield from _unknown(_corpus_key(path, phase, name), "corpus", name, study.corpora)
    for kind, evaluation in study.evaluations:
        if evaluation is None:
            continue
        at = ("evaluations", kind)
        for tokenizer, corpus in evaluation.corpora.items():
            where: KeyPath = (*at, "corpus") if tokenizer is None else (*at, "corpus", tokenizer)
            yield from _unknown(where, "corpus", corpus, study.corpora)
        for i, arm in enumerate(evaluation.models):
            yield from _unknown((*at, "models", i), "model", arm, study.models)
            if arm not in study.models:
                continue
            if evaluation.models.index(arm) != i:
                yield (*at, "models", i), f"{arm!r} is listed twice"
            elif None not in evaluation.corpora and study.tokenizer_of(arm) not in evaluation.corpora:
                yield (*at, "corpus"), f"names no corpus for {study.tokenizer_of(arm)}, the tokenizer of {arm!r}"


def _sources(study: Study) -> Iterator[Problem]:
    """Assets and tokenizers that exist, are of the right type and are used."""
    named = list(_assets(study))
    for at, name, kind in named:
        yield from _unknown(at, "asset", name, study.assets)
        if name in study.assets and study.assets[name].type != kind:
            yield at, f"asset {name} is a {study.assets[name].type}, a {kind} is needed"
    used = {name for _, name, _ in named}
    for name in study.assets:
        if name not in used:
            yield ("assets", name), "is used by no corpus, model or evaluation"
    own = [name for name, corpus in study.corpora.items() if corpus.tokenizer is None]
    if study.tokenizer is not None:
        source = study.tokenizer.train_on
        if source not in own or not isinstance(study.corpora[source], PythonPackages):
            what = f"there is no corpus {source!r} of packages without a tokenizer of an asset"
            yield ("tokenizer", "train_on"), f"{what}{near(source, study.corpora)}"
        return
    for name in own:
        yield ("corpora", name), "needs the `tokenizer` of an asset, or the study's own: `tokenizer` is missing"
    for arm, model in study.models.items():
        if model.pretrain is not None:
            at = ("models", arm, "pretrain")
            yield at, "a new model needs the study's own tokenizer: `tokenizer` is missing"


def _assets(study: Study) -> Iterator[tuple[KeyPath, str, str]]:
    """Every key that names an asset: (path, name, the type it must have)."""
    for name, corpus in study.corpora.items():
        if isinstance(corpus, HubText | HubTokens):
            yield ("corpora", name, "asset"), corpus.asset, "dataset"
        if corpus.tokenizer is not None:
            yield ("corpora", name, "tokenizer"), corpus.tokenizer, "model"
    for arm, model in study.models.items():
        if model.hub is not None:
            yield ("models", arm, "hub", "asset"), model.hub.asset, "model"
            if model.hub.tokenizer is not None:
                yield ("models", arm, "hub", "tokenizer"), model.hub.tokenizer, "model"
    for kind, evaluation in study.evaluations:
        for task, name in (getattr(evaluation, "snapshots", None) or {}).items():
            yield ("evaluations", kind, "snapshots", task), name, "dataset"


def _shapes(study: Study) -> Iterator[Problem]:
    for arm, model in study.models.items():
        if model.pretrain is not None:
            yield from _heads(model.pretrain.architecture, ("models", arm, "pretrain", "architecture"))
        elif model.hub is not None:
            yield from _heads(study.architecture(arm), ("models", arm, "hub", "architecture"))
        elif model.rope is not None and model.train is not None and model.rope.method.startswith("dynamic-"):
            yield (
                ("models", arm, "rope", "method"),
                f"{model.rope.method} is for evaluation only, without `train`",
            )


def _heads(shape: Architecture, at: KeyPath) -> Iterator[Problem]:
    if shape.num_attention_heads % shape.num_key_value_heads:
        yield (*at, "num_key_value_heads"), f"must divide num_attention_heads {shape.num_attention_heads}"


def _training(study: Study) -> Iterator[Problem]:
    for path, phase in _phases(study):
        arm = str(path[1])
        context = study.rope(arm).context
        if phase.seq_len > context:
            yield (
                (*path, "seq_len"),
                f"{phase.seq_len} is longer than the model's context of {context} tokens",
            )
        parallel = phase.parallel
        if phase.global_batch % (phase.micro_batch * parallel.replicas):
            yield (
                (*path, "micro_batch"),
                f"{phase.micro_batch} rows on each of {parallel.replicas} replicas must divide "
                f"global_batch {phase.global_batch}",
            )
        if parallel != study.models[arm].phases[0].parallel:
            yield (*path, "parallel"), "must be the same in all phases of a model"
        if phase.seq_len % parallel.context:
            yield (*path, "parallel", "context"), f"must divide seq_len {phase.seq_len}"
        if phase.rows.attention_within == "document":
            at = (*path, "rows", "attention_within")
            if parallel.context > 1:
                yield at, "processes that share a sequence attend to all of it: set `context: 1`"
            if study.rope(arm).method == "longrope":
                yield at, "longrope takes its factors by the longest document of a batch; leave it out"
        if phase.precision == "pure-bf16" and parallel.sharding != "fsdp":
            yield (*path, "precision"), "pure-bf16 needs `sharding: fsdp`"
        for name in phase.shares:
            if name in study.corpora:
                yield from _text(study, path, phase, name)
        if phase.warmup_steps >= phase.steps:
            yield (*path, "warmup_steps"), f"must be below steps ({phase.steps}), got {phase.warmup_steps}"
        if phase.schedule == "constant" and phase.final_lr_share:
            yield (*path, "final_lr_share"), "has no effect with a constant schedule"
        retrieval, repeats = phase.rows.retrieval, phase.rows.repeats
        if (retrieval.share if retrieval else 0) + (repeats.share if repeats else 0) > 1:
            yield (*path, "rows"), "the shares of retrieval and repeats add up to more than 1"
        if retrieval and retrieval.min_keys > retrieval.max_keys:
            yield (*path, "rows", "retrieval", "min_keys"), "must not exceed max_keys"
        if retrieval and retrieval.max_keys > retrieval.most_keys:
            yield (
                (*path, "rows", "retrieval", "max_keys"),
                f"{retrieval.max_keys} keys can't be told apart: there are names for {retrieval.most_keys} in a row",
            )
        if repeats and repeats.min_segment > repeats.max_segment:
            yield (*path, "rows", "repeats", "min_segment"), "must not exceed max_segment"


def _text(study: Study, path: KeyPath, phase: Train, name: str) -> Iterator[Problem]:
    """What stands in the way of rows of one of a phase's corpora."""
    corpus = study.corpora[name]
    if phase.rows.text == "blocks" and (corpus.shortest or 0) < phase.seq_len:
        yield (
            (*path, "rows", "text"),
            f"blocks need documents of at least seq_len {phase.seq_len} tokens: give corpus {name} `blocks` or "
            "`min_tokens`",
        )
    if problem := foreign(study, corpus, str(path[1])):
        yield _corpus_key(path, phase, name), problem
    if corpus.max_tokens is not None and corpus.max_tokens <= phase.seq_len:
        yield (
            (*path, "seq_len"),
            f"{phase.seq_len} needs a corpus of more tokens; {name} has at most {corpus.max_tokens}",
        )


def _corpus_key(path: KeyPath, phase: Train, name: str) -> KeyPath:
    """The key of a phase that names a corpus."""
    return (*path, "corpus") if isinstance(phase.corpus, str) else (*path, "corpus", name)


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
