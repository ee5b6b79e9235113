"""The models that a claim names, found in a study: the base, its extension and continuation, methods tuned alike.

A claim names models by what they are, since every study has its own arms: `base`, `first` (the YaRN model that the
study extends its base to), `second` (trained on from it at a larger scale), `yarn` and further methods (the ablation),
or the published model that an arm stands for, such as `togethercomputer/LLaMA-2-7B-32K`. In a study about one model:
`extended`, whatever its method, `untrained` (its rope without training), `plain` and `interpolated` (trained as it was,
with plain RoPE and with PI), `untrained-interpolated`.
"""

from __future__ import annotations

from dataclasses import dataclass

from yarnlab.results.bases import compared_with
from yarnlab.results.claims.notation import Window
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.results import Model, Results
from yarnlab.results.style import label, method_label
from yarnlab.study.read import StudyError

WORDS = {"base": "the base", "first": "the first extended model", "second": "the continuation"}
WORDS |= {"extended": "the extended model", "untrained": "its rope without training"}
WORDS |= {"plain": "plain RoPE trained alike", "interpolated": "PI trained alike"}
WORDS |= {"untrained-interpolated": "PI without training"}


@dataclass(frozen=True)
class Scope:
    """What the parts of one claim are computed from: results of its base, and the models that it names.

    several: the claim needs several kinds of results, so that its parts say which one they read.
    """

    results: Results
    models: dict[str, Model]
    several: bool = False

    @property
    def window(self) -> Window:
        """L, s and s' of this claim."""
        first = self.models.get("yarn") or self.models.get("first") or self.models.get("extended")
        window = self.results.original_context
        s, further = (m.context / window if m else None for m in (first, self.models.get("second")))
        return Window(window, s, further)

    def at_scale(self, scale: float) -> Window:
        """L and another s."""
        return Window(self.results.original_context, scale)

    def model(self, name: str) -> Model:
        """The model of this name; NotMeasured for a published one that nothing stands for."""
        if name in self.models:
            return self.models[name]
        if "/" not in name:
            raise StudyError(f"config/claims.yaml: a claim is about {name!r}, which its `models` do not name")
        model = self.results.standing_for(name)
        if model is None:
            raise NotMeasured(f"no model of this study stands for {name}")
        return model

    def lacks(self, name: str) -> bool:
        """Is it a model that the claim can do without, and that the study does not have?"""
        return "/" not in name and name not in self.models

    def label(self, name: str) -> str:
        """What readers see for a model of this name."""
        if name == "base":
            return "base"
        return name.rpartition("/")[2] if "/" in name else label(self.models[name])

    def sources(self, kind: str, *names: str) -> list[str]:
        """What a part read of these models: their arms, with the kind where the claim needs several kinds."""
        ordered = ("first", "second") if set(names) == {"first", "second"} else names
        return [f"{kind}:{self.model(name).arm}" if self.several else self.model(name).arm for name in ordered]


def words(name: str) -> str:
    """A model in the words of a criterion."""
    return WORDS.get(name) or (name.rpartition("/")[2] if "/" in name else method_label(name))


def find_models(
    results: Results, names: tuple[str, ...], *, scale: float | None = None, any_steps: bool = False
) -> dict[str, Model]:
    """Name → model for each of `names` in turn; NotMeasured says which is the first that the study lacks.

    A name that ends in '?' may be absent. scale: methods fine-tuned alike at this one, in place of the ablation's.
    any_steps: methods may have been trained for other numbers of steps.
    """
    if scale is not None:
        return _alike_at(results, scale, names)
    found: dict[str, Model] = {}
    for name in names:
        model = results.continued() if name == "second?" else _find(results, name, found, any_steps)
        if model is not None:
            found[name.removesuffix("?")] = model
    return found


def _find(results: Results, name: str, found: dict[str, Model], any_steps: bool) -> Model:
    model: Model | None
    if name == "base":
        model, reason = results.base(), "this study has no pretrained base"
    elif name == "first":
        model, reason = results.extended(), "this study fine-tunes no YaRN model from its base"
    elif name == "second":
        model, reason = results.continued(), "this study continues no YaRN model at a larger scale"
    elif name in ("extended", "untrained", "plain", "interpolated", "untrained-interpolated"):
        return _about_extension(results, name)
    elif name == "yarn":
        model = compared_with(results)
        reason = "this study fine-tunes no YaRN model from its base at the scale that its methods share"
    else:
        return _rival(results, found["yarn"], name, as_long=not any_steps)
    if model is None:
        raise NotMeasured(reason)
    return model


def _about_extension(results: Results, name: str) -> Model:
    extended = results.extension()
    if extended is None:
        raise NotMeasured("this study makes no model from its base with another rope")
    if name == "extended":
        return extended
    if name in ("plain", "interpolated"):
        method = {"plain": "none", "interpolated": "pi"}[name]
        if extended.kind != "finetune":
            raise NotMeasured(f"{extended.arm} is not trained")
        found, what = results.beside(extended, method), f"{method_label(method)} arm trained like {extended.arm}"
    else:
        method = "pi" if name == "untrained-interpolated" else extended.method
        if name == "untrained" and extended.kind != "finetune":
            raise NotMeasured(f"{extended.arm} is not trained itself")
        found, what = results.untrained(extended, method), f"untrained {method_label(method)} arm of its scale"
    if found is None:
        raise NotMeasured(f"this study has no {what}")
    return found


def _rival(results: Results, yarn: Model, method: str, *, as_long: bool) -> Model:
    """The arm with a method that was trained like the ablation's YaRN arm (`Results.alike`)."""
    rival = results.beside(yarn, method, as_long=as_long)
    if rival is None:
        wanted = f"from {results.parent_arm(yarn)} at s={yarn.scale:g}, rows of {yarn.trained_length or 0:,} tokens"
        wanted += f", {yarn.steps:,} steps" if as_long and yarn.steps else ""
        wanted += ", the same corpus, kinds of rows and rows a batch"
        raise NotMeasured(f"this study has no {method_label(method)} arm fine-tuned like {yarn.arm}: {wanted}")
    return rival


def _alike_at(results: Results, scale: float, methods: tuple[str, ...]) -> dict[str, Model]:
    """A YaRN arm fine-tuned at this scale, and arms with the other methods that were trained like it."""
    for yarn in results.arms().values():
        if yarn.kind == "finetune" and (yarn.method, yarn.scale) == ("yarn", scale):
            found = {method: results.beside(yarn, method) for method in methods if method != "yarn"}
            rivals = {method: model for method, model in found.items() if model is not None}
            if len(rivals) == len(found):
                return {"yarn": yarn, **rivals}
    names = " and ".join(method_label(method) for method in methods)
    raise NotMeasured(f"this study has no {names} arms fine-tuned alike at s={scale:g}")
