"""MLflow as a mirror of what is on disk.

Stages never talk to MLflow: `record_start` and `record_end` write one small JSON file per stage, and the manifest, the
per-step JSONL and samples of the machine (`sampled`) lie beside it. `publish` copies what MLflow does not have yet;
`follow` does so every few seconds beside a running study. A dead server therefore costs a warning, never a run, and
what was missed is replayed from disk. Importing this package imports no MLflow.
"""

from yarnlab.tracking.dashboard import serve
from yarnlab.tracking.mirror import follow, start_mirror
from yarnlab.tracking.publication import PublishResult, publication_state, publish, write_runs
from yarnlab.tracking.records import ended, read_record, record_end, record_start, restore_record, write_plan
from yarnlab.tracking.store import initialise, tracking_uri
from yarnlab.tracking.system import sampled

__all__ = [
    "PublishResult",
    "ended",
    "follow",
    "initialise",
    "publication_state",
    "publish",
    "read_record",
    "record_end",
    "record_start",
    "restore_record",
    "sampled",
    "serve",
    "start_mirror",
    "tracking_uri",
    "write_plan",
    "write_runs",
]
