"""A part of a study: one root with everything that starts from it, since a claim is about one base.

Tables and figures compare models within these parts as well: what Mistral loses, it loses against Mistral.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from yarnlab.results.estimates import NotMeasured
from yarnlab.results.results import Model, Results

EVERY_BASE = "every"  # the base of claims that compare models of several roots
OTHERS = "other models"  # the group of the roots that nothing here starts from


def of_base(results: Results, base: str) -> Results:
    """The results that a group of claims is about: those of its root's tree, with that root's original context.

    Raises NotMeasured where the study has several roots and names none for this group.
    """
    if base == EVERY_BASE:
        return results
    found = by_base(results)
    if len(found) < 2:
        return results
    named = results.claim_bases.get(base)
    if named is None:
        raise NotMeasured(f"the study has {len(found)} base models and `claims.{base}` names none of them")
    return found[named]


@lru_cache(maxsize=8)
def by_base(results: Results) -> dict[str, Results]:
    """Root arm → the results of its tree, in the study's order; of a single root `results` itself."""
    arms = [arm for arm, model in results.arms().items() if results.parent_arm(model) is None]
    return {arm: results if len(arms) == 1 else _part(results, (arm,)) for arm in arms}


def tree_of(results: Results, arm: str) -> Results:
    """The results of the tree that an arm stands in."""
    return by_base(results)[results.root(arm)]


@lru_cache(maxsize=8)
def groups(results: Results) -> dict[str, Results]:
    """Name → results of models to be drawn together: each tree, and all roots without descendants as one group."""
    trees = {arm: tree for arm, tree in by_base(results).items() if len(tree.arms()) > 1}
    alone = tuple(arm for arm in by_base(results) if arm not in trees)
    if len(trees) + bool(alone) < 2:
        return {OTHERS: results}
    return trees | ({OTHERS: _part(results, alone)} if alone else {})


def _part(results: Results, among: tuple[str, ...]) -> Results:
    """`results` without the models that start from no root `among` these; a kind that none of them has is absent."""
    models = {name: model for name, model in results.models.items() if results.root(model.arm) in among}
    arms = {model.arm for model in models.values()}
    frames = {kind: frame[frame["arm"].isin(arms)] for kind, frame in results.frames.items()}
    context = next(model.original_context for model in models.values())
    return replace(
        results,
        models=models,
        frames={kind: frame for kind, frame in frames.items() if not frame.empty},
        original_context=context,
    )


def compared_with(results: Results) -> Model | None:
    """The ablation's YaRN arm; of several the one that arms of most methods were trained like.

    Of these it is the one that is continued at a larger scale, else one with the official code's ramp.
    """
    arms, extended = results.ablation(), results.extended()

    def rank(model: Model) -> tuple[int, bool]:
        return len({m.method for m in arms if results.alike(m, model)}), model == extended

    return max((m for m in arms if m.method == "yarn"), key=rank, default=None)
