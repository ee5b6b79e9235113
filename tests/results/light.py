"""What tests do without whose subject is not an interval's bounds or a chart's schema."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from altair.utils import schemapi

from yarnlab.results import statistics


@contextmanager
def light(resamples: int = 300, *, checked: bool = False) -> Iterator[None]:
    """Few bootstrap resamples, and (unless `checked`) no check of every chart's part by Altair: both cost seconds.

    Results are cached by identity: give functions a `dataclasses.replace` of results that others use too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", resamples)
        patch.setattr(schemapi, "DEBUG_MODE", checked)
        statistics.draws.cache_clear()
        yield
    statistics.draws.cache_clear()
