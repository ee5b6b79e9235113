"""Which exceptions are a user's mistake, to be shown as one message, and which are bugs, shown with a traceback."""

from __future__ import annotations

import sys
from collections.abc import Mapping

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the state is saved and the same command continues

# By name, so that showing an error of one module does not import all others.
_MISTAKES = {
    "yarnlab.study.read": ("StudyError",),
    "yarnlab.hub.errors": ("HubError",),
    "yarnlab.plan.stages": ("PlanError",),
    "yarnlab.corpus.packages": ("CorpusError",),
    "yarnlab.corpus.passkey": ("PromptError",),
    "yarnlab.attention": ("AttentionError",),
    "yarnlab.checkpoints": ("ArchitectureMismatch",),
    "yarnlab.modeling": ("RopeMismatch", "NoGPU"),
    "yarnlab.evaluation.documents": ("EvaluationError",),
    "yarnlab.training.loop": ("TrainingError",),
    "yarnlab.training.loss": ("LossUnavailable",),
    "yarnlab.training.parallel": ("WorkerFailed",),
    "yarnlab.training.rows": ("RowError",),
    "yarnlab.training.checkpoint": ("StateBusy",),
    "yarnlab.training.shards": ("WeightsError",),
    "yarnlab.results.results": ("ResultsError",),
    "yarnlab.crate": ("CrateError",),
    "yarnlab.results.published.data": ("ReferenceDataError",),
}


def is_mistake(error: BaseException) -> bool:
    """Whether the error's message alone tells the user what happened and what to do."""
    return isinstance(error, OSError) or _is_one_of(error, _MISTAKES)


def is_interruption(error: BaseException) -> bool:
    return _is_one_of(error, {"yarnlab.training.loop": ("Interrupted",)})


def _is_one_of(error: BaseException, classes: Mapping[str, tuple[str, ...]]) -> bool:
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, names in classes.items()
        if module in sys.modules
        for name in names
    )
