"""A check that cannot fail, or cannot hold, is a defect: every claim, in both of its forms, is driven both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import L, with_control, with_frames
from results.test_claims_full_scale import CHANGED
from yarnlab import rope
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import judge
from yarnlab.results.estimates import moved_gaps
from yarnlab.results.results import Results

CLAIMS = load_criteria().claims
Mutation = Callable[[Results], Results]


@pytest.fixture(scope="module")
def results(results: Results):
    """The session's study under few resamples: the effects here are far larger than their intervals."""
    with light():
        yield replace(results)


def swap(kind: str, column: str, a: str, b: str) -> Mutation:
    """Exchange two arms, methods or caches."""
    names = {a: b, b: a}

    def mutate(results: Results) -> Results:
        frame = results.frame(kind)
        return with_frames(results, **{kind: frame.assign(**{column: frame[column].replace(names)})})

    return mutate


def shift(kind: str, by: Callable[[pd.DataFrame], object], column: str = "nll") -> Mutation:
    """Add to a column what `by` makes of the frame."""

    def mutate(results: Results) -> Results:
        frame = results.frame(kind)
        return with_frames(results, **{kind: frame.assign(**{column: frame[column] + by(frame)})})

    return mutate


def tilt(arm: str, slope: float) -> Mutation:
    """Let one arm's ln perplexity rise by `slope` with each doubling of the window."""
    return shift("perplexity", lambda f: np.where(f["arm"] == arm, slope * np.log2(f["length"] / L), 0.0))


def lean(arm: str, slope: float) -> Mutation:
    """Let one arm's loss on the same tokens rise by `slope` with each doubling of the context that it is given."""
    return shift(
        "context",
        lambda f: np.where(f["arm"] == arm, slope * np.log2(f[["context", "segment_end"]].min(axis=1) / L), 0.0),
    )


def beyond_the_window(cut: float, yarn: float) -> Mutation:
    """Shift the base's loss with the text cut at L, and YaRN's without training beyond L."""

    def mutate(results: Results) -> Results:
        context, zero_shot = results.frame("context"), results.frame("zero_shot")
        base = (context["arm"] == "base") & (context["context"] == L)
        long = (zero_shot["method"] == "yarn") & (zero_shot["length"] > L)
        return with_frames(
            results,
            context=context.assign(nll=context["nll"] + np.where(base, cut, 0.0)),
            zero_shot=zero_shot.assign(nll=zero_shot["nll"] + np.where(long, yarn, 0.0)),
        )

    return mutate


def blind(arm: str, lengths: tuple[int, ...] = ()) -> Mutation:
    """Take away an arm's passkey hits, at some lengths or at all."""

    def mutate(results: Results) -> Results:
        frame = results.frame("passkey")
        gone = (frame["arm"] == arm) & (frame["length"].isin(lengths) if lengths else True)
        return with_frames(results, passkey=frame.assign(hit=frame["hit"] & ~gone))

    return mutate


def wrong(arm: str) -> Mutation:
    """Let an arm answer every multiple-choice item wrongly."""

    def mutate(results: Results) -> Results:
        frame = results.frame("benchmarks.samples")
        zero = {c: frame[c].where(frame["arm"] != arm, 0) for c in ("acc", "acc_norm")}
        return with_frames(results, **{"benchmarks.samples": frame.assign(**zero)})

    return mutate


def by_length(frame: pd.DataFrame, arm: str, short: float, long: float) -> object:
    """Another shift for windows below 16L than from there on."""
    return np.where(frame["arm"] == arm, np.where(frame["length"] < 16 * L, short, long), 0.0)


def unlike(factor: Callable[[pd.DataFrame], object]) -> Mutation:
    """Let the best √(1/t) be what `factor` makes of the frame."""
    return lambda results: with_frames(
        results,
        temperature=results.frame("temperature").assign(
            nll=3.0 + (results.frame("temperature")["factor"] - factor(results.frame("temperature"))) ** 2
        ),
    )


def right(arm: str, of: str, points: float) -> Mutation:
    """Many items of one task, of which `arm` answers this many percentage points more than `of`."""

    def mutate(results: Results) -> Results:
        items = np.arange(60_000)
        rows = []
        for name in ("base", arm, of):
            hit = (items % 10_000 < 5000 + 100 * points * (name == arm)).astype(float)
            row = pd.DataFrame({"task": "brackets", "item": items, "acc": hit, "acc_norm": hit})
            rows.append(row.assign(arm=name, model=name, seed=42))
        return with_frames(results, **{"benchmarks.samples": pd.concat(rows)})

    return mutate


