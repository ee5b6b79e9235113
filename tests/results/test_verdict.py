"""The rule: what is reproduced, what differs, what contradicts; orders; roles. Each on the smallest case that shows it."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from yarnlab.results.published.data import Cell, load_reference
from yarnlab.results.published.ours import Ours
from yarnlab.results.published.verdict import (
    CONTRADICTED,
    DIFFERS,
    NOT_COMPARABLE,
    NOT_EXCLUDED,
    REPRODUCED,
    RETRAINED,
    SAME_WEIGHTS,
    Orders,
    compare_orders,
    grade,
    tolerance,
)
from yarnlab.results.statistics import Estimate, accuracy, student_mean

REFERENCE = load_reference()


def measured(
    value: float, *, half: float = 0.1, same: bool = True, weights: bool = False, why: str | None = None
) -> Ours:
    """A perplexity of ours with an interval of ± half."""
    estimate = Estimate(value, value - half, value + half, 10, "documents", "perplexity", "bootstrap")
    return Ours(estimate, None, incomparable=why, same_documents=same, same_weights=weights)


def cell(name: str, **changes: object) -> Cell:
    """A published cell without its raw value, so that printing alone decides; with changes."""
    return REFERENCE.cell(name).model_copy(update={"exact": None, **changes})


def verdict(of: Cell, ours: Ours, orders: Orders | None = None) -> str:
    return grade(of, REFERENCE.protocols[of.protocol].kind, ours, orders or Orders()).verdict


# Table 1 prints YaRN at 2,048 as 3.91 (cut from 3.9184) and PI as 3.92 (rounded from 3.9219).
TRUNCATED, ROUNDED = cell("t1.yarn-llama-2-7b-8k.2048"), cell("t1.llongma-2-7b.2048")


def test_rounding_and_truncation_are_no_difference() -> None:
    """Whatever prints like the published number has no excess; the next number beyond has."""
    for published, inside, outside, excess in (
        (TRUNCATED, 3.9184, 3.9201, 0.0001),
        (TRUNCATED, 3.91, 3.909, 0.001),
        (ROUNDED, 3.9155, 3.9149, 0.0001),
    ):
        assert grade(published, "perplexity", measured(inside), Orders()).excess == 0
        assert grade(published, "perplexity", measured(outside), Orders()).excess == pytest.approx(excess)
    # Where the raw number is known, it alone is what we are compared with.
    raw = grade(REFERENCE.cell(TRUNCATED.cell), "perplexity", measured(3.9184463), Orders())
    assert raw.excess == pytest.approx(0, abs=1e-6) and abs(raw.difference) < 1e-6


def test_a_misprint_is_compared_with_the_raw_number() -> None:
    """The camera-ready prints 3.30 where the data say 3.6046."""
    misprint = REFERENCE.cell("cr-t5.yarn-llama-7b-32k.8192")
    assert verdict(misprint, measured(3.6046)) == REPRODUCED
    assert verdict(misprint, measured(3.30)) == DIFFERS


def test_perplexities_over_the_same_documents_have_a_fixed_tolerance() -> None:
    """0.5 % for the same weights, 2 % for weights trained again; the spread of documents does not count."""
    middle = 3.92
    for share, weights in ((SAME_WEIGHTS, True), (RETRAINED, False)):
        for sign in (1, -1):
            edge = middle + sign * (0.005 + share * middle)
            assert verdict(ROUNDED, measured(edge - sign * 1e-6, half=5, weights=weights)) == REPRODUCED
            assert verdict(ROUNDED, measured(edge + sign * 1e-6, half=5, weights=weights)) == DIFFERS


@pytest.mark.parametrize(
    ("value", "half", "expected"),
    [
        (3.92, 0.1, REPRODUCED),
        (3.99, 0.1, REPRODUCED),
        (3.92, 0.3, NOT_EXCLUDED),  # the same value, of fewer documents
        (4.4, 0.5, NOT_EXCLUDED),
        (4.4, 0.3, NOT_EXCLUDED),  # the published value is excluded, the tolerance is not
        (4.4, 0.2, DIFFERS),
        (3.4, 0.2, DIFFERS),
        (3.92, math.inf, NOT_EXCLUDED),
    ],
)
def test_other_documents_are_judged_by_their_whole_interval(value: float, half: float, expected: str) -> None:
    """Within ± 5 % of 3.92, outside, or neither: fewer documents never make a number reproduced."""
    assert verdict(ROUNDED, measured(value, half=half, same=False)) == expected


def test_a_few_documents_reproduce_nothing() -> None:
    """Simulated: where ours is 8 % off, 'reproduced' stays rare however few documents there are."""
    rng, found = np.random.default_rng(31), []
    for _ in range(300):
        estimate = student_mean(math.log(3.92 * 1.08) + 0.05 * rng.normal(size=4), list(range(4)))
        found.append(verdict(ROUNDED, replace(measured(1, same=False), estimate=estimate.map(math.exp, "perplexity"))))
    assert found.count(REPRODUCED) <= 300 * 0.025 and found.count(NOT_EXCLUDED) > 200


def test_trained_again_is_judged_over_seeds() -> None:
    """Three runs that agree are within 2 %; three that scatter by 4 % do not tell, though their mean is the same."""
    for spread, expected in ((0.001, REPRODUCED), (0.04, NOT_EXCLUDED)):
        values = math.log(3.92) + spread * np.array([[-1.0], [0.0], [1.0]]) + np.linspace(-1, 1, 12)
        documents = pd.DataFrame(values, index=[1, 2, 3], columns=[f"doc-{i}" for i in range(12)])
        assert verdict(ROUNDED, replace(measured(3.92), documents=documents)) == expected


def test_a_lower_bound_is_met_from_above_only() -> None:
    """'>10^3' says nothing about how far above."""
    bound = cell("t6.mistral-7b-v0.1.65536")
    assert bound.printed == ">10^3"
    assert verdict(bound, measured(1000.1)) == verdict(bound, measured(1e6)) == REPRODUCED
    assert verdict(bound, measured(1000.0)) == DIFFERS
    assert math.isnan(grade(bound, "perplexity", measured(5000), Orders()).difference)


def test_contradicted_takes_a_difference_and_a_reversed_order() -> None:
    """Either alone is not enough, and a number that is not comparable is neither."""
    turned = Orders(reversed=("t1.llongma-2-7b.2048",))
    assert verdict(ROUNDED, measured(4.5), turned) == CONTRADICTED
    assert verdict(ROUNDED, measured(4.5), Orders(open=turned.reversed)) == DIFFERS
    assert verdict(ROUNDED, measured(3.95), turned) == REPRODUCED
    assert verdict(ROUNDED, measured(4.5, why="another text"), turned) == NOT_COMPARABLE


def test_hits_are_judged_as_hits() -> None:
    """99.4 % is 159 of 160; Newcombe's interval of the difference is set against ± 5 points."""
    published = REFERENCE.cell("t5.yarn-llama-2-7b-128k.passkey_accuracy")

    def of(hits: int) -> str:
        estimate = accuracy(np.r_[np.ones(hits), np.zeros(160 - hits)]).map(lambda x: 100 * x, "percent")
        return verdict(published, Ours(estimate, None))

    assert of(160) == of(159) == REPRODUCED
    assert of(155) == of(150) == NOT_EXCLUDED
    assert of(140) == of(80) == DIFFERS


