"""How numbers stand in tables where an interval has no end."""

import math

from yarnlab.results.display import percent, percent_points, signed, with_interval


def test_an_unbounded_interval_reads_alike_everywhere() -> None:
    """'∞', as in a table of plain numbers, never 'inf'."""
    assert with_interval(0.1, -math.inf, math.inf) == "0.100 [−∞, ∞]"
    assert signed(0.1, -math.inf, math.inf) == "+0.100 [−∞, ∞]"
    assert percent_points(-0.012, -math.inf, 0.02) == "−1.2 [−∞, +2.0]"
    assert percent(0.5, -math.inf, math.inf) == "50 % [−∞, ∞]"
