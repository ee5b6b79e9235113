"""A server that is killed at random moments: what MLflow has in the end is what it has of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from urllib.request import urlopen

import pytest
from tracking.conftest import Store, done
from tracking.test_servers import followed

from yarnlab import tracking

KILLS = 10


def everything(store):
    """All that MLflow has of the study, by names: its own ids, of runs, models and folders, are left out."""
    client, runs = store.client, {}
    for found in store.runs():
        run = client.get_run(found.info.run_id)
        data, own = run.data, {"yarnlab.published", "mlflow.parentRunId"}
        history = {key: client.get_metric_history(run.info.run_id, key) for key in data.metrics}
        inputs = run.inputs.dataset_inputs if run.inputs else []
        runs[run.info.run_name] = {
            "info": (run.info.status, run.info.start_time, run.info.end_time),
            "tags": {key: value for key, value in data.tags.items() if key not in own},
            "published": data.tags["yarnlab.published"],
            "params": data.params,
            "metrics": {key: sorted((p.timestamp, p.step, p.value) for p in points) for key, points in history.items()},
            "datasets": sorted((d.dataset.name, d.dataset.digest) for d in inputs),
            "models": [len(m) for m in (run.inputs.model_inputs, run.outputs.model_outputs)] if run.outputs else [],
            "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
        }
    assert len(runs) == len(store.runs())
    models = {
        name: (str(model.status), model.params, sorted((m.key, m.timestamp, m.step, m.value) for m in model.metrics))
        for name, model in store.models().items()
    }
    best = client.get_model_version_by_alias("yarnlab-micro", "best").source.rpartition("/")[2]
    return runs, models, client.get_logged_model(best).name


def serve(folder, port):
    """A server over folder/mlflow.db that answers; in a session of its own, to be killed with its workers."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {key: value for key, value in (os.environ | quiet).items() if key != "MLFLOW_TRACKING_URI"}
    server = subprocess.Popen(command, env=env, start_new_session=True, **output)
    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        try:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return server
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not start")


def kill(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def publish_all(study):
    """As often as a slow machine's timeouts ask for."""
    for _ in range(20):
        if not tracking.publish(study.directory).pending:
            return
    raise AssertionError(tracking.publish(study.directory).warning)


@pytest.mark.slow
def test_a_server_killed_ten_times_has_everything_in_the_end(
    study, migrated, tmp_path, use_uri, closed_port, monkeypatch
):
    """Live curves of twelve models, samples, evaluations, checkpoints; ten SIGKILLs while they are sent."""
    chance = random.Random(os.environ.get("PYTEST_SEED", "22"))
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
        shutil.copy(migrated, tmp_path / name / "mlflow.db")
    use_uri(f"http://127.0.0.1:{closed_port}")
    over = threading.Event()

    def work():
        """Models that train for as long as servers are killed."""
        number, parent = 0, ""
        while not over.is_set() and number < 12:
            name = f"model{number}"
            study.start(name, tags={"model": name, "arm": name, "method": "yarn", "scale": "4", "parent": parent})
            with tracking.sampled(study.directory, f"train.{name}"):
                for step in range(1, 400):
                    study.step(step, name, tokens=10 * step)
                    if over.wait(0.01):
                        break
            study.end(name, metrics={"final_loss": 0.5})
            study.evaluate("perplexity", {"nll/64": 3.0 + number, "nll/256": 2.0 + number / 7}, name)
            number, parent = number + 1, name

    worker = threading.Thread(target=work)
    with followed(study, monkeypatch):
        worker.start()
        for _ in range(KILLS):
            server = serve(tmp_path / "killed", closed_port)
            time.sleep(chance.uniform(0.1, 4.0))
            kill(server)
        over.set()
        worker.join(30)
    server = serve(tmp_path / "killed", closed_port)
    try:
        publish_all(study)
        killed = everything(Store(f"http://127.0.0.1:{closed_port}"))
        assert done(tracking.publish(study.directory)) == (0, 0, None)
    finally:
        kill(server)
    server = serve(tmp_path / "undisturbed", closed_port)
    try:
        publish_all(study)
        undisturbed = everything(Store(f"http://127.0.0.1:{closed_port}"))
    finally:
        kill(server)
    assert len(killed[0]) > 1
    assert killed == undisturbed