def test_scores_are_allowed_the_binomial_error_of_their_questions() -> None:
    """ARC-c has 1,172 questions: at 52.3 % that is ± 2.86 points."""
    arc = REFERENCE.cell("t3.yarn-llama-2-7b-64k.arc-challenge.acc_norm")
    allowed = tolerance(arc, "benchmarks", Ours(Estimate(52.3, 49, 55, 1172, "questions", "percent", "normal"), None))
    assert allowed.amount == pytest.approx(1.96 * 100 * math.sqrt(0.523 * 0.477 / 1172), rel=1e-3)
    for value, expected in ((52.3, REPRODUCED), (55.0, REPRODUCED), (55.3, DIFFERS), (49.3, DIFFERS)):
        assert (
            verdict(arc, Ours(Estimate(value, value - 3, value + 3, 1172, "questions", "percent", "normal"), None))
            == expected
        )


def test_settings_are_reproduced_exactly_or_not() -> None:
    """A learning rate of 3e-5 is not 2e-5."""
    rate = REFERENCE.cell("stated.yarn-llama-2-7b-64k.lr")
    for value, expected in ((2e-5, REPRODUCED), (3e-5, DIFFERS)):
        assert verdict(rate, Ours(Estimate(value, value, value, 1, "value", "1", "as set"), None)) == expected


