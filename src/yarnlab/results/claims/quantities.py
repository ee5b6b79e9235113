"""What a part of a claim measures: each `quantity` of `config/claims.yaml` is one function, from models to an estimate.

`Comparison` is a part as the file writes it: a quantity for each of its scales, lengths and pairs of models, against
bounds. Lengths in tokens, NLL in nats; ratios and differences are paired by document.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, model_validator

from yarnlab.results.claims.models import Scope, words
from yarnlab.results.claims.notation import (
    ALL,
    Bound,
    Bounds,
    Length,
    Lengths,
    Order,
    as_list,
    listed,
    neighbours,
    shown,
    symbol,
)
from yarnlab.results.claims.parts import Part, interval, number
from yarnlab.results.estimates import (
    NotMeasured,
    between,
    context_nll,
    gap,
    nll,
    over_documents,
    paired,
    score_gap,
    short_text_nll,
    zero_shot,
)
from yarnlab.results.estimates import context_gap as gap_of_contexts
from yarnlab.results.estimates import sliding_gap as gap_of_windows
from yarnlab.results.results import Results
from yarnlab.results.statistics import Estimate
from yarnlab.results.style import method_label
from yarnlab.study.fields import ConfigModel, near

RATIO = "ratio of perplexities"
NATS = "nats per token"
PAIRED = ("95 % intervals, paired by document.",)
SHORT = (*PAIRED, "Texts are cut one after another from whole documents.")
WINDOWED = (*PAIRED, "A window of c tokens shows each token between 3c/4 and c tokens.")

Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(as_list)]
Span: TypeAlias = tuple[Length, Length]
Measure: TypeAlias = Literal["windows pooled", "documents"]


@dataclass(frozen=True)
class Quantity:
    """How a quantity is computed, and how it is named.

    estimate: takes the results, `of` (and `over`) as arms, or methods where it is measured `on_base`, and its `keys`.
    name: of a part; words: in a criterion. kind: the results it reads. equal: its value for two models that are alike.
    raw: the same quantity without taking off what fine-tuning alone changes; shown beside it, not judged.
    """

    estimate: Callable[..., Estimate]
    name: str
    words: str
    kind: str
    keys: frozenset[str]
    on_base: bool
    equal: float
    decided: tuple[str, ...]
    raw: Callable[..., Estimate] | None = None


QUANTITIES: dict[str, Quantity] = {}


def quantity(
    name: str,
    words: str,
    *keys: str,
    kind: str = "perplexity",
    on_base: bool = False,
    equal: float = 1.0,
    decided: tuple[str, ...] = PAIRED,
    raw: Callable[..., Estimate] | None = None,
) -> Callable[[Callable[..., Estimate]], Callable[..., Estimate]]:
    """Register the decorated function as the quantity of its name."""

    def register(estimate: Callable[..., Estimate]) -> Callable[..., Estimate]:
        found = Quantity(estimate, name, words, kind, frozenset(keys), on_base, equal, decided, raw)
        QUANTITIES[estimate.__name__] = found
        return estimate

    return register


@quantity("{of} / {over} at {at:,} tokens", "perplexity at {at}: {compared}", "at")
def perplexity_ratio(results: Results, of: str, over: str, at: int) -> Estimate:
    """Perplexity of one model over that of another at the same length."""
    return gap(nll(results, of, at), nll(results, over, at)).map(math.exp, RATIO)


@quantity(
    "{of} / {over} on texts of {at:,} tokens",
    "perplexity of texts of {at}: {compared}",
    "at",
    kind="short_texts",
    decided=SHORT,
)
def short_text_ratio(results: Results, of: str, over: str, at: int) -> Estimate:
    """Perplexity of one model over that of another on short texts from all over the documents."""
    return short_text_change(results, of, over, at).map(math.exp, RATIO)


@quantity(
    "{of} minus {over}, NLL of texts of {at:,} tokens",
    "mean NLL of texts of {at} in nats: {compared}",
    "at",
    kind="short_texts",
    equal=0.0,
    decided=SHORT,
)
def short_text_change(results: Results, of: str, over: str, at: int) -> Estimate:
    """Mean NLL of one model minus that of another on short texts from all over the documents."""
    return gap(short_text_nll(results, of, at), short_text_nll(results, over, at))


@quantity(
    "{of} / {over} on texts of {at:,} tokens, net of fine-tuning",
    "perplexity of texts of {at}, net of what such fine-tuning changes with RoPE unchanged: {compared}",
    "at",
    kind="short_texts",
    raw=short_text_ratio,
    decided=SHORT,
)
def short_text_ratio_net(results: Results, of: str, over: str, at: int) -> Estimate:
    """`short_text_ratio` over that of the two models' controls, which were trained alike with RoPE unchanged."""
    return short_text_change_net(results, of, over, at).map(math.exp, RATIO)


