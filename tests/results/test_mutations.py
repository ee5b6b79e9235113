"""A check that cannot fail is a defect: for every claim, results that contradict it (or support it) change the verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from results.light import light
from results.synthetic import L, with_frames
from yarnlab import rope
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.claims.judge import judge
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


def spread(frame: pd.DataFrame) -> object:
    """Every document has another best factor."""
    best = 1.0 + 0.1 * frame["document"].map({d: i % 6 for i, d in enumerate(frame["document"].unique())})
    return 50.0 * (frame["factor"] - best) ** 2


def by_length(frame: pd.DataFrame, arm: str, short: float, long: float) -> object:
    """Another shift for windows below 16L than from there on."""
    return np.where(frame["arm"] == arm, np.where(frame["length"] < 16 * L, short, long), 0.0)


# Claim → (what is done to the study of `synthetic`, the verdicts that may follow).
FALLEN = {"fails", "holds in part"}
MUTATIONS: dict[str, tuple[Mutation, set[str]]] = {
    "accept-zero-shot-order": (swap("zero_shot", "method", "yarn", "pi"), FALLEN),
    "accept-finetuned-order": (swap("perplexity", "arm", "yarn-s16", "pi-s16"), {"fails"}),
    "accept-collapse": (lean("yarn-s16", -5.0), {"fails"}),
    "accept-continuation": (lean("yarn-s32", 0.8), {"fails"}),
    "accept-useful": (lean("yarn-s16", 0.8), FALLEN),
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
    "14": (shift("temperature", spread), FALLEN | {"undecided"}),
    "15": (shift("temperature", lambda f: 50 * (f["factor"] - 1.5 + 0.1 * np.log(f["scale"])) ** 2), FALLEN),
    "16": (shift("entropy", lambda f: -2 * f["entropy"], "entropy"), FALLEN),
    "17": (swap("training", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "18": (swap("perplexity", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "19": (shift("perplexity", lambda f: by_length(f, "ntk-aware-s16", -3.0, 3.0)), {"holds"}),
    "20": (shift("perplexity", lambda f: np.where(f["arm"] == "ramp-only-s16", -0.1, 0.0)), {"holds"}),
    "21": (swap("passkey", "arm", "yarn-s16", "pi-s16"), FALLEN),
    "23": (lean("yarn-s16", 0.8), {"fails"}),
    "24": (lean("yarn-s16", -3.0), {"fails"}),
    "25": (lean("yarn-s32", 0.8), FALLEN),
    "26": (tilt("yarn-s32", 0.8), FALLEN),
    "27": (lean("pi-s16", -2.0), FALLEN),
    "28": (swap("sliding_window", "arm", "yarn-s16", "ntk-aware-s16"), FALLEN),
    "29": (blind("yarn-s32"), FALLEN),
    "30": (blind("yarn-s16", (16 * L,)), {"holds"}),
    "31": (wrong("yarn-s16"), FALLEN),
    "32": (wrong("yarn-s32"), {"fails"}),
    "33": (swap("training", "arm", "yarn-s16", "pi-s16"), {"fails"}),
    "35": (shift("ramp", lambda f: np.where(f["variant"] == "official", 0.0, 0.5)), {"fails"}),
}
EXACT = {"1", "2", "3", "4", "5"}
OTHER_ARMS = {"22", "26-control", "34"}


def verdict(claim: str, results: Results) -> str:
    return judge(next(c for c in CLAIMS if c.id == claim), results).status


def test_every_claim_is_mutated() -> None:
    assert set(MUTATIONS) | EXACT | OTHER_ARMS == {claim.id for claim in CLAIMS}
    assert {c.id.partition("-")[0] for c in CLAIMS if not c.id.startswith("accept")} == {str(i) for i in range(1, 36)}


@pytest.mark.parametrize("claim", MUTATIONS)
def test_contrary_results_change_the_verdict(results: Results, claim: str) -> None:
    mutate, expected = MUTATIONS[claim]
    before, after = verdict(claim, results), verdict(claim, mutate(results))
    assert before not in ("not run", after)
    assert after in expected


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
    """YaRN and PI declared as trained at s = 2, PI's curve made YaRN's up to 2L and worse beyond; then exchanged."""
    study = with_model(with_model(results, "yarn-s16", scale=2.0), "pi-s16", scale=2.0)
    frame = study.frame("perplexity")
    rows = frame[frame["arm"] == "yarn-s16"]
    beyond = np.where(rows["length"] > 2 * L, 0.3, 0.0)
    copy = rows.assign(arm="pi-s16", model="pi-s16", nll=rows["nll"] + beyond)
    study = with_frames(study, perplexity=pd.concat([frame[frame["arm"] != "pi-s16"], copy]))
    assert verdict("22", study) == "holds"
    assert verdict("22", swap("perplexity", "arm", "yarn-s16", "pi-s16")(study)) in FALLEN


@pytest.mark.parametrize(("shifted", "expected"), [(0.5, "holds"), (-0.5, "fails")])
def test_the_control_of_claim_26(results: Results, shifted: float, expected: str) -> None:
    pi = replace(results.models["pi-s16"], name="pi-s32", arm="pi-s32", scale=32.0, parent="pi-s16")
    frame = results.frame("perplexity")
    rows = frame[frame["arm"] == "pi-s16"]
    moved = rows.assign(arm="pi-s32", model="pi-s32", nll=rows["nll"] + shifted)
    study = replace(results, models=results.models | {"pi-s32": pi})
    assert verdict("26-control", with_frames(study, perplexity=pd.concat([frame, moved]))) == expected


def test_the_claim_on_short_rows(results: Results) -> None:
    study = with_model(results, "yarn-s16", trained_length=2 * L)
    assert verdict("34", study) == "holds"
    assert verdict("34", lean("yarn-s16", 0.8)(study)) == "fails"
