"""Which of a study's models a published one is set against.

A study that names published models (`published:` in its YAML) is matched by those names only, and its model stands for
the published one where window, method and scale are the published ones too. A study that names none (the micro study)
gets the scale-free analogue: the same method and scale, trained likewise, with lengths in units of the original
context L. An analogue's numbers are shown beside the published ones and never compared in value.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from yarnlab.results.published.reference_rows import PublishedModel
from yarnlab.results.results import Model, Results

# The released NTK run has the base 20,000, which is s = 1.978, and is called s = 2.
SAME_SCALE = 0.02


@dataclass(frozen=True)
class Role:
    """A study's model in the place of a published one.

    original_context: the study's model's L in tokens; published_context: the published one's.
    analogue: why the two are not comparable in value; None where the model stands for the published one.
    """

    model: Model
    original_context: int
    published_context: int
    analogue: str | None = None

    def length(self, published: float) -> int:
        """A published length in this model's tokens: as many times L."""
        return round(published * self.original_context / self.published_context)

    def published_length(self, own: float) -> float:
        """A length of this model in the published one's tokens: as many times L."""
        return own * self.published_context / self.original_context


@lru_cache(maxsize=1024)
def role_of(results: Results, published: PublishedModel) -> Role | None:
    """The study's model for a published one, or None."""
    facts = _facts(results)
    if any(entry["published"] for entry in facts.values()):
        for name, model in results.models.items():
            if {n.casefold() for n in facts[name]["published"]} & {n.casefold() for n in published.names}:
                return _named(model, facts[name]["original_context"], published)
        return None
    if published.constants != "paper" or published.scale is None or published.training == "pre-trained":
        return None
    kinds = ("pretrain", "hub") if published.training == "none" else ("finetune",)
    for model in results.arms().values():
        same = model.method == published.method and _same_scale(model.scale, published.scale)
        if same and model.kind in kinds and model.ramp == "dimension":
            own = facts[model.name]["original_context"]
            why = f"{model.arm} is the scale-free analogue: same method and s, lengths in units of L = {own:,} tokens"
            return Role(model, own, published.original_context, why)
    return None


def _named(model: Model, own: int, published: PublishedModel) -> Role:
    # Weights taken over from the hub are the published ones whatever rope the study gives them by name.
    context = published.native_context if model.kind == "hub" else published.original_context
    why = None
    if own != context:
        why = f"{model.arm} has an original context of {own:,} tokens, the published model {context:,}"
    elif model.kind != "hub" and model.method != published.method:
        why = f"{model.arm} has the method {model.method}, the published model {published.method}"
    elif model.kind != "hub" and published.scale is not None and not _same_scale(model.scale, published.scale):
        why = f"{model.arm} has s = {model.scale:g}, the published model {published.scale:g}"
    return Role(model, own, context, why)


def _same_scale(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_SCALE * b


@lru_cache(maxsize=8)
def _facts(results: Results) -> dict[str, dict[str, Any]]:
    """What study.json says of each model beyond `load.Model`: published names and original context."""
    study = json.loads((results.directory / "study.json").read_text(encoding="utf-8"))
    return {
        name: {
            "published": tuple(entry.get("published") or ()),
            "original_context": int(entry.get("original_context") or results.original_context),
        }
        for name, entry in study["models"].items()
    }