@quantity(
    "{of} minus {over}, NLL of texts of {at:,} tokens, net of fine-tuning",
    "mean NLL of texts of {at} in nats, net of what such fine-tuning changes with RoPE unchanged: {compared}",
    "at",
    kind="short_texts",
    equal=0.0,
    raw=short_text_change,
    decided=SHORT,
)
def short_text_change_net(results: Results, of: str, over: str, at: int) -> Estimate:
    """`short_text_change` minus that of the two models' controls, which were trained alike with RoPE unchanged."""
    pairs = (of, over), _controls(results, of, over)
    change, plain = (paired(short_text_nll(results, a, at), short_text_nll(results, b, at)) for a, b in pairs)
    return over_documents(paired(change, plain), unit="difference in ln perplexity")


def _controls(results: Results, *arms: str) -> tuple[str, ...]:
    """For each arm the one trained alike with RoPE unchanged, for a base itself; NotMeasured where there is none."""
    found = []
    for model in (results.arms()[arm] for arm in arms):
        control = results.control(model) if model.kind == "finetune" else model
        if control is None:
            raise NotMeasured(f"this study has no arm trained like {model.arm} with its RoPE unchanged")
        found.append(control.arm)
    return tuple(found)


@quantity("{of}, perplexity at {at:,} tokens", "perplexity at {at}: {compared}", "at", decided=("95 % intervals.",))
def perplexity(results: Results, of: str, at: int) -> Estimate:
    """Perplexity of one model at one length."""
    return over_documents(nll(results, of, at)).map(math.exp, "perplexity")


@quantity(
    "{of}, perplexity at {at:,} over {against:,} tokens",
    "perplexity at {at} over that at {against}: {compared}",
    "at",
    "against",
)
def perplexity_change(results: Results, of: str, at: int, against: int) -> Estimate:
    """Perplexity of one model at one length over that at another."""
    return gap(nll(results, of, at), nll(results, of, against)).map(math.exp, RATIO)


@quantity(
    "{of} on tokens {tokens}, {at_shown} minus {against_shown} tokens of context",
    "NLL of the tokens in {tokens}, predicted from {at}, minus NLL of the same tokens predicted from {against}: "
    "{compared}",
    "tokens",
    "at",
    "against",
    kind="context",
    equal=0.0,
    decided=WINDOWED,
)
def context_change(results: Results, of: str, tokens: tuple[int, int], at: int, against: int) -> Estimate:
    """Mean NLL of one model's tokens in a segment of the text under one context minus that under another."""
    own, other = (context_nll(results, of, context, *tokens) for context in (at, against))
    return over_documents(paired(own, other), unit=NATS)


@quantity(
    "{of} with {at_shown} minus {over} with {against_shown} tokens of context, on tokens {tokens}",
    "NLL of the tokens in {tokens}, predicted by the one model from {at}, minus NLL of the same tokens predicted by "
    "the other from {against}: {compared}",
    "tokens",
    "at",
    "against",
    kind="context",
    equal=0.0,
    decided=WINDOWED,
)
def context_gap(results: Results, of: str, over: str, tokens: tuple[int, int], at: int, against: int) -> Estimate:
    """Mean NLL of one model's tokens in a segment under one context minus that of another model's under another.

    With the base and its own L as the other: what extending the context is worth, against cutting the text at L.
    """
    return gap_of_contexts(results, of, over, tokens, at, against)


