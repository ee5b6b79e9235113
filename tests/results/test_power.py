"""The power in docs/claims.md is that of the simulation, for claims that there are."""

import pytest

from results.power import BEGIN, END, ROWS, page, power, table
from yarnlab.results.claims.criteria import load_criteria


def written() -> str:
    text = page().read_text(encoding="utf-8")
    return text.split(BEGIN)[1].split(END)[0].strip()


def test_every_row_is_a_claim_and_stands_in_the_docs() -> None:
    ids = {claim.id for claim in load_criteria().claims}
    rows = [line.split(" | ") for line in written().splitlines()[2:]]
    expected = [line.split(" | ") for line in table(lambda row, runs: 0.0).splitlines()[2:]]
    assert {row.claim for row in ROWS} <= ids
    assert [row[:4] for row in rows] == [row[:4] for row in expected]


def test_power_grows_with_the_effect() -> None:
    """Order at sL against PI is shown by one run; that against NTK-by-parts, 0.014 nats, by none of 40."""
    small, large = ROWS[1], ROWS[2]
    assert power(large, 1, 40) == 1 and power(small, 1, 40) < 0.6


@pytest.mark.slow
def test_the_docs_print_the_simulation() -> None:
    assert written() == table()
