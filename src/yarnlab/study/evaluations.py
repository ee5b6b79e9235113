"""The registry of evaluations: a module of `yarnlab.evaluation` with a subclass of `Evaluation` is a kind, and a
section of a study under its name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from yarnlab import evaluation
from yarnlab.evaluation.base import Evaluation
from yarnlab.study.fields import ConfigModel


def _found() -> dict[str, type[Evaluation]]:
    """Name → kind. TypeError for one whose name is not its module's: the key of its code would be another's."""
    for module in pkgutil.iter_modules(evaluation.__path__):
        importlib.import_module(f"{evaluation.__name__}.{module.name}")
    kinds = sorted(Evaluation.__subclasses__(), key=lambda kind: (kind.order, kind.kind))
    for kind in kinds:
        if kind.__module__ != f"{evaluation.__name__}.{kind.kind}":
            raise TypeError(f"the evaluation kind {kind.kind!r} stands in {kind.__module__}: name the module like it")
    return {kind.kind: kind for kind in kinds}


KINDS = _found()

if TYPE_CHECKING:

    class Evaluations(ConfigModel):
        """Any kind's section, or None where a study does not have it."""

        def __getattr__(self, kind: str) -> Any: ...

else:
    Evaluations = create_model(
        "Evaluations",
        __base__=ConfigModel,
        __module__=__name__,
        __doc__="What is measured: one section for each kind, left out where a study does not have it.",
        **{name: (kind | None, None) for name, kind in KINDS.items()},
    )