@quantity(
    "tokens {tokens}, {at_shown} minus {against_shown} tokens of context: {of} minus {over}",
    "NLL of the tokens in {tokens}, predicted from {at}, minus NLL of the same tokens predicted from {against}: "
    "{compared}",
    "tokens",
    "at",
    "against",
    kind="context",
    equal=0.0,
    decided=WINDOWED,
)
def context_change_gap(
    results: Results, of: str, over: str, tokens: tuple[int, int], at: int, against: int
) -> Estimate:
    """`context_change` of one model minus that of another: which of them more context harms more."""
    own, other = (
        context_nll(results, arm, at, *tokens) - context_nll(results, arm, against, *tokens) for arm in (of, over)
    )
    return over_documents(paired(own, other), unit=NATS)


@quantity(
    "{of}, harm of all context over {against_shown} tokens on {tokens} minus gain of it over {at_shown} on {reference}",
    "harm (NLL of the tokens in {tokens}, predicted from all that precedes them, minus NLL of the same tokens "
    "predicted from {against}) minus gain (NLL of the tokens in {reference}, predicted from {at}, minus NLL of the "
    "same tokens predicted from all that precedes them): {compared}",
    "tokens",
    "against",
    "reference",
    "at",
    kind="context",
    equal=0.0,
    decided=WINDOWED,
)
def context_harm_over_gain(
    results: Results, of: str, tokens: tuple[int, int], against: int, reference: tuple[int, int], at: int
) -> Estimate:
    """What one model loses by context beyond `against` on `tokens`, minus what it gains by context beyond `at` on
    `reference`: above 0 where the harm is larger than the gain."""
    harm = context_nll(results, of, tokens[1], *tokens) - context_nll(results, of, against, *tokens)
    gain = context_nll(results, of, at, *reference) - context_nll(results, of, reference[1], *reference)
    return over_documents(paired(harm, gain), unit=NATS)


@quantity(
    "s={scale:g} at {at:,} tokens, {of} / {over}",
    "perplexity without fine-tuning at N = {at}{scales}: {compared}",
    "at",
    "scale",
    kind="zero_shot",
    on_base=True,
)
def zero_shot_ratio(results: Results, of: str, over: str, scale: float, at: int) -> Estimate:
    """Perplexity of the base under one method over that under another."""
    return gap(*(zero_shot(results, method, scale, at) for method in (of, over))).map(math.exp, RATIO)


@quantity(
    "s={scale:g}, {of} at {at:,} tokens over {against:,} tokens",
    "perplexity without fine-tuning at {at} over that at {against}{scales}: {compared}",
    "at",
    "against",
    "scale",
    kind="zero_shot",
    on_base=True,
)
def zero_shot_change(results: Results, of: str, scale: float, at: int, against: int) -> Estimate:
    """Perplexity of the base under one method at one length over that at another."""
    return gap(*(zero_shot(results, of, scale, length) for length in (at, against))).map(math.exp, RATIO)


@quantity(
    "s={scale:g}, {of} on tokens {tokens}, NLL minus the base's with {against:,} tokens of context",
    "NLL without fine-tuning of the tokens in {tokens}{scales}, predicted from all that precedes them, minus NLL of "
    "the same tokens predicted by the base from a window of {against}: {compared}",
    "tokens",
    "against",
    "scale",
    kind="zero_shot",
    on_base=True,
    equal=0.0,
    decided=WINDOWED,
)
def zero_shot_cut(results: Results, of: str, scale: float, tokens: tuple[int, int], against: int) -> Estimate:
    """Mean NLL of tokens of the base under one method minus that of the base with a sliding window, in nats."""
    base = results.base()
    whole = between(*((n, zero_shot(results, of, scale, n)) for n in tokens))
    return over_documents(paired(whole, context_nll(results, base.arm if base else "", against, *tokens)), unit=NATS)


