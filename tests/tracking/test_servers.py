"""Servers that are down, slow, or gone half-way; the database; the process that follows a study."""

import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from urllib.request import urlopen

import pytest
from tracking.conftest import done

from yarnlab.tracking import mirror, publication
from yarnlab.tracking.dashboard import serve
from yarnlab.tracking.store import initialise


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_a_dead_server_costs_a_warning_and_its_deadline(study, store, use_uri, request, monkeypatch, kind):
    """Nothing is lost: the next publication sends what is on disk."""
    study.start()
    study.step(1)
    study.end()
    use_uri(f"http://me:secret@127.0.0.1:{request.getfixturevalue(f'{kind}_port')}")
    begin = time.monotonic()
    result = publication.publish(study.directory, deadline_s=2)
    assert time.monotonic() - begin < 2
    assert (result.published, result.pending, result.runs) == (0, 1, {})
    assert "***@127.0.0.1" in result.warning and "secret" not in result.warning

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert done(publication.publish(study.directory)) == (1, 0, None)
    assert (store.run().info.status, store.steps()) == ("FINISHED", [1])


@pytest.mark.parametrize("answer", ["close", "hang"])
def test_a_server_that_fails_after_its_health_check(study, use_uri, capfd, monkeypatch, answer):
    """The first request without an answer ends the publication, whatever the number of records."""
    for number in range(5):
        study.start(f"model{number}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # the user's own settings win
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/health":
                self.send_response(200)
                self.end_headers()
            elif answer == "hang":
                release.wait(30)
            self.close_connection = True

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        use_uri(f"http://me:secret@127.0.0.1:{server.server_address[1]}")
        begin = time.monotonic()
        result = publication.publish(study.directory)
        took = time.monotonic() - begin
        release.set()
        server.shutdown()
    assert took < 2.5
    assert result.pending == 1
    assert "secret" not in result.warning + "".join(capfd.readouterr())
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


@pytest.mark.slow
def test_initialise_never_fails_a_study(study, use_uri, closed_port, capsys):
    """A dead server and an impossible database are a warning on stderr, without the password."""
    use_uri(f"http://me:secret@127.0.0.1:{closed_port}")
    initialise(study.directory.parent)
    use_uri("sqlite:////dev/null/mlflow.db")
    initialise(study.directory.parent)
    first, second = capsys.readouterr().err.splitlines()
    assert "***@127.0.0.1" in first and "secret" not in first
    assert "/dev/null/mlflow.db" in second


@pytest.mark.slow
def test_initialise_upgrades_an_old_database(study, migrated):
    """An earlier MLflow's tables get the current schema, and keep what was in them."""
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    database = study.directory.parent / "mlflow.db"
    engine = create_engine(f"sqlite:///{database}")
    Base.metadata.create_all(engine)
    engine.dispose()

    def ask(path, query):
        with closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(query).fetchall()

    ask(database, "INSERT INTO experiments VALUES (7, 'old', '/tmp/old', 'active')")
    initialise(study.directory.parent)
    assert ask(database, "SELECT name FROM experiments WHERE experiment_id = 7") == [("old",)]
    version = "SELECT version_num FROM alembic_version"
    assert ask(database, version) == ask(migrated, version)
    assert sorted(path.name for path in database.parent.iterdir()) == ["micro", "mlflow.db", "mlflow.lock"]


@pytest.mark.slow
def test_a_database_that_is_up_to_date_is_not_replaced(study, store):
    """A dashboard that has it open would go on to show the old file."""
    database = study.directory.parent / "mlflow.db"
    before = database.stat()
    initialise(study.directory.parent)
    after = database.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@contextmanager
def followed(study, monkeypatch, **options):
    """`follow` in a thread, beside a parent process that ends with the block; yields what it prints."""
    monkeypatch.setattr(mirror, "_NICENESS", 0)
    output = io.StringIO()
    parent = subprocess.Popen(["sleep", "1000"])
    options = {"parent_pid": parent.pid, "interval_s": 0.1} | options
    follower = threading.Thread(target=mirror.follow, args=(study.directory,), kwargs=options)
    with redirect_stdout(output):
        follower.start()
        try:
            yield output
        finally:
            parent.kill()
            parent.wait()
            follower.join(20)
    assert not follower.is_alive()


def wait_for(condition, timeout_s=15):
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)


def test_the_mirror_follows_a_study_to_its_end(study, store, monkeypatch):
    """Curves grow while the study runs, and what its last moment wrote is published too."""
    study.start()
    with followed(study, monkeypatch) as output:
        study.step(1)
        wait_for(lambda: "base" in {run.info.run_name for run in store.runs()} and store.steps() == [1])
        study.step(2)
        wait_for(lambda: store.steps() == [1, 2])
        study.end()
    assert (store.run().info.status, output.getvalue()) == ("FINISHED", "")


def test_the_mirror_outlives_a_dead_server(study, store, monkeypatch, use_uri, closed_port):
    """One line in the log while the server is down, one when it is back; the intervals grow."""
    calls = []
    publish = mirror.publish
    monkeypatch.setattr(mirror, "publish", lambda *a, **k: calls.append(time.monotonic()) or publish(*a, **k))
    use_uri(f"http://127.0.0.1:{closed_port}")
    study.start()
    with followed(study, monkeypatch) as output:
        wait_for(lambda: len(calls) >= 4)
        assert output.getvalue().count("\n") == 1
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        wait_for(lambda: "up to date again" in output.getvalue())
        study.end()
    gaps = [after - before for before, after in pairwise(calls)]
    assert gaps[2] > 1.5 * gaps[0]
    assert output.getvalue().count("\n") == 2
    assert store.run().info.status == "FINISHED"
    assert publication.publication_state(study.directory) == "mlflow.db 0"