def many_tokens(results: Results) -> Results:
    return with_frames(
        results, training=results.frame("training").assign(tokens=lambda f: f["tokens"].astype(float) * 1e6)
    )


def same(results: Results) -> Results:
    return results


# Claim → (what is done to the study of `synthetic`, the verdicts that may follow).
FALLEN = {"fails", "holds in part"}
HELD = {"holds"}
SCALE_FREE, FULL_SCALE = "scale-free", "full-scale"
MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "accept-zero-shot-order": (swap("zero_shot", "method", "yarn", "pi"), FALLEN),
    "accept-finetuned-order": (swap("perplexity", "arm", "yarn-s16", "pi-s16"), {"fails"}),
    "accept-collapse": (lean("yarn-s16", -5.0), {"fails"}),
    "accept-continuation": (lean("yarn-s32", 0.8), {"fails"}),
    "accept-useful": (lean("yarn-s16", 0.8), FALLEN),
    "untrained-collapse": (lean("base", -3.0), {"fails"}),
    "untrained-order": (swap("zero_shot", "method", "yarn", "pi"), FALLEN),
    "untrained-order-4": (swap("zero_shot", "method", "yarn", "pi"), FALLEN),
    "untrained-useful": (beyond_the_window(3.0, -3.0), HELD),
    "untrained-tax": (swap("zero_shot", "method", "yarn", "pi"), {"fails"}),
    "accept-passkey-base": (blind("base"), {"fails"}),
    "accept-passkey-first": (blind("yarn-s16"), {"fails"}),
    "accept-passkey-continued": (blind("yarn-s32"), {"fails"}),
    "6": (swap("key_cache", "cache", "pre-rope", "post-rope"), FALLEN),
    "7": (lean("base", -3.0), {"fails"}),
    "8": (swap("zero_shot", "method", "yarn", "pi"), FALLEN),
    "9": (swap("zero_shot", "method", "yarn", "ntk-by-parts"), {"fails"}),
    "10": (swap("zero_shot", "method", "ntk-aware", "pi"), FALLEN),
    "11": (swap("dynamic", "method", "dynamic-yarn", "none"), FALLEN),
    "12": (swap("dynamic", "method", "dynamic-yarn", "none"), FALLEN),
    "13": (shift("temperature", lambda f: -2 * f["nll"]), FALLEN),
    "14": (unlike(lambda f: 1.05 + 0.05 * f["segment"]), FALLEN),
    "15": (shift("temperature", lambda f: 50 * (f["factor"] - 1.5 + 0.1 * np.log(f["scale"])) ** 2), FALLEN),
    "16": (shift("entropy", lambda f: -2 * f["entropy"], "entropy"), FALLEN),
    "17": (swap("training", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "18": (swap("perplexity", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "19": (shift("perplexity", lambda f: by_length(f, "ntk-aware-s16", -3.0, 3.0)), {"holds"}),
    "20": (shift("short_texts", lambda f: np.where(f["arm"] == "ramp-only-s16", -0.1, 0.0)), {"holds"}),
    "21": (swap("passkey", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "23": (lean("yarn-s16", 0.8), {"fails"}),
    "24": (lean("yarn-s16", -3.0), {"fails"}),
    "25": (lean("yarn-s32", 0.8), FALLEN),
    "26": (tilt("yarn-s32", 0.8), FALLEN),
    "27": (lean("pi-s16", -2.0), FALLEN),
    "28": (swap("sliding_window", "arm", "yarn-s16", "ntk-aware-s16"), FALLEN),
    "29": (blind("yarn-s32"), FALLEN),
    "30": (blind("yarn-s16"), {"holds"}),
    "31": (wrong("yarn-s16"), FALLEN),
    "32": (wrong("yarn-s32"), {"fails"}),
    "33": (swap("training", "arm", "yarn-s16", "pi-s16"), {"fails"}),
    "35": (shift("ramp", lambda f: np.where(f["variant"] == "official", 0.0, 0.5)), {"fails"}),
}
# The way that neither the study nor its mutation goes.
OTHER_WAY: dict[str, tuple[Mutation, set[str]]] = {
    "27": (lean("pi-s16", 2.0), {"holds"}),
    "20": (swap("short_texts", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "26": (shift("short_texts", lambda f: np.where(f["arm"] == "yarn-s32", 0.1, 0.0)), FALLEN),
    "31": (shift("short_texts", lambda f: np.where(f["arm"] == "yarn-s32", 0.5, 0.0)), FALLEN),
    "33": (shift("training", lambda f: np.where(f["arm"] == "pi-s16", 1.0, 0.0), "loss"), {"holds"}),
    "35": (shift("ramp", lambda f: np.where((f["variant"] == "beta-low") & (f["length"] > L), -0.06, 0.0)), HELD),
}
EXACT = {"1", "2", "3", "4", "5"}
OTHER_ARMS = {"22", "26-control", "34", "untrained-requantised"}
# Full-scale forms on the same study: to hold, to fall.
FULL: dict[str, tuple[Mutation, Mutation]] = {
    "7": (same, tilt("base", -3.0)),
    "8": (same, swap("zero_shot", "method", "yarn", "temperature")),
    "13": (same, unlike(lambda f: 1.0)),
    "14": (same, unlike(lambda f: 1.05 + 0.05 * f["segment"])),
    "15": (same, MUTATIONS["15"][0]),
    "20": (
        shift("perplexity", lambda f: np.where(f["arm"] == "ramp-only-s16", -0.1, 0.0)),
        swap("perplexity", "arm", "yarn-s16", "pi-s16"),
    ),
    "31": (same, wrong("yarn-s16")),
    "32": (right("yarn-s16", "yarn-s32", 0.49), wrong("yarn-s16")),
    "33": (same, many_tokens),
}


def verdict(claim: str, results: Results, form: str = SCALE_FREE) -> str:
    return judge(next(c for c in CLAIMS if c.id == claim).in_form(form), results).status


def test_every_claim_is_mutated() -> None:
    assert set(MUTATIONS) | EXACT | OTHER_ARMS == {claim.id for claim in CLAIMS}
    assert set(OTHER_WAY) < set(MUTATIONS)
    assert {c.id.partition("-")[0] for c in CLAIMS if not c.id.startswith(("accept", "untrained"))} == {
        str(i) for i in range(1, 36)
    }
    full = {claim.id for claim in CLAIMS if claim.full_scale is not None}
    assert set(FULL) | {name for name, *_ in CHANGED} | {"22"} == full


@pytest.mark.parametrize("claim", MUTATIONS)
def test_contrary_results_change_the_verdict(results: Results, claim: str) -> None:
    mutate, expected = MUTATIONS[claim]
    found = [verdict(claim, results), verdict(claim, mutate(results))]
    assert found[0] not in ("not run", found[1])
    assert found[1] in expected
    if claim in OTHER_WAY:
        mutate, expected = OTHER_WAY[claim]
        found.append(verdict(claim, mutate(results)))
        assert found[2] in expected
    assert HELD & set(found) and FALLEN & set(found), found


@pytest.mark.parametrize("claim", FULL)
def test_full_scale_forms_go_both_ways(results: Results, claim: str) -> None:
    hold, fall = FULL[claim]
    assert verdict(claim, hold(results), FULL_SCALE) == "holds"
    assert verdict(claim, fall(results), FULL_SCALE) in FALLEN


@pytest.mark.parametrize("claim", sorted(EXACT))
def test_wrong_formulas_fail_the_identities(results: Results, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frequencies 1 % too high, and a temperature of 1/t instead of √(1/t)."""
    assert verdict(claim, results) == "holds"
    make, factor = rope.make_rope, rope.TemperatureOnly.attention_factor

    class Off:
        def __init__(self, inner: rope.Rope) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def at(self, length: int) -> Off:
            return Off(self.inner.at(length))

        def inv_freq(self):
            return self.inner.inv_freq() * 1.01

    def off(method: str, **settings: object):
        made = make(method, **settings)
        return made if method == "none" else Off(made)

    if claim == "2":
        monkeypatch.setattr(rope.TemperatureOnly, "attention_factor", property(lambda self: factor.fget(self) ** 2))
    elif claim == "1":  # scaled tables that are not what the logits are divided by
        from transformers.models.llama import modeling_llama

        turn = modeling_llama.apply_rotary_pos_emb
        scaled = lambda q, k, cos, sin: turn(q, k, cos * cos.abs().max(), sin)  # noqa: E731
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", scaled)
    else:
        monkeypatch.setattr(rope, "make_rope", off)
    assert verdict(claim, results) in FALLEN


def with_model(results: Results, name: str, **changes: object) -> Results:
    """The study with one model declared otherwise."""
    return replace(results, models=results.models | {name: replace(results.models[name], **changes)})


def test_the_claim_on_s_2(results: Results) -> None:
    """YaRN and PI declared as trained at s = 2, PI's curve made YaRN's up to 2L and worse beyond; then exchanged.

    At full scale NTK-aware is third, worse than YaRN and, beyond 2L, better than PI.
    """
    study = with_model(with_model(results, "yarn-s16", scale=2.0), "pi-s16", scale=2.0)
    frame = study.frame("perplexity")
    rows = frame[frame["arm"] == "yarn-s16"]
    beyond = np.where(rows["length"] > 2 * L, 0.3, 0.0)
    copy = rows.assign(arm="pi-s16", model="pi-s16", nll=rows["nll"] + beyond)
    study = with_frames(study, perplexity=pd.concat([frame[frame["arm"] != "pi-s16"], copy]))
    assert verdict("22", study) == "holds"
    assert verdict("22", swap("perplexity", "arm", "yarn-s16", "pi-s16")(study)) in FALLEN
    third = rows.assign(arm="ntk-aware-s16", model="ntk-aware-s16", nll=rows["nll"] + 0.1)
    others = study.frame("perplexity")
    full = with_model(study, "ntk-aware-s16", scale=2.0)
    full = with_frames(full, perplexity=pd.concat([others[others["arm"] != "ntk-aware-s16"], third]))
    assert verdict("22", full, FULL_SCALE) == "holds"
    assert verdict("22", swap("perplexity", "arm", "yarn-s16", "pi-s16")(full), FULL_SCALE) in FALLEN


@pytest.mark.parametrize(("shifted", "expected"), [(0.5, "holds"), (-0.5, "fails")])
def test_the_control_of_claim_26(results: Results, shifted: float, expected: str) -> None:
    pi = replace(results.models["pi-s16"], name="pi-s32", arm="pi-s32", scale=32.0, parent="pi-s16")
    frame = results.frame("perplexity")
    rows = frame[frame["arm"] == "pi-s16"]
    moved = rows.assign(arm="pi-s32", model="pi-s32", nll=rows["nll"] + shifted)
    study = replace(results, models=results.models | {"pi-s32": pi})
    assert verdict("26-control", with_frames(study, perplexity=pd.concat([frame, moved]))) == expected


@pytest.mark.parametrize(
    ("moved", "spread", "expected"),
    [
        ({}, 0.001, "holds"),
        ({"yarn": 0.2}, 0.001, "fails"),  # every gap to it
        ({"yarn": -0.2}, 0.001, "fails"),
        ({"pi": 0.2}, 0.001, "holds in part"),
        ({}, 0.2, "undecided"),  # nothing holds by its observed value alone
    ],
)
def test_the_control_of_the_quantisation(
    results: Results, moved: dict[str, float], spread: float, expected: str
) -> None:
    """A gap that stays within half of its own interval, one that leaves it either way, and one of which nobody knows."""
    study = with_control(results, moved, spread)
    found = judge(next(c for c in CLAIMS if c.id == "untrained-requantised"), study)
    assert found.status == expected
    assert len(found.parts) == 5 * 5  # methods beside YaRN, scales
    part = next(p for p in found.parts if p.name.startswith("s=2, tokens 256–512, NLL of PI minus YaRN (base: "))
    (own,) = [m for m in moved_gaps(study, "yarn") if (m.method, m.scale) == ("pi", 2.0)]
    assert part.threshold == pytest.approx((own.own.high - own.own.low) / 2) and part.models == ("base", "requantised")
    assert own.move.value == pytest.approx(moved.get("pi", 0.0) - moved.get("yarn", 0.0), abs=3 * spread)


@pytest.mark.parametrize("absent", ["base", "requantised"])
def test_a_control_waits_for_both_of_its_models(results: Results, absent: str) -> None:
    """Which one is not measured is said; nothing is judged before."""
    study = with_control(results, {"pi": 0.2})
    measured = study.frame("zero_shot")
    half = with_frames(study, zero_shot=measured[measured["arm"] != absent])
    found = judge(next(c for c in CLAIMS if c.id == "untrained-requantised"), half)
    assert (found.status, found.text) == ("not run", f"no zero-shot results of {absent}")


def test_the_control_is_listed_where_there_is_one_alone(results: Results) -> None:
    """Elsewhere the list of claims and their counts are what they were without it."""
    claim = next(c for c in CLAIMS if c.id == "untrained-requantised")
    assert not claim.concerns(results) and claim.concerns(with_control(results, {}))
    assert judge(claim, results).status == "not run"
    assert results.base() == with_control(results, {}).base()


def test_the_claim_on_short_rows(results: Results) -> None:
    study = with_model(results, "yarn-s16", trained_length=2 * L)
    assert verdict("34", study) == "holds"
    assert verdict("34", lean("yarn-s16", 0.8)(study)) == "fails"
