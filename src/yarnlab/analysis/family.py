"""A part of a study: one root with everything that starts from it, since a claim is about one base."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from yarnlab.analysis.load import Results
from yarnlab.analysis.measure import NotMeasured

EVERY = "every"  # the role of claims that compare models of several roots


def family(results: Results, role: str) -> Results:
    """The results that a group of claims is about: those of its root's tree, with that root's original context.

    Raises NotMeasured where the study has several roots and names none for this group.
    """
    if role == EVERY:
        return results
    roots = [arm for arm, model in results.arms().items() if model.parent is None]
    if len(roots) < 2:
        return results
    named = results.roots.get(role)
    if named is None:
        raise NotMeasured(f"the study has {len(roots)} base models and `claims.{role}` names none of them")
    return tree(results, named)


@lru_cache(maxsize=8)
def tree(results: Results, root: str) -> Results:
    """`results` without the models that do not start from `root`; a kind that none of them has is absent."""
    models = {name: model for name, model in results.models.items() if results.root(model.arm) == root}
    arms = {model.arm for model in models.values()}
    frames = {kind: frame[frame["arm"].isin(arms)] for kind, frame in results.frames.items()}
    context = next(model.original_context for model in models.values())
    return replace(
        results,
        models=models,
        frames={kind: frame for kind, frame in frames.items() if not frame.empty},
        original_context=context or results.original_context,
    )
