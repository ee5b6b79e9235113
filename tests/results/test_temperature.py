"""The statistics of the sweep on curves whose best factors, slope and intercept are known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from results.light import light
from yarnlab.results import temperature
from yarnlab.results.estimates import NotMeasured

GRID = tuple(round(1 + 0.05 * i, 2) for i in range(13))  # 1.00 … 1.60
SCALES = (2.0, 4.0, 8.0, 16.0, 32.0)


def sweep(
    a=0.1, b=1.0, *, scales=SCALES, grid=GRID, documents=8, seeds=(0,), spread=0.0, seed_spread=0.0, rng=0
) -> pd.DataFrame:
    """A table of parabolas: NLL 2 + 3·(factor − best)² + an offset of the document, with best = a·ln s + b + a shift
    of the document, and ± seed_spread for even and odd seeds. Two segments, of which the second has three times the tokens of the first."""
    generator = np.random.default_rng(rng)
    level, shift = generator.normal(0, 1, documents), generator.normal(0, spread, documents)
    rows = []
    for seed in seeds:
        for scale in scales:
            formula = 0.1 * math.log(scale) + 1
            runs = [("grid", f) for f in grid] + [("formula", formula), ("reading", math.sqrt(formula))]
            for document in range(documents):
                best = a * math.log(scale) + b + shift[document] + seed_spread * (-1) ** seed
                for kind, factor in runs:
                    nll = 2 + level[document] + 3 * (factor - best) ** 2
                    for segment, tokens, change in ((0, 100, 0.3), (1, 300, -0.1)):  # cancel when weighted by tokens
                        rows.append((seed, scale, factor, kind, f"d{document}", segment, tokens, nll + change))
    return pd.DataFrame(rows, columns=["seed", "scale", "factor", "kind", "document", "segment", "tokens", "nll"])


@pytest.mark.parametrize(("a", "b"), [(0.1, 1.0), (0.07, 1.0), (0.15, 1.03)])
def test_a_line_is_found_exactly(a, b):
    """Parabolas without noise: best factors between the grid's points, slope and intercept to 1e-9."""
    fit = temperature.fit(sweep(a, b))
    assert [best.factor.value for best in fit.best] == pytest.approx([a * math.log(s) + b for s in SCALES], abs=1e-9)
    assert fit.slope.value == pytest.approx(a, abs=1e-9) and fit.intercept.value == pytest.approx(b, abs=1e-9)
    assert fit.scales == SCALES and not any(best.at_edge or best.edge_share for best in fit.best)
    assert (fit.slope.n, fit.slope.over) == (8, "documents")


def test_scales_whose_documents_end_early_are_left_out_of_the_line():
    """With L = 50 the 401 tokens reach 8·L; beyond it the best factor is of another window, shown and not fitted."""
    fit = temperature.fit(sweep(0.1, 1.0), original_context=50)
    assert fit.scales == (2.0, 4.0, 8.0)
    assert [best.cut_off for best in fit.best] == [False, False, False, True, True]
    assert len(temperature.fit(sweep(0.1, 1.0), original_context=12).scales) == len(SCALES)


def moved(table: pd.DataFrame, by: float) -> pd.DataFrame:
    """The same curves, with the second segment's best factor at s = 8 moved up."""
    best = 0.1 * math.log(8) + 1.0
    change = 3 * ((table["factor"] - best - by) ** 2 - (table["factor"] - best) ** 2)
    return table.assign(nll=table["nll"] + change.where((table["segment"] == 1) & (table["scale"] == 8), 0.0))


@pytest.mark.parametrize("by", [0.0, 0.04, 0.1, -0.1])
def test_the_range_over_segments_is_found_exactly(by):
    """Between the grid's points too, whatever documents share; at one scale."""
    table = moved(sweep(spread=0.03), by)
    found = temperature.range_over_segments(table[table["scale"] == 8])
    assert found.value == pytest.approx(abs(by), abs=1e-9) and found.n == 8
    assert found.high - found.low < 1e-9


def test_a_segment_that_is_best_at_the_end_of_the_grid_counts_as_that_end():
    """The grid begins at 1.00 and the first segment's best factor lies at 0.90: 0.21 apart, not 0.31, or more."""
    table = sweep(b=0.9, a=0.0)
    table = table.assign(nll=table["nll"] + np.where(table["segment"] == 1, -6 * 0.31 * table["factor"], 0.0))
    found = temperature.range_over_segments(table[table["scale"] == 8])
    assert (found.value, found.low) == pytest.approx((0.21, 0.21), abs=1e-9) and found.high == math.inf


def test_the_range_over_segments_needs_three_factors_and_eight_documents():
    with pytest.raises(NotMeasured, match="three factors or more"):
        temperature.range_over_segments(sweep(scales=(8.0,), grid=(1.0, 1.1)))
    assert temperature.range_over_segments(sweep(scales=(8.0,), documents=7)).high == math.inf