@quantity(
    "gap of {of} to {over} in ln perplexity, s={step[1]:g} minus s={step[0]:g}",
    "growth of the gap in ln ppl(sL) without fine-tuning{steps}: {compared}",
    "step",
    kind="zero_shot",
    on_base=True,
    equal=0.0,
)
def zero_shot_gap_growth(results: Results, of: str, over: str, step: tuple[float, float]) -> Estimate:
    """The gap in ln perplexity between two methods on the base: at a larger s minus at a smaller, both at sL."""
    gaps = []
    for scale in reversed(step):
        length = int(scale * results.original_context)
        gaps.append(zero_shot(results, of, scale, length) - zero_shot(results, over, scale, length))
    return over_documents(paired(*gaps), unit="difference in ln perplexity")


@quantity(
    "{of} minus {over}, mean share of right answers over the tasks",
    "share of right answers on the same items, mean over the tasks: {compared}",
    kind="benchmarks",
    equal=0.0,
    decided=("95 % intervals over the same items.",),
)
def score_change(results: Results, of: str, over: str) -> Estimate:
    """Mean share of right answers over the short tasks: one model minus another on the same items."""
    return score_gap(results, of, over)


@quantity(
    "{measure}, ln perplexity of {of} minus {over}",
    "ln perplexity of sliding windows ({measures}): {compared}",
    "measure",
    kind="sliding_window",
    equal=0.0,
    decided=("95 % intervals, paired and resampled by document.",),
)
def sliding_gap(results: Results, of: str, over: str, measure: str) -> Estimate:
    """ln perplexity of one model minus that of another: windows pooled as the official code does, or by document."""
    arms = results.arms()
    return gap_of_windows(results, arms[of], arms[over], measure)