def test_one_follower_per_study(study, monkeypatch):
    """A second follower waits while the first one works, and ends with its own parent."""
    active = []
    monkeypatch.setattr(
        mirror,
        "publish",
        lambda *_, **__: active.append(threading.get_ident()) or mirror.PublishResult(),
    )
    with followed(study, monkeypatch):
        wait_for(lambda: active)
        with followed(study, monkeypatch):
            time.sleep(0.5)
        assert len(set(active)) == 1


def test_who_waits_for_the_database_is_next(study, store, monkeypatch):
    """A mirror without CPU time, which would need ten seconds for all runs, makes way for a publication within one."""
    send = publication._send

    def starved(*arguments):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.5)
        return send(*arguments)

    for number in range(20):
        study.start(f"model{number}")
    monkeypatch.setattr(mirror, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(publication, "_LOCK_WAIT_S", 5.0)
    monkeypatch.setattr(publication, "_send", starved)
    with followed(study, monkeypatch):
        wait_for(lambda: store.runs())
        result = publication.publish(study.directory)
        monkeypatch.setattr(publication, "_send", send)
        assert (result.pending, result.warning) == (0, None)
        assert result.published > 10


def test_starting_the_mirror_is_quick_and_detached(study, monkeypatch):
    """It returns at once, in a session of its own, and its messages go to the log."""
    started = []
    popen = subprocess.Popen

    def replacement(command, **options):
        started.append((command, options))
        return popen([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"], **options)

    monkeypatch.setattr(subprocess, "Popen", replacement)
    begin = time.monotonic()
    mirror.start_mirror(study.directory, [("train", "base")])
    assert time.monotonic() - begin < 0.5
    ((command, _),) = started
    assert command[1:4] == ["-m", "yarnlab", "mirror"]
    assert command[4:] == ["--study-dir", str(study.directory), "--parent", str(os.getpid())]
    log = study.directory / "tracking" / "mirror.log"
    wait_for(lambda: log.read_text())
    assert log.read_text() == "True\n"


def test_the_dashboard_says_what_is_missing(study, use_uri, closed_port, capsys):
    """Without a database it names the command that makes one; for a server it prints the link."""
    with pytest.raises(SystemExit, match="snakemake"):
        serve(study.directory.parent)
    study.start()
    use_uri(f"http://me:secret@127.0.0.1:{closed_port}")
    serve(study.directory.parent)
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"MLflow: http://127.0.0.1:{closed_port}"]
    assert "micro: not all is in MLflow" in err and "secret" not in err


@contextmanager
def dashboard(results, port):
    """`serve` in a process of its own, stopped by SIGINT; yields its link."""
    code = f"""if True:
        from pathlib import Path; from yarnlab.tracking.dashboard import serve
        serve(Path({str(results)!r}), port={port})"""
    server = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)
    try:
        yield next(line for line in server.stdout if line.startswith("MLflow: ")).split()[1]
    finally:
        server.send_signal(signal.SIGINT)
        rest = server.communicate(timeout=60)[0]
    assert (server.returncode, "MLflow stopped." in rest) == (0, True)


@pytest.mark.slow
def test_a_real_server_shows_what_was_published_while_it_was_down(study, store, use_uri):
    """The dashboard takes the next port when its own is in use, serves API and files, and stops at SIGINT."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with dashboard(study.directory.parent, port) as link:
            assert link != f"http://127.0.0.1:{port}"
            use_uri(link)
            study.start()
            study.step(1)
            assert publication.publish(study.directory).published == 1
            study.step(2)
            study.end(metrics={"perplexity": 2.0})
            assert done(publication.publish(study.directory)) == (1, 0, None)
            store.uri = link
            store.client.delete_tag(store.run().info.run_id, "yarnlab.published")
            assert publication.publish(study.directory).published == 1
            assert (store.run().info.status, store.steps()) == ("FINISHED", [1, 2])
            manifest = store.client.download_artifacts(store.run().info.run_id, "models/base/manifest.json")
            with open(manifest) as file:
                assert json.load(file)["metrics"] == {"perplexity": 2.0}
    with (
        pytest.raises(OSError),
        socket.create_connection(("127.0.0.1", int(link.rpartition(":")[2])), timeout=2),
    ):
        pass


@pytest.mark.slow
def test_the_dashboard_of_a_moved_folder_opens_its_artifacts(study, store, closed_port):
    """By the client and by the address that MLflow's page takes them from, under the link that the report has."""
    study.start(artifacts=["tables/t.csv"])
    (study.directory / "tables").mkdir()
    (study.directory / "tables" / "t.csv").write_text("a,b\n")
    study.end(metrics={"perplexity": 2.0})
    run = publication.publish(study.directory).runs["train.base"]["run_id"]
    moved = study.directory.parent.with_name("moved")
    study.directory.parent.rename(moved)
    with dashboard(moved, closed_port) as store.uri:
        assert store.run().info.run_id == run
        assert [file.path for file in store.client.list_artifacts(run)] == ["models", "tables"]
        with open(store.client.download_artifacts(run, "models/base/manifest.json")) as file:
            assert json.load(file)["metrics"] == {"perplexity": 2.0}
        with urlopen(f"{store.uri}/get-artifact?run_uuid={run}&path=tables%2Ft.csv") as answer:
            assert answer.read() == b"a,b\n"