def test_documents_that_move_together_leave_the_slope_alone():
    """A shift of a document's curves, the same at all scales, widens the intercept's interval and not the slope's:
    the resamples are paired over scales."""
    fit = temperature.fit(sweep(0.1, 1.2, grid=tuple(round(0.8 + 0.05 * i, 2) for i in range(25)), spread=0.03))
    assert fit.slope.high - fit.slope.low < 1e-6
    assert 0.02 < fit.intercept.high - fit.intercept.low < 0.12
    assert fit.slope.value == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize("documents", [5, 12])
def test_intervals_cover_the_truth(documents):
    """Of 40 sweeps over documents with shifted curves, at least 34 intervals of the intercept hold it."""
    grid = tuple(round(0.8 + 0.1 * i, 2) for i in range(12))
    fits = [
        temperature.fit(sweep(0.1, 1.2, scales=(2.0, 8.0), grid=grid, documents=documents, spread=0.05, rng=k))
        for k in range(40)
    ]
    covered = sum(fit.intercept.low <= 1.2 <= fit.intercept.high for fit in fits)
    assert covered >= 34 and max(fit.intercept.high - fit.intercept.low for fit in fits) < 0.4


def test_a_minimum_at_the_end_of_the_grid_is_not_extrapolated():
    """Best at 1.62 and 1.72 with a grid up to 1.60: those scales have the grid's end as value and no upper bound, and
    the line goes through the others."""
    fit = temperature.fit(sweep(0.15, 1.2))
    assert [best.at_edge for best in fit.best] == [False, False, False, True, True]
    assert (fit.best[4].factor.value, fit.best[4].factor.high, fit.best[4].edge_share) == (1.6, math.inf, 1.0)
    assert fit.best[4].factor.low == 1.6
    assert fit.scales == (2.0, 4.0, 8.0) and fit.slope.value == pytest.approx(0.15, abs=1e-9)


def test_a_minimum_below_the_grid_is_bounded_by_zero():
    """Best at 0.97 for s = 2, below the grid: between 0 and its first factor is all that is known."""
    best = temperature.fit(sweep(0.1, 0.9)).best[0]
    assert best.at_edge and (best.factor.low, best.factor.value, best.factor.high) == (0.0, 1.0, 1.0)


def test_resamples_at_the_end_of_the_grid_open_the_interval():
    """Documents spread so widely that some resamples end at the grid: the slope's interval says that it has no bound
    on the side where those scales pull, rather than that the grid's end was the minimum."""
    fit = temperature.fit(sweep(0.1, 1.22, documents=6, spread=0.08, rng=3))
    assert not fit.best[4].at_edge and 0.025 < fit.best[4].edge_share < 1
    assert fit.slope.high == math.inf and math.isfinite(fit.slope.low)
    assert fit.intercept.low == -math.inf


def test_one_scale_left_has_no_line():
    fit = temperature.fit(sweep(0.3, 1.2))
    assert fit.scales == (2.0,) and fit.slope is None and fit.intercept is None


def test_the_scale_at_the_middle_has_no_say_in_the_slope():
    """With s = 2, 4, 8 the weight of s = 4 in the slope is 0: its open interval must not spoil the slope's."""
    table = sweep(0.1, 1.0, scales=(2.0, 4.0, 8.0))
    wide = (table["scale"] == 4) & table["document"].isin(["d0", "d1"])
    table.loc[wide, "nll"] = -60.0 * table.loc[wide, "factor"]  # these two pull to the upper end
    table.loc[(table["scale"] == 4) & ~wide, "nll"] *= 30
    fit = temperature.fit(table)
    assert fit.best[1].factor.high == math.inf and not fit.best[1].at_edge
    assert math.isfinite(fit.slope.low) and math.isfinite(fit.slope.high) and fit.intercept.high == math.inf


def test_seeds_widen_the_interval():
    """Two seeds whose curves differ make the intercept less certain than one."""
    grid = tuple(round(0.6 + 0.1 * i, 2) for i in range(15))
    one = temperature.fit(sweep(0.1, 1.1, grid=grid, spread=0.02))
    two = temperature.fit(sweep(0.1, 1.1, grid=grid, spread=0.02, seeds=(0, 1), seed_spread=0.1))
    assert two.intercept.high - two.intercept.low > 2 * (one.intercept.high - one.intercept.low)
    assert two.intercept.n == 16 and "seeds" in two.intercept.over


def test_three_seeds_that_differ_cover_the_truth():
    """Three seeds whose curves are shifted by more than those of documents: of 60 intervals of the intercept and of a
    best factor, at least 54 hold the truth. The seeds' own range would miss every fourth."""
    grid = tuple(round(0.4 + 0.1 * i, 2) for i in range(18))
    shifts = np.random.default_rng(21).normal(0, 0.1, (60, 3))
    intercept = best = 0
    with light():
        for k, own in enumerate(shifts):
            arms = {"scales": (2.0, 8.0), "grid": grid, "documents": 12, "spread": 0.03, "rng": k}
            table = pd.concat([sweep(0.1, 1.2 + shift, seeds=(seed,), **arms) for seed, shift in enumerate(own)])
            fit = temperature.fit(table)
            intercept += fit.intercept.low <= 1.2 <= fit.intercept.high
            best += fit.best[0].factor.low <= 1.2 + 0.1 * math.log(2) <= fit.best[0].factor.high
    assert intercept >= 54 and best >= 54