class Comparison(ConfigModel):
    """A part of a claim: its quantity for every scale (or step, or measure), length and pair, against bounds.

    Compared are each `of` over each `over` by `must`, or the neighbours of an `order`; names are models of the claim,
    for a quantity on the base methods. name: replaces the quantity's template for the names of parts.
    """

    quantity: str
    of: Names = ()
    over: Names = ()
    must: Bounds = ()
    order: Order = ()
    at: Lengths = ()
    against: Length | None = None
    tokens: Span | None = None
    reference: Span | None = None
    scales: tuple[float, ...] = ()
    steps: tuple[tuple[float, float], ...] = ()
    measure: tuple[Measure, ...] = ()
    name: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Comparison:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"there is no quantity {self.quantity!r}{near(self.quantity, QUANTITIES)}")
        keys = self.measured.keys
        given = self.model_fields_set - {"quantity", "of", "over", "must", "order", "name", "scales"}
        given = {"step" if key == "steps" else key for key in given}
        if given != keys - {"scale"} or (self.scales and "scale" not in keys):
            raise ValueError(f"{self.quantity} takes {', '.join(sorted(keys)) or 'no further key'}")
        compares = "over" in inspect.signature(self.measured.estimate).parameters
        if bool(self.order) == bool(self.of and self.must) or compares != bool(self.order or self.over):
            wanted = "`of`, `over` and `must`, or an `order`" if compares else "`of` and `must`"
            raise ValueError(f"{self.quantity} takes {wanted}")
        if ALL in self.lengths and self.measured.kind != "context":
            raise ValueError(f"{self.quantity}: {ALL!r} is a context, no length")
        unknown = {field for _, field, _, _ in Formatter().parse(self.name) if field} - {"of", "over", *keys}
        if unknown:
            raise ValueError(f"name: there is no {{{unknown.pop()}}} in {self.quantity}")
        return self

    @property
    def measured(self) -> Quantity:
        """Its quantity."""
        return QUANTITIES[self.quantity]

    @property
    def lengths(self) -> list[int | str]:
        """Every length among its keys."""
        single = [] if self.against is None else [self.against]
        return [*self.at, *single, *(self.tokens or ()), *(self.reference or ())]

    @property
    def names(self) -> list[str]:
        """The models, or methods, that it compares."""
        return [*self.order[::2], *self.of, *self.over]

    def parts(self, scope: Scope) -> Iterator[Part]:
        """Every comparison on a study; NotMeasured says what the study lacks."""
        measured = self.measured
        for case in self._cases(scope):
            for names, bounds in self._pairs():
                if measured.on_base:
                    compared, labels, sources = names, map(method_label, names), ["base"]
                else:
                    compared = [scope.model(name).arm for name in names]
                    labels, sources = map(scope.label, names), names
                estimate = measured.estimate(scope.results, *compared, **case)
                texts = {key: f"{v[0]:,}–{v[1]:,}" if key in ("tokens", "reference") else v for key, v in case.items()}
                if measured.kind == "context":
                    for key in ("at", "against"):
                        texts[f"{key}_shown"] = ALL if case[key] >= case["tokens"][1] else f"{case[key]:,}"
                name = (self.name or measured.name).format(**texts, **dict(zip(("of", "over"), labels, strict=False)))
                read = scope.sources(measured.kind, *sources)
                if measured.raw is not None:
                    before = measured.raw(scope.results, *compared, **case)
                    value, low, high = (number(x, before.unit) for x in (before.value, before.low, before.high))
                    name += f" (with it: {value} [{low}, {high}])"
                    controls = _controls(scope.results, *compared)
                    read += [f"{measured.kind}:{arm}" if scope.several else arm for arm in controls]
                for bound in bounds:
                    yield interval(name, estimate, bound.sign, bound.threshold, read)

    def _pairs(self) -> list[tuple[list[str], tuple[Bound, ...]]]:
        """Each comparison: one or two names, and its bounds."""
        if self.order:
            return [([a, b], (Bound(sign, self.measured.equal, ""),)) for a, sign, b in neighbours(self.order)]
        return [([of, *over], self.must) for of in self.of for over in ([[o] for o in self.over] or [[]])]

    def _cases(self, scope: Scope) -> Iterator[dict[str, Any]]:
        """What the quantity takes beside models: a scale, step or measure, a length, and what is the same in all."""
        outer: list[dict[str, Any]] = [{"step": step} for step in self.steps] + [{"measure": m} for m in self.measure]
        if "scale" in self.measured.keys:
            outer = [{"scale": scale} for scale in self.scales or (scope.window.scale,)]
        for case in outer or [{}]:
            window = scope.at_scale(case["scale"]) if "scale" in case else scope.window
            same: dict[str, Any] = {}
            for key in ("tokens", "reference"):
                if span := getattr(self, key):
                    same[key] = tuple(window.tokens(end) for end in span)
            # A context as long as the text up to its last token is all of it.
            whole: int = same.get("tokens", (0, 0))[1]
            if self.against is not None:
                same["against"] = whole if self.against == ALL else window.tokens(self.against)
            for length in [{"at": n} for n in window.all(whole if n == ALL else n for n in self.at)] or [{}]:
                yield case | length | same

    def words(self) -> str:
        """What is compared, for the criterion."""
        spans = {key: f"({', '.join(map(str, getattr(self, key) or ()))}]" for key in ("tokens", "reference")}
        said = {"windows pooled": "windows pooled as the official code does", "documents": "every document alike"}
        return self.measured.words.format(
            **spans,
            at=self._said(*self.at),
            against="" if self.against is None else self._said(self.against),
            scales=f" for s = {listed(self.scales)}" if self.scales else " for the s of the ablation",
            steps=f" {listed(f'from s = {small:g} to {large:g}' for small, large in self.steps)}" if self.steps else "",
            measures=listed(said[measure] for measure in self.measure) if self.measure else "",
            compared=self._compared(),
        )

    def _said(self, *lengths: int | str) -> str:
        """Lengths, or what of the text before a token a context leaves, in words."""
        if self.measured.kind == "context":
            return listed("all that precedes them" if n == ALL else f"a window of {shown([n])}" for n in lengths)
        return shown(lengths) if lengths else ""

    def _compared(self) -> str:
        if self.order:
            return " ".join(words(w) if i % 2 == 0 else symbol(w) for i, w in enumerate(self.order))
        between = " over " if self.measured.equal else " minus "
        models = between.join(listed(words(name) for name in names) for names in (self.of, self.over) if names)
        return f"{models} {listed(bound.text for bound in self.must)}"
