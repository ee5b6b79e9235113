"""The default stands unless another candidate is clearly faster, whatever noise there is."""

from __future__ import annotations

import random
import statistics

import pytest

from yarnlab.machine.choice import PRODUCTS, attention_work, choices, faster, kernel_for

WORKS = [attention_work(length, gradients) for length in (256, 4096) for gradients in (False, True)]
# GFLOP/s of products, then by (blockwise, sdpa) of attention forward over long rows, forward and backward over long rows,
# over rows of 256. An EPYC that has avx512_bf16, and an Intel server that has it too; of this one six numbers of long
# rows, the products and bf16 over rows of 256 were measured, 50 and (60, 70) are assumed.
INTEL = {"bf16": (82, (44, 63), (36, 50), (23, 16)), "fp32": (162, (73, 113), (50, 66), (60, 70))}
EPYC = {"bf16": (99, (61, 44), (89, 53), (29, 22)), "fp32": (54, (40, 50), (37, 39), (19, 23))}


def seconds_of(machine, noise=lambda: 1.0):
    def entry(rates):
        return {f"{d} {k}": noise() / rates[d][i] for d in rates for i, k in enumerate(("blockwise", "sdpa"))}

    long, step, short = ({d: machine[d][i] for d in machine} for i in (1, 2, 3))
    return {
        PRODUCTS: {dtype: noise() / machine[dtype][0] for dtype in machine},
        **dict(zip(WORKS, map(entry, (short, short, long, step)), strict=True)),
    }


def test_the_flag_says_bf16_and_the_clock_says_fp32():
    """Then fp32 it is, with torch's kernel; bf16, if a study fixes it, takes blockwise for short rows alone."""
    found = choices(seconds_of(INTEL), "bf16")
    assert found["precision"] == "fp32"
    assert found["kernels"]["fp32"][WORKS[2]] == found["kernels"]["fp32"][WORKS[3]] == "sdpa"
    assert [found["kernels"]["bf16"][work] for work in WORKS] == ["blockwise", "blockwise", "sdpa", "sdpa"]


def test_where_bf16_is_faster_the_default_stands_or_is_taken():
    for default in ("bf16", "fp32"):
        found = choices(seconds_of(EPYC), default)
        assert found["precision"] == "bf16"
        assert set(found["kernels"]["bf16"].values()) == {"blockwise"}
        assert set(found["kernels"]["fp32"].values()) == {"sdpa"}  # by default, at 39 to 37 GFLOP/s too


def test_blockwise_is_taken_in_fp32_where_it_is_clearly_faster():
    found = choices(seconds_of({"fp32": (50, (30, 40), (50, 40), (20, 20))}), "fp32")
    assert [found["kernels"]["fp32"][work] for work in WORKS] == ["sdpa", "sdpa", "sdpa", "blockwise"]


def test_what_was_not_timed_is_not_chosen():
    """bf16 that is emulated is left out, whatever the flags say; its kernels are then the default."""
    found = choices(seconds_of({"fp32": EPYC["fp32"]}), "bf16")
    assert found["precision"] == "fp32"
    assert set(found["kernels"]["bf16"].values()) == {"blockwise"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [(0.5, "other"), (1 / 1.16, "other"), (1 / 1.14, "default"), (1.0, "default"), (2.0, "default")],
)
def test_the_margin(other, expected):
    assert faster({"default": 1.0, "other": other}, "default") == expected


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, "default"), (1.05, "default"), (1.4, "other"), (0.7, "default")])
def test_noise_does_not_flip_a_choice(ratio, expected):
    """Medians of five rounds that each take up to 10 % longer, one in twenty twice as long: 200 runs, one choice. Without
    the margin, equal candidates would flip."""
    draw = random.Random(0)

    def median(seconds: float) -> float:
        return statistics.median(seconds * draw.uniform(1, 1.1) * (2 if draw.random() < 0.05 else 1) for _ in range(5))

    runs = [{"default": median(1.0), "other": median(1 / ratio)} for _ in range(200)]
    assert {faster(run, "default") for run in runs} == {expected}
    if ratio == 1.0:
        assert len({min(run, key=run.__getitem__) for run in runs}) == 2


def test_the_nearest_length_by_ratio_decides():
    kernels = dict(zip(WORKS, ("a", "b", "c", "d"), strict=True))
    assert [kernel_for(kernels, n, False) for n in (1, 256, 1000, 1100, 131072)] == ["a", "a", "a", "c", "c"]
    assert [kernel_for(kernels, n, True) for n in (128, 8192)] == ["b", "d"]
    assert kernel_for({}, 256, True) == "blockwise"
