"""MLflow as a mirror of what is on disk.

Stages never talk to MLflow: `record_start` and `record_end` write one small JSON file per stage, and the manifest, the
per-step JSONL and samples of the machine (`sampled`) lie beside it. `publish` copies what MLflow does not have yet;
`follow` does so every few seconds beside a running study. A dead server therefore costs a warning, never a run, and
what was missed is replayed from disk. Importing these modules imports no MLflow.
"""