def test_seeds_that_agree_cost_little():
    """Two seeds with the same curves are hardly less certain than one."""
    grid = tuple(round(0.6 + 0.1 * i, 2) for i in range(15))
    one, two = (
        temperature.fit(sweep(0.1, 1.1, grid=grid, documents=12, spread=0.02, seeds=seeds)) for seeds in ((0,), (0, 2))
    )
    assert 1 <= (two.intercept.high - two.intercept.low) / (one.intercept.high - one.intercept.low) < 1.1


def test_one_document_has_no_interval():
    fit = temperature.fit(sweep(documents=1))
    assert (fit.slope.low, fit.slope.high) == (-math.inf, math.inf)


def test_the_order_of_rows_does_not_matter():
    """Shuffled, the table gives the same fit and the same intervals to the last digits that sums leave."""
    table = sweep(spread=0.03)
    a, b = temperature.fit(table), temperature.fit(table.sample(frac=1, random_state=1))
    assert b.slope.high == pytest.approx(a.slope.high, abs=1e-9) and b.slope.value == pytest.approx(
        a.slope.value, abs=1e-9
    )


def test_incomplete_tables_and_odd_grids_are_errors():
    table = sweep()
    with pytest.raises(ValueError, match=r"1 of 520 cells \(scale, seed, document, factor\) are missing"):
        temperature.fit(table[~((table["scale"] == 8) & (table["factor"] == 1.2) & (table["document"] == "d3"))])
    with pytest.raises(ValueError, match=r"equal steps, got 1, 1\.1, 1\.4"):
        temperature.fit(sweep(grid=(1.0, 1.1, 1.4)))
    with pytest.raises(ValueError, match=r"no 1 to compare with, only 1\.05, 1\.1"):
        temperature.relative_change(sweep(grid=(1.05, 1.1)))


def test_perplexity_by_factor_by_hand():
    """Documents of NLL 2 + level at the best factor: the mean and sample deviation of their perplexities."""
    table = sweep(0.0, 1.2, documents=3)
    row = temperature.perplexity_by_factor(table).query("scale == 8 and kind == 'grid' and factor == 1.2").iloc[0]
    expected = np.exp(2 + np.random.default_rng(0).normal(0, 1, 3))
    assert row["perplexity"] == pytest.approx(expected.mean()) and row["sd"] == pytest.approx(expected.std(ddof=1))
    assert row["documents"] == 3


def test_relative_change_by_hand():
    """From factor 1 to the best at 1.2 the NLL falls by 3·0.2² = 0.12 in each segment; at 1 there is no change. The
    formula's row has its own factor."""
    change = temperature.relative_change(sweep(0.0, 1.2)).set_index(["scale", "kind", "segment", "factor"]).sort_index()
    for segment in (0, 1):
        at = change.loc[(4.0, "grid", segment, 1.2)]
        assert at["change"] == pytest.approx(math.expm1(-0.12)) and at["low"] <= at["change"] <= at["high"]
        assert change.loc[(4.0, "grid", segment, 1.0), "change"] == 0
        formula = change.loc[(4.0, "formula", segment)]
        nll = 3 * ((0.1 * math.log(4) - 0.2) ** 2 - 0.2**2)
        assert len(formula) == 1 and formula["change"].iloc[0] == pytest.approx(math.expm1(nll))
    assert len(change) == 5 * 15 * 2


def test_best_by_document_and_histogram():
    """Three documents with minima at 1.1, 1.1 and beyond the grid; in the second segment of the first it is at 1.3."""
    table = sweep(0.0, 1.1, scales=(8.0,), documents=3)
    far = table["document"] == "d2"
    table.loc[far, "nll"] = -table.loc[far, "factor"]
    other = (table["document"] == "d0") & (table["segment"] == 1)
    table.loc[other, "nll"] = (table.loc[other, "factor"] - 1.3) ** 2 * 1e-6
    whole = temperature.best_by_document(table).set_index("document")
    assert whole["factor"].to_dict() == {"d0": 1.1, "d1": 1.1, "d2": 1.6}
    assert whole["at_edge"].to_dict() == {"d0": False, "d1": False, "d2": True}
    parts = temperature.best_by_document(table, by_segment=True).set_index(["document", "segment"])["factor"]
    assert parts["d0", 0] == 1.1 and parts["d0", 1] == 1.3
    counts = temperature.histogram(temperature.best_by_document(table))
    assert counts.to_dict("list") == {"scale": [8.0, 8.0], "factor": [1.1, 1.6], "documents": [2, 1]}
    by_segment = temperature.histogram(temperature.best_by_document(table, by_segment=True))
    assert by_segment.groupby("segment")["documents"].sum().to_dict() == {0: 3, 1: 3}