def documents(nll: float, noise: int) -> Ours:
    """Twelve documents that differ by much more than models do; `noise` seeds a little of it."""
    values = nll + np.linspace(-1, 1, 12) + np.random.default_rng(noise).normal(0, 0.005, 12)
    frame = pd.DataFrame([values], index=pd.Index([42], name="seed"), columns=[f"doc-{i}" for i in range(12)])
    return replace(measured(math.exp(nll), half=2.0), documents=frame)


def test_orders_are_paired_by_document() -> None:
    """Two models half a percent of the documents' spread apart are told apart; the paper's order decides what that means."""
    low, high = REFERENCE.cell("cr-t5.yarn-llama-7b-32k.32768"), REFERENCE.cell("cr-t5.linear-llama-7b-32k.32768")
    assert low.target is not None and high.target is not None and low.target < high.target
    kept = compare_orders((low, high), {low.cell: documents(1.0, 1), high.cell: documents(1.1, 2)})
    assert kept[low.cell].kept == (high.cell,) and kept[high.cell].kept == (low.cell,)
    turned = compare_orders((low, high), {low.cell: documents(1.1, 1), high.cell: documents(1.0, 2)})
    assert turned[low.cell].reversed == (high.cell,) and not turned[low.cell].kept
    tied = compare_orders((low, high), {low.cell: documents(1.0, 1), high.cell: documents(1.0, 2)})
    assert tied[low.cell].open == (high.cell,)


def test_one_seed_is_set_against_every_seed_in_an_order() -> None:
    """Weights that are not trained here have one seed: what the other's seeds differ by still widens the interval."""
    low, high = REFERENCE.cell("cr-t5.yarn-llama-7b-32k.32768"), REFERENCE.cell("cr-t5.linear-llama-7b-32k.32768")
    other = documents(1.1, 2)
    for spread, status in ((0.0, "kept"), (1.0, "open")):
        seeds = pd.DataFrame(np.repeat(other.documents.to_numpy(), 3, axis=0), index=[42, 43, 44])
        seeds.columns = other.documents.columns
        seeds += np.array([[-spread], [0.0], [spread]])
        several = replace(other, documents=seeds)
        found = compare_orders((low, high), {low.cell: documents(1.0, 1), high.cell: several})
        assert getattr(found[low.cell], status) == (high.cell,)


def test_orders_that_the_paper_does_not_show_are_not_asked_for() -> None:
    """Together's 3.5065 and YaRN's 3.5065 at 8,192 are no order, nor are 0.76 and 0.68 of 50 trials, nor two '>10^1'."""
    pairs = [
        ("t2.llama-2-7b-32k.8192", "t2.yarn-llama-2-7b-64k.8192"),
        ("cr-f3.linear-llama-7b-32k.32768", "cr-f3.yarn-llama-7b-32k.32768"),
        ("t2.yarn-llama-2-7b-64k.98304", "t2.yarn-llama-2-13b-64k.98304"),
        ("t2.yarn-llama-2-7b-64k.8192", "t2.yarn-llama-2-13b-64k.32768"),  # neither a row nor a column
    ]
    for names in pairs:
        cells = tuple(REFERENCE.cell(name) for name in names)
        found = compare_orders(cells, {names[0]: documents(1.0, 1), names[1]: documents(2.0, 2)})
        assert found[names[0]] == Orders(), names
    row = tuple(REFERENCE.cell(f"t2.yarn-llama-2-7b-64k.{n}") for n in (65536, 98304))
    found = compare_orders(row, {row[0].cell: documents(1.0, 1), row[1].cell: documents(2.0, 2)})
    assert found[row[0].cell].kept == (row[1].cell,)  # 2.42 is below anything above 10
