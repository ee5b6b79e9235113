"""Servers over a store, and all that MLflow has in it, entity by entity."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from tracking.conftest import Store, done
from tracking.test_models import DATA

from yarnlab.tracking import publication
from yarnlab.tracking.system import sampled


def files(folder, address):
    """{path: sha256} of all artifacts below an address; what MLflow writes of itself into a model is left out."""
    place, found = folder / "artifacts" / address.removeprefix("mlflow-artifacts:/"), {}
    for file in filter(Path.is_file, place.rglob("*")):
        own = rb"(model_id|model_uuid|model_size_bytes|utc_time_created|artifact_path):.*"
        content = re.sub(own, b"", file.read_bytes()) if file.name == "MLmodel" else file.read_bytes()
        found[file.relative_to(place).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def points(metrics):
    """Every point with the data set it was measured on; MLflow keeps what is sent twice once."""
    found = sorted((m.key, m.timestamp, m.step, m.value, str(m.dataset_name), str(m.dataset_digest)) for m in metrics)
    assert len(set(found)) == len(found)
    return found


def everything(uri, folder):
    """All that MLflow has of the study: experiment, runs, models, registered models; its ids are replaced by names."""
    store = Store(uri)
    client, experiment = store.client, store.experiment
    models = {model.model_id: model for model in store.models().values()}
    found = {run.info.run_id: client.get_run(run.info.run_id) for run in store.runs()}
    named = {i: model.name for i, model in models.items()} | {i: run.info.run_name for i, run in found.items()}

    def parts(of, kind):
        return getattr(of, kind, None) or []

    def tags(of):
        kept = {key: value for key, value in of.items() if not key.startswith("mlflow.sharedViewState")}  # has times
        return {key: re.sub(r"m-\w+|[0-9a-f]{32}", lambda i: named.get(i[0], i[0]), kept[key]) for key in kept}

    entities = {"experiment": [(experiment.name, experiment.lifecycle_stage, tags(experiment.tags))]}
    entities["run"] = [(r.info.run_name, r.info.status, r.info.start_time, r.info.end_time) for r in found.values()]
    entities["tag"] = [(r.info.run_name, tags(r.data.tags)) for r in found.values()]
    entities["param"] = [(r.info.run_name, r.data.params) for r in found.values()]
    entities["metric"] = [
        (r.info.run_name, points(p for key in r.data.metrics for p in client.get_metric_history(i, key)))
        for i, r in found.items()
    ]
    entities["last value"] = [(r.info.run_name, r.data.metrics) for r in found.values()]
    entities["data set"] = [
        (r.info.run_name, d.dataset.name, d.dataset.digest, d.dataset.source, sorted((t.key, t.value) for t in d.tags))
        for r in found.values()
        for d in parts(r.inputs, "dataset_inputs")
    ]
    entities["model in"] = [
        (r.info.run_name, named[m.model_id]) for r in found.values() for m in parts(r.inputs, "model_inputs")
    ]
    entities["model out"] = [
        (r.info.run_name, named[m.model_id]) for r in found.values() for m in parts(r.outputs, "model_outputs")
    ]
    entities["file"] = [(r.info.run_name, files(folder, r.info.artifact_uri)) for r in found.values()]
    entities["model"] = [
        (m.name, str(m.status), named[m.source_run_id], m.model_type, tags(m.tags), m.params) for m in models.values()
    ]
    entities["model metric"] = [(m.name, points(m.metrics or [])) for m in models.values()]
    entities["model file"] = [(m.name, files(folder, m.artifact_location)) for m in models.values()]
    for model in client.search_registered_models():
        sources = [version.source for version in client.search_model_versions(f"name = '{model.name}'")]
        assert len(set(sources)) == len(sources)
    entities["registered"] = [
        (
            model.name,
            model.description,
            alias,
            named[client.get_model_version(model.name, version).source.removeprefix("models:/")],
        )
        for model in client.search_registered_models()
        for alias, version in model.aliases.items()
    ]
    return {kind: sorted(own, key=repr) for kind, own in entities.items()}


def assert_same(found, undisturbed):
    """By kind, so that a failure names the first one that differs; and each has something to compare."""
    for kind, expected in undisturbed.items():
        assert expected, kind
        assert found[kind] == expected, kind
    for kind in ("run", "model"):
        assert len({name for name, *_ in found[kind]}) == len(found[kind])


@contextmanager
def served(folder, port, *options, **env):
    """A server over folder/mlflow.db that answers, in a session of its own; killed with its workers at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri(), *options]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env = {key: value for key, value in (os.environ | quiet | env).items() if key != "MLFLOW_TRACKING_URI"}
    with open(folder / "server.log", "ab") as log:
        server = subprocess.Popen(command, env=env, cwd=folder, start_new_session=True, stdout=log, stderr=log)
    try:
        yield ready(f"http://127.0.0.1:{port}", lambda: server.poll() is None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ready(link, lives=lambda: True):
    """The link of a server, once it answers there."""
    give_up = time.monotonic() + 300
    while True:
        try:
            urlopen(f"{link}/health", timeout=2).close()
            return link
        except OSError:
            assert time.monotonic() < give_up and lives(), f"{link} never answered; see the folder's server.log"
            time.sleep(0.1)


def publish_all(study):
    """As often as answers are lost, and once more, which finds nothing to do; returns how often.

    With time enough for a server on a machine that is busy with other things.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        for count in range(1, 60):
            if not publication.publish(study.directory, deadline_s=30).pending:
                assert done(publication.publish(study.directory, deadline_s=30)) == (0, 0, None)
                return count
    raise AssertionError(publication.publish(study.directory).warning)


def train(study, number, steps, wait=lambda: None):
    """A model, trained from the one before it, evaluated on held-out text, with a table of its own."""
    name, parent = f"model{number}", f"model{number - 1}" if number else ""
    tags = {"model": name, "arm": name, "method": "yarn", "scale": "4", "parent": parent}
    study.start(name, tags=tags, artifacts=[f"tables/{name}.csv"])
    with sampled(study.directory, f"train.{name}"):
        for step in range(1, steps):
            study.step(step, name, tokens=10 * step)
            if wait():
                break
    (study.directory / "tables").mkdir(exist_ok=True)
    (study.directory / "tables" / f"{name}.csv").write_text(f"model,loss\n{name},0.5\n")
    study.end(name, metrics={"final_loss": 0.5}, datasets=DATA, seconds=1.5)
    lengths = {"nll/64": 3.0 + number, "nll/256": 2.0 + number / 7}
    study.evaluate("perplexity", lengths, name, datasets=[DATA[0] | {"name": "held-out", "context": "evaluation"}])
