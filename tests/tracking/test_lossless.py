"""A server that is killed at random moments: what MLflow has in the end is what it has of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracking.stores import assert_same, everything, publish_all, ready, train
from tracking.test_servers import followed

from yarnlab.tracking import mirror

KILLS = 10


@contextmanager
def servers(folder, port):
    """Yields what has a server over the folder, for the length of a `with`, that is killed then."""
    command = [sys.executable, Path(__file__).with_name("forked_server.py"), str(folder), str(port)]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env.pop("MLFLOW_TRACKING_URI", None)

    @contextmanager
    def served():
        forking.stdin.write("\n")
        forking.stdin.flush()
        server = int(forking.stdout.readline())
        try:
            yield ready(f"http://127.0.0.1:{port}")
        finally:
            os.kill(server, signal.SIGKILL)

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with open(folder / "server.log", "w") as log:
        forking = subprocess.Popen(command, env=env, cwd=folder, stderr=log, text=True, **pipes)
    with forking:
        yield served
        forking.kill()


@pytest.mark.slow
def test_a_server_killed_ten_times_has_everything_in_the_end(study, folder, use_uri, closed_port, monkeypatch):
    """Live curves, samples, evaluations, checkpoints of models that follow each other; ten SIGKILLs while they are sent.

    Each at a random moment of a publication, which is another one in every run of this test. A model begins to train
    with every server, so that there is something to send, and a slow machine's servers do not have ever more to do.
    """
    seed = os.environ.get("PYTEST_SEED") or str(time.time_ns())
    print(f"PYTEST_SEED={seed} kills at the same moments")
    chance, turns = random.Random(seed), threading.Semaphore(0)
    use_uri(f"http://127.0.0.1:{closed_port}")
    monkeypatch.setattr(mirror, "_LONGEST_WAIT_S", 0.5)
    begun, results, took, publish = threading.Event(), [], [0.2], mirror.publish

    def watched(*arguments, **options):
        began = time.monotonic()
        begun.set()
        results.append(publish(*arguments, **options))
        if not results[-1].pending:
            took.append(time.monotonic() - began)
        return results[-1]

    monkeypatch.setattr(mirror, "publish", watched)

    def work():
        for number in range(KILLS):
            turns.acquire()
            train(study, number, 200, lambda: time.sleep(0.02))

    study.execute()
    worker = threading.Thread(target=work)
    with servers(killed := folder("killed"), closed_port) as served:
        with followed(study, monkeypatch):
            worker.start()
            try:
                for _ in range(KILLS):
                    with served():
                        turns.release()
                        time.sleep(0.5)  # there is something to send
                        begun.clear()
                        assert begun.wait(60)
                        time.sleep(chance.uniform(0.0, min(took)))  # before its end, on a fast machine too
            finally:
                turns.release(KILLS)
                worker.join(60)
        with served() as uri:
            publish_all(study)
            found = everything(uri, killed)
    assert sum(result.pending and "cannot be reached" not in str(result.warning) for result in results) >= KILLS / 2
    with servers(undisturbed := folder("undisturbed"), closed_port) as served, served() as uri:
        assert publish_all(study) == 1
        assert_same(found, everything(uri, undisturbed))
    points = sum(len(points) for _, points in found["metric"])
    print(f"{KILLS} kills, {len(results)} publications, {len(found['run'])} runs, {points} points")
