"""numpy, pandas, torch, altair, mlflow, its entities and scipy.stats, imported when something of them is first used.

The Snakefile reads the kinds of evaluations and the registry of tables and figures at every start, on a cluster also in
each job: without this it would import torch and pandas each time, seconds of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["alt", "entities", "mlflow", "np", "pd", "stats", "torch"]

if TYPE_CHECKING:
    import altair as alt
    import mlflow
    import numpy as np
    import pandas as pd
    import torch
    from mlflow import entities
    from scipy import stats
else:

    class _Module:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

    alt, mlflow, np, pd, torch = map(_Module, ("altair", "mlflow", "numpy", "pandas", "torch"))
    entities, stats = _Module("mlflow.entities"), _Module("scipy.stats")
