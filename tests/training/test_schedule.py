"""The learning rate is a function of the step alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnlab.training.schedule import learning_rate


@given(
    steps=st.integers(2, 500),
    share=st.floats(0, 1),
    schedule=st.sampled_from(["constant", "cosine", "linear"]),
    data=st.data(),
)
def test_schedule_rises_then_never_rises(steps, share, schedule, data):
    """Linear to the peak at the end of the warm-up, never above it, non-increasing after, ending where declared."""
    warmup = data.draw(st.integers(0, steps - 1))
    rates = [
        learning_rate(i, lr=1.0, steps=steps, warmup_steps=warmup, schedule=schedule, final_lr_share=share)
        for i in range(steps)
    ]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[:warmup]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[warmup:]))
    if warmup:
        assert rates[warmup - 1] == 1.0
    if schedule != "constant" and steps - warmup > 1:
        assert rates[-1] == pytest.approx(share)


def test_a_line_falls_evenly():
    rates = [
        learning_rate(i, lr=2.0, steps=12, warmup_steps=2, schedule="linear", final_lr_share=0.1) for i in range(12)
    ]
    assert rates[2] == 2.0 and rates[-1] == pytest.approx(0.2)
    assert [b - a for a, b in pairwise(rates[2:])] == pytest.approx([-0.2] * 9)
