"""A server that is killed at random moments: what MLflow has in the end is what it has of an undisturbed run."""

import os
import random
import threading
import time

import pytest
from tracking.stores import assert_same, everything, publish_all, served, train
from tracking.test_servers import followed

from yarnlab.tracking import mirror

KILLS = 10


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
    begun, results, publish = threading.Event(), [], mirror.publish

    def watched(*arguments, **options):
        begun.set()
        results.append(publish(*arguments, **options))
        return results[-1]

    monkeypatch.setattr(mirror, "publish", watched)

    def work():
        for number in range(KILLS):
            turns.acquire()
            train(study, number, 200, lambda: time.sleep(0.02))

    study.execute()
    worker, killed = threading.Thread(target=work), folder("killed")
    with followed(study, monkeypatch):
        worker.start()
        try:
            for _ in range(KILLS):
                with served(killed, closed_port):
                    turns.release()
                    begun.clear()
                    assert begun.wait(60)
                    time.sleep(chance.uniform(0.0, 2.0))
        finally:
            turns.release(KILLS)
            worker.join(60)
    assert any(result.pending and "cannot be reached" not in str(result.warning) for result in results)
    with served(killed, closed_port) as uri:
        publish_all(study)
        found = everything(uri, killed)
    with served(undisturbed := folder("undisturbed"), closed_port) as uri:
        assert publish_all(study) == 1
        assert_same(found, everything(uri, undisturbed))
    print(f"{KILLS} kills, {len(found['run'])} runs, {sum(len(points) for _, points in found['metric'])} points")
